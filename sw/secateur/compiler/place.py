"""Where logical channels lie in a pixel, and the order of output channels that saves blocks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from secateur.ir import Ints, Layer, Network, Source, Tensor


def round_up(value: int, step: int) -> int:
    """``value`` rounded up to a multiple of ``step``."""
    return -(-value // step) * step


@dataclass(frozen=True)
class Placement:
    """Channels of a tensor in memory.

    Attributes
    ----------
    position : (channels,) byte of each logical channel in a pixel
    pixel_bytes : bytes of a pixel
    start : byte at which a part begins, by its first logical channel
    """

    position: Ints
    pixel_bytes: int
    start: dict[int, int]

    def channels(self) -> Ints:
        """(pixel_bytes,) logical channel of each byte of a pixel, -1 for a gap."""
        logical = np.full(self.pixel_bytes, -1, dtype=np.int64)
        logical[self.position] = np.arange(len(self.position))
        return logical


#: Channels that may be chosen one after the other for one layer, roughly; more than any count of
#: blocks.
_STEPS, _TAKEN = 4096, 1 << 40

Slice = tuple[Tensor, int]  # a tensor and the first channel of a part of it


def _borders(network: Network) -> dict[Tensor, list[int]]:
    """Channels at which parts of each tensor begin, with its channel count at the end.

    Every part begins at a multiple of N bytes. A lane-wise layer (depthwise convolution, sum,
    pooling) reads and writes a channel in the same lane, so its tensors must have their parts at
    the same channels. Example: with N = 8, 12 and 20 channels are concatenated; the second part
    begins at byte 16, not 12. A max pooling of all 32 writes a tensor with the same gap, although
    that was written as one part. If this one is added to a third tensor, that one needs the gap,
    too. So borders spread from tensor to tensor, forwards and backwards, until none is new.
    """
    borders: dict[Tensor, set[int]] = {}
    for tensor in network.tensors:
        borders[tensor] = {0, *np.cumsum(tensor.slices).tolist()}
    changed = True
    while changed:
        changed = False
        for layer in network.layers:
            views = [(layer.output, layer.first)]
            views += [(s.tensor, s.first) for s in layer.sources if s.mode != "broadcast"]
            if len(views) == 1:
                continue
            shared = {
                border - first
                for tensor, first in views
                for border in borders[tensor]
                if first <= border <= first + layer.channels
            }
            for tensor, first in views:
                new = {first + border for border in shared} - borders[tensor]
                changed |= bool(new)
                borders[tensor] |= new
    return {tensor: sorted(border) for tensor, border in borders.items()}


class _Parts:
    """The parts of all tensors, and which of them share one order of channels (union-find)."""

    def __init__(self, network: Network) -> None:
        self.borders = _borders(network)
        self.parent: dict[Slice, Slice] = {}
        for layer in network.layers:
            for source in layer.sources:
                if source.mode == "broadcast":
                    continue
                pairs = zip(
                    self.of(layer.output, layer.first, layer.channels),
                    self.of(source.tensor, source.first, source.count),
                    strict=True,
                )
                for (a, _), (b, _) in pairs:
                    self.parent[self.find(b)] = self.find(a)

    def of(self, tensor: Tensor, first: int, count: int) -> list[tuple[Slice, int]]:
        """The parts that channels ``first .. first + count`` consist of, with their sizes."""
        border = self.borders[tensor]
        return [
            ((tensor, begin), end - begin)
            for begin, end in pairwise(border)
            if first <= begin < first + count
        ]

    def find(self, key: Slice) -> Slice:
        """The representative of the parts that share an order with ``key``."""
        while self.parent.setdefault(key, key) != key:
            key = self.parent[key]
        return key


def patterns(layer: Layer) -> np.ndarray:
    """(channels, K) boolean: nonzero weights of each output channel, all broadcast sources."""
    rows = [
        source.weight.reshape(layer.channels, -1) != 0
        for source in layer.sources
        if source.mode == "broadcast"
    ]
    return np.concatenate(rows, axis=1) if rows else np.zeros((layer.channels, 0), dtype=bool)


def count_blocks(pattern: np.ndarray, order: Ints, n: int) -> int:
    """Nonzero N:1 blocks if rows of N channels are taken in one order.

    Parameters
    ----------
    pattern : (channels, K) boolean, nonzero weights
    order : (channels,) a permutation
    n : channels of a row
    """
    return sum(
        int(pattern[order[begin : begin + n]].any(axis=0).sum())
        for begin in range(0, len(order), n)
    )


def _bits(pattern: np.ndarray) -> np.ndarray:
    """(words, channels) uint64: the columns of each channel's pattern as bits."""
    packed = np.packbits(pattern, axis=1)
    packed = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8)))
    return np.ascontiguousarray(packed.view(np.uint64).T)


def _grow(pattern: np.ndarray, sizes: list[int], short: int) -> tuple[list[list[int]], list[int]]:
    """Groups of the given sizes: each begins with the densest channel left and takes the one that
    adds the fewest nonzero blocks until it is full.

    Returns
    -------
    groups, late : and the blocks of each that came with members behind the first ``short``
    """
    order = np.argsort(-pattern.sum(axis=1), kind="stable")
    bits = _bits(pattern[order])
    taken = np.zeros(len(order), np.int64)
    groups, late = [], []
    for size in sizes:
        group: list[int] = []
        union = np.zeros((len(bits), 1), np.uint64)
        came = 0
        added = taken  # the first is the densest, which stands first
        while True:
            chosen = int(np.argmin(added))
            came += int(added[chosen]) if len(group) >= short else 0
            group.append(int(order[chosen]))
            taken[chosen] = _TAKEN
            if len(group) == size:
                break
            union |= bits[:, chosen : chosen + 1]
            added = np.bitwise_count(bits & ~union).sum(axis=0, dtype=np.int64) + taken
        groups.append(group)
        late.append(came)
    return groups, late


def group_channels(pattern: np.ndarray, n: int) -> Ints:
    """An order of the channels in which rows of N share their zeros, or the given order.

    Greedy. If the channels do not fill the last row, the short group is tried in several places of
    the sequence: in all of a small layer, else where groups grow most behind so many members. The
    given order is kept unless another has fewer blocks.
    """
    given = np.arange(len(pattern))
    # No order has fewer blocks than each column alone needs.
    least = int((-(-pattern.sum(axis=0) // n)).sum())
    if count_blocks(pattern, given, n) == least:
        return given
    full, short = divmod(len(pattern), n)
    groups, late = _grow(pattern, [n] * full + [short] * (short > 0), short)
    tries = [groups]
    if short:
        places = sorted(range(full), key=lambda k: -late[k])[: _STEPS // len(pattern)]
        for k in sorted(places, reverse=True):
            tries.append(_grow(pattern, [n] * k + [short] + [n] * (full - k), short)[0])
    orders = [given]
    for groups in tries:
        orders.append(
            np.array([c for group in sorted(groups, key=len, reverse=True) for c in group])
        )
    return min(orders, key=lambda order: count_blocks(pattern, order, n))


def longest_first(pattern: np.ndarray, order: Ints, n: int) -> Ints:
    """The order with its full rows of N channels by falling number of blocks.

    Rows that filter lanes compute side by side take as long as the longest of them.

    Parameters
    ----------
    pattern : (channels, K) boolean, nonzero weights
    order : (channels,) a permutation
    n : channels of a row
    """
    full = len(order) // n
    rows = order[: full * n].reshape(full, n)
    words = pattern[rows].any(axis=1).sum(axis=1)
    return np.concatenate([rows[np.argsort(-words, kind="stable")].ravel(), order[full * n :]])


def place(network: Network, n: int) -> dict[Tensor, Placement]:
    """Placement of every tensor of the network.

    Parts of layer outputs begin at multiples of N. Their channels are permuted where that saves
    blocks; parts that lane-wise layers tie together share one order. The network's inputs keep
    their order, and are packed without gaps if they are only broadcast.
    """
    parts = _Parts(network)
    seen: dict[Slice, list[np.ndarray]] = {}
    for layer in network.layers:
        pattern = patterns(layer)
        for (tensor, begin), size in parts.of(layer.output, layer.first, layer.channels):
            rows = pattern[begin - layer.first : begin - layer.first + size]
            seen.setdefault(parts.find((tensor, begin)), []).append(rows)
    for given in network.given:
        for (tensor, begin), _ in parts.of(given, 0, given.channels):
            seen.pop(parts.find((tensor, begin)), None)
    joined = {key: np.concatenate(rows, axis=1) for key, rows in seen.items()}
    orders = {
        key: longest_first(pattern, group_channels(pattern, n), n)
        for key, pattern in joined.items()
    }
    lanewise = {
        source.tensor
        for layer in network.layers
        for source in layer.sources
        if source.mode != "broadcast"
    }
    result = {}
    for tensor in network.tensors:
        packed = tensor in network.given and tensor not in lanewise
        position, start, byte = np.zeros(tensor.channels, np.int64), {}, 0
        for (_, first), size in parts.of(tensor, 0, tensor.channels):
            order = orders.get(parts.find((tensor, first)), np.arange(size))
            start[first] = byte
            position[first + order] = byte + np.arange(size)
            byte += size if packed else round_up(size, n)
        result[tensor] = Placement(position, byte, start)
    return result


def lane_channels(layer: Layer, placement: Placement, n: int) -> Ints:
    """The channels that the lanes compute.

    Parameters
    ----------
    layer : the layer
    placement : of its output
    n : lanes of a row

    Returns
    -------
    lanes : (rows, N) channels of the layer, -1 for none
    """
    position = placement.position[layer.first : layer.first + layer.channels]
    begin = placement.start[layer.first]
    rows = -(-(int(position.max()) + 1 - begin) // n)
    lanes = np.full(rows * n, -1, dtype=np.int64)
    lanes[position - begin] = np.arange(layer.channels)
    return lanes.reshape(rows, n)


def source_positions(source: Source, placement: Placement) -> Ints:
    """Byte in a pixel of each of the source's input channels."""
    return placement.position[source.first : source.first + source.count]

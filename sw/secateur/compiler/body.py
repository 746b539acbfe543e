"""Row bodies: the nonzero blocks of N output channels as stream words, before any geometry but N.

Steps depend on the placement of channels and on the kernel, not on the pitch of a map or on the
lanes, so bodies are made once and every schedule is costed with them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from secateur.compiler.place import Placement, lane_channels, place, source_positions
from secateur.errors import SecateurError
from secateur.hw import spec
from secateur.ir import Ints, Layer, Network, Source, Tensor


@dataclass(frozen=True)
class Row:
    """One row body.

    Attributes
    ----------
    weights : (words, N) int8
    common : (words,) uint8, the moves of the address
    blocks : words that carry weights; the others only move the address
    """

    weights: npt.NDArray[np.int8]
    common: npt.NDArray[np.uint8]
    blocks: int


@dataclass(frozen=True)
class Body:
    """All rows of a layer.

    Attributes
    ----------
    lanes : (rows, N) output channel of each lane, -1 for none
    rows : row bodies
    passes, pass_rows : every group makes ``passes`` passes over a body, ``pass_rows`` kernel rows
        apart
    uniform : all channels have the same weights, bias and shift, so that a row serves any block of
        channels; then every lane has weights
    blocks_total : blocks that a dense layer would have
    spans : of each source, units of the mode that a kernel row of its window reaches
    """

    lanes: Ints
    rows: list[Row]
    passes: int
    pass_rows: int
    uniform: bool
    blocks_total: int
    spans: list[int]
    found: list[list[_Block]] = field(repr=False)

    @cached_property
    def flat(self) -> list[Row]:
        """The rows for filter lanes."""
        if not any(block.kernel_row for row in self.found for block in row):
            return self.rows
        return [_encode(blocks, self.lanes.shape[1], self.spans) for blocks in self.found]

    @property
    def blocks(self) -> int:
        """Blocks that are in the stream."""
        return sum(row.blocks for row in self.rows)


@dataclass(frozen=True)
class _Block:
    """A nonzero block.

    Attributes
    ----------
    source : index of the source
    kernel_row : of the window
    offset : units of the mode from the start of the kernel row
    weights : (N,)
    """

    source: int
    kernel_row: int
    offset: int
    weights: Ints


def _moves(at: _Block, to: _Block) -> list[int]:
    """Common bytes that bring the address from one block to the next; the last one reads it.

    A word moves the address by one of three steps: on within a kernel row, to the next kernel row,
    or to source B, whose kernel row is 0 then. The last two take up to STEP_FIELD units along; what
    is left needs further words. Example: from kernel row 0 to offset 200 of row 2 these are "next
    row", "next row, 63 units", "127 units" and "10 units".
    """
    moves = []
    kernel_row, offset = at.kernel_row, at.offset
    if to.source != at.source:
        kernel_row = 0
        offset = min(to.offset, spec.STEP_FIELD) if to.kernel_row == 0 else 0
        moves.append(spec.STEP_SOURCE | offset)
    while kernel_row < to.kernel_row:
        kernel_row += 1
        # Units count from the start of the row: those of a row that is only passed would be lost.
        offset = min(to.offset, spec.STEP_FIELD) if kernel_row == to.kernel_row else 0
        moves.append(spec.STEP_ROW | offset)
    while offset < to.offset:
        step = min(to.offset - offset, spec.STEP_ADD_LIMIT - 1)
        offset += step
        moves.append(step)
    return moves or [0]


def _flat_moves(at: _Block, to: _Block, span: int) -> list[int]:
    """As ``_moves`` for filter lanes, which do not know where their kernel row began.

    They count units as if each kernel row began where the one before ends, ``span`` units on;
    register KR holds what lies in between.
    """
    left, down, moves = span * to.kernel_row + to.offset, to.kernel_row, list[int]()
    if to.source == at.source:
        left, down = left - span * at.kernel_row - at.offset, down - at.kernel_row
    for move in [spec.STEP_SOURCE] * (to.source != at.source) + [spec.STEP_ROW] * down:
        moves.append(move | min(left, spec.STEP_FIELD))
        left -= moves[-1] & spec.STEP_FIELD
    while left > 0:
        moves.append(min(left, spec.STEP_ADD_LIMIT - 1))
        left -= moves[-1]
    return moves or [0]


def _encode(blocks: list[_Block], n: int, spans: list[int] | None = None) -> Row:
    """Words of a row; with ``spans``, of filter lanes."""
    words: list[tuple[int, Ints]] = []
    nothing = np.zeros(n, dtype=np.int64)
    at = _Block(0, 0, 0, nothing)
    for block in blocks:
        moves = _flat_moves(at, block, spans[block.source]) if spans else _moves(at, block)
        *pads, last = moves
        words += [(move, nothing) for move in pads]
        words.append((last, block.weights))
        at = block
    # Words that fill a short row stand in front, where they read the first word of source A. That
    # does no harm to a maximum, of which every word counts, nor to a gate, which must come first.
    short = spec.MIN_ROW_WORDS - len(words)
    words = [(0, nothing)] * short + words
    weights = np.array([weight for _, weight in words]).astype(np.int8)
    return Row(weights, np.array([move for move, _ in words], dtype=np.uint8), len(blocks))


def _broadcast_blocks(
    index: int, source: Source, lanes: Ints, placement: Placement, dense: bool
) -> list[_Block]:
    # Lanes without a channel, -1, get zeros.
    weight = source.weight[np.maximum(lanes, 0)] * (lanes >= 0)[:, None, None, None]
    kept = np.ones(weight.shape[1:], dtype=bool) if dense else (weight != 0).any(axis=0)
    channel, y, x = np.nonzero(kept)
    position = source_positions(source, placement)[channel] - placement.start[source.first]
    offset = x * source.dilation[1] * placement.pixel_bytes + position
    order = np.lexsort((offset, y))  # the address only moves on
    return [
        _Block(index, int(y[i]), int(offset[i]), weight[:, channel[i], y[i], x[i]]) for i in order
    ]


def _lanewise_blocks(
    index: int, source: Source, lanes: Ints, placement: Placement, kernel_rows: int, dense: bool
) -> list[_Block]:
    weight = source.weight[np.maximum(lanes, 0)] * (lanes >= 0)[:, None, None]
    n = len(lanes)
    taps = [(y, x) for y in range(kernel_rows) for x in range(source.kernel[1])]
    blocks = []
    for y, x in taps:
        tap = weight[:, y, x]
        if source.mode == "maximum" and (y, x) != taps[-1]:
            # Each word takes the maximum with those before it; only the last one is to be added.
            tap = np.zeros_like(tap)
        elif not (tap.any() or dense or source.mode == "gate"):
            continue
        offset = x * source.dilation[1] * placement.pixel_bytes // n
        blocks.append(_Block(index, y, offset, tap))
    return blocks


def _check_maximum(layer: Layer, placements: dict[Tensor, Placement], n: int) -> None:
    """Refuse max pooling whose addresses need words in between: what these read would count, too.

    Raises
    ------
    SecateurError : the columns of a window are too far apart
    """
    for source in layer.sources:
        if source.mode == "maximum" and source.kernel[1] > 1:
            step = source.dilation[1] * placements[source.tensor].pixel_bytes // n
            if step >= spec.STEP_ADD_LIMIT:
                raise SecateurError(
                    f"layer {layer.name!r}: the columns of its window lie {step} words of {n} "
                    f"channels apart, max pooling takes at most {spec.STEP_ADD_LIMIT - 1}; "
                    f"pool fewer channels, with less dilation, or use average pooling"
                )


def _passes(layer: Layer) -> tuple[int, int]:
    """Passes over the body, and kernel rows of one pass.

    Where all kernel rows have the same weights (an average), one body of a few rows is read several
    times, which saves stream words, not cycles. A body has at least MIN_ROW_WORDS words.
    """
    source = layer.sources[0]
    height, width = source.kernel
    if len(layer.sources) == 1 and source.mode == "lanewise":
        alike = bool((source.weight == source.weight[:, :1]).all())
        for rows in range(1, height):
            if alike and height % rows == 0 and rows * width >= spec.MIN_ROW_WORDS:
                return height // rows, rows
    return 1, height


def _uniform(layer: Layer) -> bool:
    """Whether every channel does the same, so that the pixel lanes can divide up the channels."""
    same = all(
        source.mode != "broadcast" and bool((source.weight == source.weight[:1]).all())
        for source in layer.sources
    )
    return same and len(set(layer.bias.tolist())) == 1 and len(set(layer.shift.tolist())) == 1


def make_body(
    layer: Layer, placements: dict[Tensor, Placement], n: int, dense: bool = False
) -> Body:
    """The rows of a layer.

    Parameters
    ----------
    layer : the layer
    placements : of its tensors
    n : lanes of a block
    dense : keep every block, as if the layer were not pruned

    Raises
    ------
    SecateurError : the columns of a max pooling window are too far apart
    """
    lanes = lane_channels(layer, placements[layer.output], n)
    passes, pass_rows = _passes(layer)
    _check_maximum(layer, placements, n)
    uniform = _uniform(layer)
    heights = [
        pass_rows if passes > 1 and source.mode != "broadcast" else source.kernel[0]
        for source in layer.sources
    ]
    found = []
    # All lanes of a uniform layer take the weights of channel 0: every row is the same then.
    for row in np.zeros_like(lanes) if uniform else lanes:
        blocks: list[_Block] = []
        for index, source in enumerate(layer.sources):
            placement = placements[source.tensor]
            if source.mode == "broadcast":
                blocks += _broadcast_blocks(index, source, row, placement, dense)
            else:
                blocks += _lanewise_blocks(index, source, row, placement, heights[index], dense)
        found.append(blocks)
    total = sum(
        (source.count if source.mode == "broadcast" else 1) * height * source.kernel[1]
        for source, height in zip(layer.sources, heights, strict=True)
    )
    rows = [_encode(blocks, n) for blocks in found]
    spans = [_span(source, placements[source.tensor], n) for source in layer.sources]
    return Body(lanes, rows, passes, pass_rows, uniform, total * len(rows), spans, found)


def _span(source: Source, placement: Placement, n: int) -> int:
    """Units of the mode from the first byte of a window's row to behind its last."""
    unit = 1 if source.mode == "broadcast" else n
    columns = (source.kernel[1] - 1) * source.dilation[1] + 1
    return columns * placement.pixel_bytes // unit


@dataclass(frozen=True)
class Bodies:
    """What a network is on every array of N lanes.

    Attributes
    ----------
    n : lanes of a block
    placements : of all tensors
    layers : rows of every layer
    """

    n: int
    placements: dict[Tensor, Placement]
    layers: dict[Layer, Body]


def make_bodies(network: Network, n: int, dense: bool = False) -> Bodies:
    """The rows of a network.

    Parameters
    ----------
    network : with the copies that the array needs
    n : lanes of a block
    dense : keep every block, as if the network were not pruned

    Raises
    ------
    SecateurError : the columns of a max pooling window are too far apart
    """
    placements = place(network, n)
    layers = {layer: make_body(layer, placements, n, dense) for layer in network.layers}
    return Bodies(n, placements, layers)

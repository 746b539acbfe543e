"""Where the values of a moved tensor are, and copies that bring them where they are wanted.

Every code of every stored map has a number. A move (``secateur.fx.moves``) permutes, repeats and
leaves out numbers, so a tensor behind any chain of moves is an array of numbers. If they are those
of a store in its order, the tensor is that store. If they are an even grid of one, a convolution
reads them there: channels by the columns of its weights, rows and columns by stride and padding.
Else the array is cut into grids, and a layer copies each.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from math import prod

import numpy as np

from secateur.fx.moves import Numbers
from secateur.ir import Ints, Region
from secateur.lowering.store import Grid, Store

#: Vectors from a pixel to another that are tried for a grid.
_TRIED = 12


def as_map(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(channels, height, width) of a tensor of any number of dimensions, without samples."""
    if len(shape) <= 1:
        return prod(shape), 1, 1
    if len(shape) == 2:
        return shape[0], 1, shape[1]
    return prod(shape[:-2]), shape[-2], shape[-1]


@dataclass
class Numbering:
    """The numbers of the codes of all stores."""

    stores: list[Store] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    count: int = 0

    def add(self, store: Store) -> None:
        """Number the codes of a store that is not a concatenation."""
        self.stores.append(store)
        self.firsts.append(self.count)
        self.count += store.channels * store.height * store.width

    def of(self, store: Store) -> Numbers:
        """(channels, height, width)"""
        found = []
        for leaf in store.leaves():
            first = self.firsts[self.stores.index(leaf)]
            shape = leaf.channels, leaf.height, leaf.width
            found.append(np.arange(first, first + prod(shape)).reshape(shape))
        return np.concatenate(found)

    def at(self, number: int) -> Store:
        """The store of a code."""
        return self.stores[bisect_right(self.firsts, number) - 1]

    def whole(self, numbers: Numbers) -> Store | None:
        """The store, or the concatenation, whose codes these are, all and in their order."""
        flat = numbers.reshape(-1)
        if flat.min(initial=0) < 0 or not len(flat):
            return None
        store: Store | None = self.at(int(flat[0]))
        while store is not None:
            size = store.channels * store.height * store.width
            if size == len(flat) and np.array_equal(self.of(store).reshape(-1), flat):
                return store
            store = store.parent
        return None

    def runs(self, numbers: Numbers) -> list[tuple[Store | None, int]]:
        """A map (channels, height, width) as stores side by side, with the channels of each; None
        stands for channels that are not a whole store.
        """
        found: list[tuple[Store | None, int]] = []
        channel = 0
        while channel < len(numbers):
            store = self._begins(numbers[channel:])
            if store is not None:
                found.append((store, store.channels))
                channel += store.channels
            elif found and found[-1][0] is None:
                found[-1] = (None, found[-1][1] + 1)
                channel += 1
            else:
                found.append((None, 1))
                channel += 1
        return found

    def _begins(self, numbers: Numbers) -> Store | None:
        """The largest store with which a map begins."""
        found = None
        if numbers[0, 0, 0] >= 0:
            store: Store | None = self.at(int(numbers[0, 0, 0]))
            while store is not None:
                shape = (store.channels, store.height, store.width)
                part = numbers[: store.channels]
                if part.shape == shape and np.array_equal(self.of(store), part):
                    found = store
                store = store.parent
        return found

    def roots(self, numbers: Numbers) -> list[Store]:
        """The stores, or concatenations around them, of which there are numbers, in order."""
        indices = np.searchsorted(self.firsts, numbers[numbers >= 0], side="right") - 1
        _, first = np.unique(indices, return_index=True)
        leaves = [self.stores[int(indices.reshape(-1)[i])] for i in sorted(first)]
        return list(dict.fromkeys(leaf.root() for leaf in leaves))


@dataclass(frozen=True)
class Places:
    """Channel, row and column in its root of every value, arrays of one shape; of a constant -1,
    0 and 0. ``root`` is its index in ``roots``, -1 of a constant.
    """

    roots: list[Store]
    root: Ints
    channel: Ints
    row: Ints
    column: Ints


def places(numbering: Numbering, numbers: Numbers) -> Places:
    """Where the values are."""
    roots = numbering.roots(numbers)
    root, channel, row, column = (np.zeros_like(numbers) for _ in range(4))
    root[:] = channel[:] = -1
    for index, store in enumerate(roots):
        owned = numbering.of(store)
        order = np.argsort(owned, axis=None)
        found = np.searchsorted(owned.reshape(-1), numbers, sorter=order)
        at = order[np.minimum(found, owned.size - 1)]
        here = (numbers >= 0) & (owned.reshape(-1)[at] == numbers)
        c, y, x = np.unravel_index(at, owned.shape)
        root[here] = index
        channel[here], row[here], column[here] = c[here], y[here], x[here]
    return Places(roots, root, channel, row, column)


def even_grid(numbering: Numbering, numbers: Numbers) -> Grid | None:
    """The grid of one store that a map (channels, height, width) is, None if it is not one."""
    found = places(numbering, numbers)
    if len(found.roots) != 1 or (found.root < 0).any():
        return None
    _, height, width = numbers.shape
    row, column = found.row[0, :, 0], found.column[0, 0, :]
    steps = (
        int(row[1] - row[0]) if height > 1 else 1,
        int(column[1] - column[0]) if width > 1 else 1,
    )
    rows, columns = row[0] + steps[0] * np.arange(height), column[0] + steps[1] * np.arange(width)
    channels = found.channel[:, 0, 0]
    even = (
        (found.channel == channels[:, None, None]).all()
        and (found.row == rows[:, None]).all()
        and (found.column == columns).all()
    )
    if not even or min(steps) < 1 or len(set(channels.tolist())) < len(channels):
        return None
    ones = np.ones(len(channels), np.int64)
    return Grid(found.roots[0], channels, ones * row[0], ones * column[0], steps)


def scattered(numbering: Numbering, numbers: Numbers) -> Grid | None:
    """The places in one store of the values of a vector, none twice; None if it is not so."""
    found = places(numbering, numbers)
    once = len(set(numbers.tolist())) == len(numbers)
    if len(found.roots) != 1 or (found.root < 0).any() or not once:
        return None
    return Grid(found.roots[0], found.channel, found.row, found.column)


@dataclass(frozen=True)
class Copy:
    """A grid of pixels that one layer copies.

    ``region`` of the copy is what it writes; ``channels``, ``rows``, ``columns`` (per channel) say
    what the first of its pixels reads of ``store``, ``steps`` how far apart the next are.
    ``constants`` are the values of channels that read nothing, where ``channels`` is -1.
    """

    region: Region
    store: Store | None
    channels: Ints
    rows: Ints
    columns: Ints
    steps: tuple[int, int]
    constants: Ints


def side_by_side(numbering: Numbering, numbers: Numbers) -> list[slice]:
    """Channels of a map of which no pixel has values of two roots, as few parts as there can be."""
    root = places(numbering, numbers).root
    parts, first, seen = [], 0, root[0].copy()
    for channel in range(1, len(root)):
        mixed = (seen >= 0) & (root[channel] >= 0) & (seen != root[channel])
        if mixed.any():
            parts.append(slice(first, channel))
            first, seen = channel, root[channel].copy()
        else:
            seen = np.maximum(seen, root[channel])
    return [*parts, slice(first, len(root))]


def copies(numbering: Numbering, numbers: Numbers, codes: Ints) -> list[Copy]:
    """The copies that make a map, in order.

    Parameters
    ----------
    numbering : of all stores
    numbers : of a map (channels, height, width), of one root per pixel; -1 for constants
    codes : the codes of the constants, of the same shape
    """
    found = places(numbering, numbers)
    channels, height, width = numbers.shape
    flat = (channels, height * width)
    root, channel, row, column = (
        a.reshape(flat) for a in (found.root, found.channel, found.row, found.column)
    )
    constant, stored = codes.reshape(flat), channel >= 0
    # Pixels are of a kind if they differ by a shift of what they read.
    lead = stored.argmax(axis=0)
    at = np.arange(height * width)
    base_row, base_column = (
        np.where(stored.any(axis=0), place[lead, at], 0) for place in (row, column)
    )
    kinds = np.concatenate([
        root, channel, np.where(stored, row - base_row, 0),
        np.where(stored, column - base_column, 0), np.where(stored, 0, constant),
    ])  # fmt: skip
    _, kind = np.unique(kinds, axis=1, return_inverse=True)
    kind = kind.reshape(-1)
    made = []
    for number in dict.fromkeys(kind.tolist()):
        read = {
            divmod(pixel, width): (int(base_row[pixel]), int(base_column[pixel]))
            for pixel in np.nonzero(kind == number)[0].tolist()
        }
        for region, steps in _cover(read):
            pixel = region.top * width + region.left
            owner = int(root[:, pixel].max())
            made.append(
                Copy(
                    region, found.roots[owner] if owner >= 0 else None,
                    channel[:, pixel], row[:, pixel], column[:, pixel], steps, constant[:, pixel],
                )
            )  # fmt: skip
    return made


_Pixel = tuple[int, int]


def _cover(read: dict[_Pixel, _Pixel]) -> list[tuple[Region, tuple[int, int]]]:
    """Grids of pixels that read grids, one after the other the largest that is found.

    ``read`` gives for every pixel that is written the one that is read. Returns regions, and how
    far apart the pixels are that they read.
    """
    left = dict(sorted(read.items(), key=lambda item: (item[1], item[0])))
    found = []
    while left:
        first = next(iter(left))
        best, best_steps = Region(*first, 1, 1), (0, 0)
        for right, step_x, width in [((0, 1), 0, 1), *_runs(left, first, 1)]:
            for down, step_y, height in [((1, 0), 0, 1), *_runs(left, first, 0)]:
                region = Region(*first, height, width, down, right)
                while not _fits(left, region, (step_y, step_x)):
                    height -= 1
                    region = Region(*first, height, width, down, right)
                if height * width > best.height * best.width:
                    best, best_steps = region, (step_y, step_x)
        found.append((best, best_steps))
        for pixel in zip(*(a.reshape(-1).tolist() for a in best.at), strict=True):
            del left[pixel]
    return found


def _runs(left: dict[_Pixel, _Pixel], first: _Pixel, axis: int) -> list[tuple[_Pixel, int, int]]:
    """Vectors to pixels that read along one axis of the map, with the step of what they read and
    the pixels in a row; the longest first.
    """
    from_ = left[first]
    near = []
    for (y, x), at in left.items():
        if at[1 - axis] == from_[1 - axis] and at[axis] >= from_[axis] and (y, x) != first:
            vector = (y - first[0], x - first[1])
            near.append((abs(vector[0]) + abs(vector[1]), vector, at[axis] - from_[axis]))
    runs = []
    for _, vector, step in sorted(near)[:_TRIED]:
        length, read = 1, list(from_)
        while True:
            pixel = (first[0] + length * vector[0], first[1] + length * vector[1])
            read[axis] += step
            if left.get(pixel) != tuple(read):
                break
            length += 1
        runs.append((vector, step, length))
    return sorted(runs, key=lambda run: -run[2])[:4]


def _fits(left: dict[_Pixel, _Pixel], region: Region, steps: tuple[int, int]) -> bool:
    """Whether all pixels of a region are left and read an even grid, none twice."""
    rows, columns = region.at
    top, at_left = left[region.top, region.left]
    seen = set()
    for i in range(region.height):
        for j in range(region.width):
            pixel = (int(rows[i, j]), int(columns[i, j]))
            seen.add(pixel)
            if left.get(pixel) != (top + i * steps[0], at_left + j * steps[1]):
                return False
    return len(seen) == region.height * region.width

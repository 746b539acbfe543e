"""Averages, interpolations and maxima whose windows differ, as regions of windows that are alike.

What PyTorch computes of unit vectors says which rows and columns every output reads, and by what
weights. Outputs of the same weights, at equal distances, are one layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.fx import Node

from secateur.canonical.contract import contract
from secateur.fx.graph import CAT, CONV, MAX_POOL, PAD, Editor, aten, refuse, shape_of

_reshape = cast(Callable[..., Node], aten.reshape.default)
#: Prefix of the buffers that hold the weights of an average.
AVERAGE_WEIGHT = "_average_weight"
#: Interpolations that are computed so.
INTERPOLATIONS = (
    aten.upsample_bilinear2d.vec, aten.upsample_bicubic2d.vec,
    aten._upsample_bilinear2d_aa.vec, aten._upsample_bicubic2d_aa.vec,
)  # fmt: skip
#: Layers of regions; more are multiplied by matrices, row by row and column by column.
_MOST = 64
#: Weights that differ by less are alike.
_ALIKE = 1e-9


@dataclass(frozen=True)
class _Class:
    """Outputs ``first``, ``first + step``, ...: the k-th of ``count`` is the sum of what begins at
    ``start + k * stride``, times ``taps``; zero beyond the map.
    """

    first: int
    step: int
    count: int
    start: int
    stride: int
    taps: Tensor

    @property
    def outputs(self) -> slice:
        return slice(self.first, self.first + self.step * (self.count - 1) + 1, self.step)

    def beyond(self, size: int) -> tuple[int, int]:
        """What is read before and after an axis; negative if less than all of it."""
        end = self.start + (self.count - 1) * self.stride + len(self.taps)
        return -self.start, end - size


def resampled(editor: Editor, node: Node, *, maximum: bool = False) -> Node:
    """An average or interpolation of a map as depthwise convolutions, one for each kind of window.

    Parameters
    ----------
    editor : of the graph
    node : of a map (N, C, H, W)
    maximum : of the windows of an average, take the maxima

    Raises
    ------
    SecateurError : rows and columns cannot be computed one after the other
    """
    x = cast(Node, node.args[0])
    channels, *size = shape_of(x)
    matrices = _matrices(node, (size[0], size[1]))
    rows, columns = (_classes(matrix) for matrix in matrices)
    if len(rows) * len(columns) > _MOST and not maximum:
        for matrix, labels in zip(
            matrices, (("nchw", "yh", "ncyw"), ("ncyw", "xw", "ncyx")), strict=True
        ):
            weight = editor.attach("_interpolation", matrix, trained=False)
            x = contract(editor, x, weight, labels, like=node)
        return x
    parts = []
    for row in rows:
        for column in columns:
            both = (row, column)
            part = cut(editor, x, [c.beyond(n) for c, n in zip(both, size, strict=True)], node)
            stride, kernel = [c.stride for c in both], [len(c.taps) for c in both]
            if maximum:
                part = editor.call(MAX_POOL, part, kernel, stride, like=node)
            else:
                taps = torch.outer(row.taps, column.taps).expand(channels, 1, *kernel)
                even = bool((taps == taps[0, 0, 0, 0]).all())
                name = AVERAGE_WEIGHT if even else "_interpolation"
                weight = editor.attach(name, taps, trained=False)
                rest = (None, stride, [0, 0], [1, 1], channels)
                part = editor.call(CONV, part, weight, *rest, like=node)
            parts.append((row.outputs, column.outputs, part))
    return assembled(editor, parts, node)


def _matrices(node: Node, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(rows of the result, rows), (columns of the result, columns): the weights."""
    function = cast(Callable[..., Tensor], node.target)

    def of(maps: Tensor) -> Tensor:
        found = function(maps[:, None].double(), *node.args[1:], **node.kwargs)
        return (found[0] if isinstance(found, tuple) else found)[:, 0]

    height, width = size
    every = of(torch.ones(1, height, width))[0]
    row, column = divmod(int(every.abs().argmax()), every.shape[1])
    rows = of(torch.eye(height)[:, :, None].expand(-1, -1, width))[:, :, column].T
    columns = of(torch.eye(width)[:, None].expand(-1, height, -1))[:, row].T / every[row, column]
    if not torch.allclose(torch.outer(rows.sum(1), columns.sum(1)), every):
        raise refuse(node, "mixes rows and columns", "resize on the host")
    return rows, columns


def _classes(matrix: Tensor) -> list[_Class]:
    """The outputs of an axis (outputs, inputs), the longest series first that has the most taps."""
    spans = []
    for weights in matrix:
        taps = weights.nonzero().reshape(-1).tolist() or [0]
        spans.append((taps[0], taps[-1] + 1))
    left, found = set(range(len(matrix))), []
    while left:
        middle = max(left, key=lambda at: (spans[at][1] - spans[at][0], -at))
        found.append(_series(matrix, spans, middle, left))
        left -= set(range(len(matrix))[found[-1].outputs])
    return found


def _series(matrix: Tensor, spans: list[tuple[int, int]], middle: int, left: set[int]) -> _Class:
    """The longest series of outputs that are left, with one whose window is in the map."""
    start, end = spans[middle]
    taps = matrix[middle, start:end]

    def alike(output: int, first: int) -> bool:
        if output not in left:
            return False
        placed = torch.zeros_like(matrix[0])
        low, high = max(first, 0), min(first + len(taps), len(placed))
        if low < high:
            placed[low:high] = taps[low - first : high - first]
        return bool((placed - matrix[output]).abs().max() < _ALIKE)

    best = _Class(middle, 1, 1, start, 1, taps)
    for other in sorted(left):
        step, stride = other - middle, spans[other][0] - start
        if step <= 0 or stride <= 0 or not alike(other, start + stride):
            continue
        low = high = 0
        while alike(middle + (high + 1) * step, start + (high + 1) * stride):
            high += 1
        while alike(middle + (low - 1) * step, start + (low - 1) * stride):
            low -= 1
        if high - low + 1 > best.count:
            best = _Class(
                middle + low * step, step, high - low + 1, start + low * stride, stride, taps
            )
    return best


def cut(editor: Editor, x: Node, amounts: list[tuple[int, int]], like: Node) -> Node:
    """A map with rows and columns added or, if negative, taken off before and after.

    Parameters
    ----------
    editor : of the graph
    x : (N, C, H, W)
    amounts : (before, after) of rows and of columns
    like : the node that is replaced
    """
    for axis, (before, after) in enumerate(amounts):
        size = shape_of(x)[1 + axis]
        if before < 0 or after < 0:
            x = editor.call(
                aten.slice.Tensor, x, 2 + axis, max(0, -before), size - max(0, -after), like=like
            )
    (top, bottom), (left, right) = ((max(0, a), max(0, b)) for a, b in amounts)
    if top or bottom or left or right:
        x = editor.call(PAD, x, [left, right, top, bottom], "constant", 0.0, like=like)
    return x


def assembled(editor: Editor, parts: list[tuple[slice, slice, Node]], like: Node) -> Node:
    """One map of parts of it.

    Parameters
    ----------
    editor : of the graph
    parts : rows and columns of the map, and what is there, (N, C, rows, columns)
    like : the node that is replaced, of the map's shape
    """
    if len(parts) == 1:
        return parts[0][2]
    height, width = shape_of(like)[1:]
    order, first = torch.zeros(height, width, dtype=torch.int64), 0
    flat = []
    for rows, columns, part in parts:
        channels, *size = shape_of(part)
        count = size[0] * size[1]
        order[rows, columns] = first + torch.arange(count).reshape(size)
        flat.append(editor.call(_reshape, part, [-1, channels, count], like=like))
        first += count
    together = editor.call(CAT, flat, 2, like=like)
    index = editor.attach("_order", order.reshape(-1), trained=False, dtype=torch.int64)
    chosen = editor.call(aten.index_select.default, together, 2, index, like=like)
    return editor.call(_reshape, chosen, [-1, *shape_of(like)], like=like)

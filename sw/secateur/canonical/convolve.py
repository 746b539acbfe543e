"""Convolutions in groups, transposed ones, Linear on more dimensions, bilinear upsampling.

All are convolutions of whole maps: weights between groups are zero, which costs nothing; a
transposed convolution is one per phase of its stride, without the zeros between pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import cast

import torch
from torch.fx import Node

from secateur.canonical.pool import AVERAGE_WEIGHT
from secateur.fx.graph import (
    CAT,
    CONV,
    PAD,
    VIEW,
    Editor,
    argument,
    aten,
    pair,
    rank_of,
    refuse,
    shape_of,
)

TRANSPOSED = aten.conv_transpose2d.input
BILINEAR = aten.upsample_bilinear2d.vec


def _sizes(weight: Node) -> list[int]:
    return [int(n) for n in weight.meta["val"].shape]


def ungrouped(editor: Editor, node: Node) -> Node | None:
    """A convolution in groups with the weights of all inputs, most of them zero; None to keep it.

    Depthwise convolutions, and those without groups, are kept.
    """
    weight, groups = cast(Node, node.args[1]), int(argument(node, 6, 1))
    outputs, inputs = _sizes(weight)[:2]
    if groups == 1 or (inputs == 1 and outputs == groups):
        return None
    dense = _dense(editor, weight, groups, node)
    return editor.call(CONV, node.args[0], dense, *node.args[2:6], 1, like=node)


def _dense(editor: Editor, weight: Node, groups: int, like: Node) -> Node:
    """(O, I / groups, kh, kw) as (O, I, kh, kw)."""
    outputs, inputs = _sizes(weight)[:2]
    share, parts = outputs // groups, []
    for group in range(groups):
        own = editor.call(
            aten.slice.Tensor, weight, 0, group * share, (group + 1) * share, like=like
        )
        amounts = [0, 0, 0, 0, group * inputs, (groups - 1 - group) * inputs]
        parts.append(editor.call(PAD, own, amounts, "constant", 0.0, like=like))
    return editor.call(CAT, parts, 0, like=like)


def linear_on_maps(editor: Editor, node: Node) -> Node:
    """Linear on (N, ..., F) as a 1x1 convolution."""
    x, weight = cast(Node, node.args[0]), cast(Node, node.args[1])
    *outer, features = shape_of(x)
    outputs = _sizes(weight)[0]
    first = editor.call(aten.movedim.int, x, -1, 1, like=node)
    size = [-1, features, prod(outer[:-1]), outer[-1]]
    maps = editor.call(aten.reshape.default, first, size, like=node)
    filters = editor.call(VIEW, weight, [outputs, features, 1, 1], like=node)
    result = editor.call(
        CONV, maps, filters, argument(node, 2, None), [1, 1], [0, 0], [1, 1], 1, like=node
    )
    back = editor.call(aten.reshape.default, result, [-1, outputs, *outer], like=node)
    return editor.call(aten.movedim.int, back, 1, -1, like=node)


def transposed(editor: Editor, node: Node) -> Node:
    """A transposed convolution as one convolution per phase, their outputs interleaved.

    Raises
    ------
    SecateurError : it has a dilation
    """
    x, weight, bias = cast(Node, node.args[0]), cast(Node, node.args[1]), argument(node, 2, None)
    stride, padding = pair(argument(node, 3, 1)), pair(argument(node, 4, 0))
    groups, dilation = int(argument(node, 6, 1)), pair(argument(node, 7, 1))
    if dilation != (1, 1):
        raise refuse(node, f"dilation {dilation}", "use dilation 1")
    inputs, outputs, *kernel = _sizes(weight)
    if groups > 1:  # (I, O / groups, ...) to (I, O, ...), group by group
        weight, outputs = _dense(editor, weight, groups, node), outputs * groups
    filters = editor.call(
        aten.flip.default, editor.call(aten.transpose.int, weight, 0, 1, like=node), [2, 3],
        like=node,
    )  # fmt: skip
    size, into = shape_of(x)[1:], shape_of(node)[1:]
    parts = {}
    for a in range(min(stride[0], into[0])):
        for b in range(min(stride[1], into[1])):
            phases = [
                _Phase.of(at, stride[i], padding[i], kernel[i], size[i], into[i])
                for i, at in enumerate((a, b))
            ]
            taps = filters
            for i, phase in enumerate(phases):
                sliced = (taps, 2 + i, phase.first, kernel[i], stride[i])
                taps = editor.call(aten.slice.Tensor, *sliced, like=node)
            amounts = [(phase.before, phase.after) for phase in phases]
            if 0 in _sizes(taps)[2:]:  # none falls on this phase: the bias, or zero
                zeros = torch.zeros(outputs, inputs, 1, 1)
                taps = editor.attach("_no_weight", zeros, trained=False)
                amounts = [(0, phase.count - n) for phase, n in zip(phases, size, strict=True)]
            reads = _cut(editor, x, amounts, node)
            parts[a, b] = editor.call(CONV, reads, taps, bias, [1, 1], [0, 0], [1, 1], 1, like=node)
    return interleaved(editor, parts, stride, node)


@dataclass(frozen=True)
class _Phase:
    """``count`` outputs of a transposed convolution along one axis, a stride apart.

    ``first`` is their first tap in the flipped kernel; ``before`` and ``after`` is what the input
    is padded with, or, if negative, cut.
    """

    first: int
    before: int
    after: int
    count: int

    @staticmethod
    def of(at: int, stride: int, padding: int, kernel: int, size: int, into: int) -> _Phase:
        """The phase of output ``at``: output stride * j + at takes taps tap, tap + stride, ..."""
        tap = (at + padding) % stride
        taps, count = len(range(tap, kernel, stride)), len(range(at, into, stride))
        shift = (at + padding - tap) // stride
        after = count - 1 + shift - (size - 1)
        return _Phase((kernel - 1 - tap) % stride, taps - 1 - shift, after, count)


def _cut(editor: Editor, x: Node, amounts: list[tuple[int, int]], like: Node) -> Node:
    """A map with rows and columns added or, if negative, taken off before and after."""
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


def interleaved(
    editor: Editor, parts: dict[tuple[int, int], Node], stride: tuple[int, int], like: Node
) -> Node:
    """One map of its phases.

    Parameters
    ----------
    editor : of the graph
    parts : by phase (a, b), the pixels (a, b), (a + stride[0], b), ..., (N, C, rows, columns)
    stride : between pixels of a phase
    like : the node that is replaced, of the map's shape
    """
    height, width = shape_of(like)[1:]
    order, first = torch.zeros(height, width, dtype=torch.int64), 0
    flat = []
    for (a, b), part in parts.items():
        channels, rows, columns = shape_of(part)
        count = rows * columns
        order[a :: stride[0], b :: stride[1]] = first + torch.arange(count).reshape(rows, columns)
        flat.append(editor.call(aten.reshape.default, part, [-1, channels, count], like=like))
        first += count
    together = editor.call(CAT, flat, 2, like=like)
    index = editor.attach("_order", order.reshape(-1), trained=False, dtype=torch.int64)
    chosen = editor.call(aten.index_select.default, together, 2, index, like=like)
    return editor.call(aten.reshape.default, chosen, [-1, *shape_of(like)], like=like)


def bilinear(editor: Editor, node: Node) -> Node:
    """Bilinear upsampling by whole factors: a depthwise convolution per phase.

    Raises
    ------
    SecateurError : corners are aligned, or a factor is not a whole number
    """
    x = cast(Node, node.args[0])
    channels, height, width = shape_of(x)
    rows, columns = shape_of(node)[1:]
    if node.args[2] or rows % height or columns % width:
        raise refuse(
            node, "bilinear upsampling with aligned corners, or by a fraction",
            "use a whole scale_factor and align_corners=False",
        )  # fmt: skip
    factor = (rows // height, columns // width)
    edged = editor.call(aten.pad.default, x, [1, 1, 1, 1], "replicate", like=node)
    parts = {}
    for a in range(factor[0]):
        for b in range(factor[1]):
            taps = torch.outer(_taps(a, factor[0]), _taps(b, factor[1]))
            filters = taps.expand(channels, 1, 3, 3)
            weight = editor.attach(AVERAGE_WEIGHT, filters, trained=False)
            parts[a, b] = editor.call(
                CONV, edged, weight, None, [1, 1], [0, 0], [1, 1], channels, like=node
            )
    return interleaved(editor, parts, factor, node)


def _taps(phase: int, factor: int) -> torch.Tensor:
    """Weights of the pixel before, the pixel and the one after."""
    at = (phase + 0.5) / factor - 0.5
    return torch.tensor([max(0.0, -at), 1 - abs(at), max(0.0, at)])


def is_linear_on_maps(node: Node) -> bool:
    """Whether Linear has more than samples before its features."""
    return rank_of(cast(Node, node.args[0])) > 2

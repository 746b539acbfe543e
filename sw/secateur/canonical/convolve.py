"""Convolutions in groups, transposed ones, Linear on more dimensions.

All are convolutions of whole maps: weights between groups are zero, which costs nothing; a
transposed convolution is one per phase of its stride, without the zeros between pixels.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import cast

import torch
from torch.fx import Node

from secateur.canonical.contract import contract
from secateur.canonical.resample import assembled, cut
from secateur.fx.graph import (
    CAT,
    CONV,
    PAD,
    Editor,
    argument,
    aten,
    pair,
    rank_of,
    refuse,
    shape_of,
)

TRANSPOSED = aten.conv_transpose2d.input


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
    given = string.ascii_lowercase[: rank_of(x)]
    labels = (given, "O" + given[-1], given[:-1] + "O")
    return contract(editor, x, weight, labels, bias=argument(node, 2, None), like=node)


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
    parts = []
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
            reads = cut(editor, x, amounts, node)
            part = editor.call(CONV, reads, taps, bias, [1, 1], [0, 0], [1, 1], 1, like=node)
            parts.append((slice(a, None, stride[0]), slice(b, None, stride[1]), part))
    return assembled(editor, parts, node)


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


def is_linear_on_maps(node: Node) -> bool:
    """Whether Linear has more than samples before its features."""
    return rank_of(cast(Node, node.args[0])) > 2

"""ONNX reductions over any axes, softmax, and the place of the largest value."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from secateur.capture.onnx.context import Context, Run
from secateur.capture.onnx.node import OnnxNode, refuse

_Reduce = Callable[[Tensor, list[int], bool], Tensor]


def _total(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep)


#: By operator: of a tensor, axes, and whether these stay.
REDUCTIONS: dict[str, _Reduce] = {
    "ReduceL1": lambda x, axes, keep: _total(x.abs(), axes, keep),
    "ReduceL2": lambda x, axes, keep: _total(x.square(), axes, keep).sqrt(),
    "ReduceLogSum": lambda x, axes, keep: _total(x, axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: _total(x.exp(), axes, keep).log(),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: -((-x).amax(axes, keepdim=keep)),
    "ReduceSum": _total,
    "ReduceSumSquare": lambda x, axes, keep: _total(x.square(), axes, keep),
}


def reduction(node: OnnxNode, context: Context) -> Run:
    """One of ``REDUCTIONS``."""
    rank = context.rank(node)
    axes, keep = context.axes(node, 1, rank), bool(node.integer("keepdims", 1))
    if not axes:
        axes = [] if node.integer("noop_with_empty_axes", 0) else list(range(rank))
    function, chosen = REDUCTIONS[node.op_type], axes
    if not chosen:
        return _alone(node)
    return lambda x: function(x, chosen, keep)


def _alone(node: OnnxNode) -> Run:
    """A reduction over no axis at all."""
    if node.op_type in ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"):
        return nn.Identity()
    raise refuse(node, "reduces no axis", "name the axes")


def host(node: OnnxNode, context: Context) -> Run:
    """Softmax: the compiler leaves it to the host if it comes last, and refuses it elsewhere."""
    kind = nn.Softmax if node.op_type == "Softmax" else nn.LogSoftmax
    if context.version >= 13:
        return kind(node.integer("axis", -1))
    rank, axis = context.rank(node), node.integer("axis", 1)
    axis = axis + rank if axis < 0 else axis
    if axis == rank - 1:
        return kind(axis)

    def run(x: Tensor) -> Tensor:  # of all dimensions from the axis on
        found: Tensor = kind(-1)(x.flatten(axis))
        return found.reshape(x.shape)

    return run


def largest(node: OnnxNode, context: Context) -> Run:
    """ArgMax and ArgMin; of equal values the first."""
    axis, keep = node.integer("axis", 0), bool(node.integer("keepdims", 1))
    if node.integer("select_last_index", 0):
        raise refuse(node, "select_last_index", "take the first of equal values")
    sign = 1 if node.op_type == "ArgMax" else -1
    return lambda x: torch.argmax(x if sign > 0 else -x, axis, keepdim=keep)

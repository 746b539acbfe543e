"""ONNX arithmetic, comparisons and choices, of tensors and constants."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from secateur.capture.onnx.context import Context, Product, Run
from secateur.capture.onnx.node import OnnxNode, refuse
from secateur.capture.onnx.operators.call import Call, tensor
from secateur.capture.onnx.values import Array


def _largest(*parts: Any) -> Any:
    return _folded(parts, torch.maximum, lambda x, value: x.clamp(min=value))


def _smallest(*parts: Any) -> Any:
    return _folded(parts, torch.minimum, lambda x, value: x.clamp(max=value))


def _folded(
    parts: tuple[Any, ...], of_two: Callable[..., Any], of_number: Callable[..., Any]
) -> Any:
    """A function of many tensors; the numbers among them come last."""
    found = reduce(of_two, [part for part in parts if isinstance(part, Tensor)])
    return reduce(of_number, [part for part in parts if not isinstance(part, Tensor)], found)


def _mean(*parts: Any) -> Any:
    return reduce(operator.add, parts) / len(parts)


def _where(condition: Any, a: Any, b: Any) -> Any:
    if isinstance(condition, Tensor):
        return torch.where(condition, a, b)
    return a if condition else b


#: Functions of tensors and numbers without attributes, for any shapes that broadcast.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "And": torch.logical_and,
    "Equal": operator.eq,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
    "Less": operator.lt,
    "LessOrEqual": operator.le,
    "Max": _largest,
    "Mean": _mean,
    "Min": _smallest,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Where": _where,
    "Xor": torch.logical_xor,
}
_OF_TWO: dict[str, Callable[..., Any]] = {
    "Add": operator.add,
    "Div": operator.truediv,
    "Mul": operator.mul,
    "Sub": operator.sub,
    "Sum": operator.add,
}


def function(node: OnnxNode, context: Context) -> Run:
    """One of ``FUNCTIONS``."""
    return Call(FUNCTIONS[node.op_type], node, context)


def arithmetic(node: OnnxNode, context: Context) -> Run:
    """Add, Sub, Mul, Div and Sum: of tensors, or of a tensor and a constant.

    A constant that a layer's output is multiplied by, or that is added to it, is folded into the
    layer.
    """
    if node.has("axis"):
        raise refuse(node, "broadcasts along an axis it names", "export opset 7 or later")
    fixed = [index for index, name in enumerate(node.input) if name in context.known]
    dynamic = context.dynamic(node)
    layer = context.products.get(dynamic[0]) if len(dynamic) == 1 and len(fixed) == 1 else None
    if node.op_type == "Div" and 1 in fixed and (context.known[node.input[1]] == 0).any():
        raise refuse(node, "divides by zero", "divide by constants other than 0")
    if layer is not None and context.only_reader(dynamic[0]):
        value = context.known[node.input[fixed[0]]]
        rank = len(context.shapes.get(dynamic[0], layer.weight.shape))
        joined = _by_channel(value, layer) if value.ndim <= rank else None
        if joined is not None and not (node.op_type == "Div" and fixed == [0]):
            _join(layer, node.op_type, joined, first=fixed == [0])
            context.products[node.output[0]] = layer
            return nn.Identity()
    of_two = _OF_TWO[node.op_type]
    return Call(lambda *parts: reduce(of_two, parts), node, context)


def _by_channel(values: Array, layer: Product) -> Tensor | None:
    """A constant as one value per output of a layer, or one for all; None if it is none."""
    shape = (1,) * (layer.weight.dim() - values.ndim) + values.shape
    axis = len(shape) - 1 if isinstance(layer, nn.Linear) else 1
    alone = all(size == 1 for place, size in enumerate(shape) if place != axis)
    return tensor(values).flatten() if alone and values.size in (1, _outputs(layer)) else None


def _outputs(layer: Product) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _join(layer: Product, kind: str, value: Tensor, *, first: bool) -> None:
    """Multiply a layer by a constant, or add one to it.

    Parameters
    ----------
    layer : takes it
    kind : Add, Sub, Mul, Div or Sum
    value : (outputs,), or (1,)
    first : the constant comes first: it is what is subtracted from
    """
    count = _outputs(layer)
    factor = offset = None
    if kind == "Mul":
        factor = value
    elif kind == "Div":
        factor = 1 / value
    elif kind == "Sub":
        factor, offset = (-torch.ones(1), value) if first else (None, -value)
    else:
        offset = value
    with torch.no_grad():
        if factor is not None:
            factor = factor.expand(count)
            layer.weight *= _shaped(factor, layer)
            if layer.bias is not None:
                layer.bias *= factor
        if offset is not None:
            before = 0 if layer.bias is None else layer.bias.detach()
            layer.bias = nn.Parameter(offset.expand(count) + before)


def _shaped(factor: Tensor, layer: Product) -> Tensor:
    """One value per output, so that it multiplies a layer's weight."""
    rank = layer.weight.dim()
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d):
        groups = factor.reshape(layer.groups, 1, -1).expand(
            -1, layer.in_channels // layer.groups, -1
        )
        return groups.reshape(layer.in_channels, -1, *[1] * (rank - 2))
    return factor.reshape(-1, *[1] * (rank - 1))

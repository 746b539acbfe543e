"""ONNX functions of one number, and sums, differences and products, of tensors and constants."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.capture.onnx.context import Context, Run, by_channel
from secateur.capture.onnx.node import OnnxNode, refuse

#: Functions without attributes.
FUNCTIONS: dict[str, Run] = {
    "Abs": torch.abs,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "HardSwish": F.hardswish,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sin": torch.sin,
    "Softplus": F.softplus,
    "Tanh": torch.tanh,
}


def function(node: OnnxNode, context: Context) -> Run:
    """One of ``FUNCTIONS``."""
    return nn.ReLU() if node.op_type == "Relu" else FUNCTIONS[node.op_type]


def parametric(node: OnnxNode, context: Context) -> Run:
    """Functions with attributes; defaults are the format's."""
    kind = node.op_type
    if kind == "LeakyRelu":
        return nn.LeakyReLU(node.real("alpha", 0.01))
    if kind == "Elu":
        return nn.ELU(node.real("alpha", 1.0))
    if kind == "Celu":
        return nn.CELU(node.real("alpha", 1.0))
    if kind == "Selu":
        # The defaults as float32; PyTorch's elu takes both.
        first = node.real("alpha", 1.67326319217681884765625)
        gamma = node.real("gamma", 1.05070102214813232421875)
        return lambda x: torch.ops.aten.elu.default(x, first, gamma)
    if kind == "Gelu":
        return nn.GELU(node.choice("approximate", "none", "tanh"))
    if kind == "Swish":
        factor = node.real("alpha", 1.0)
        return nn.SiLU() if factor == 1 else lambda x: x * torch.sigmoid(x * factor)
    slope, offset = node.real("alpha", 0.2), node.real("beta", 0.5)
    if math.isclose(slope, 1 / 6, rel_tol=1e-6) and offset == 0.5:
        return nn.Hardsigmoid()
    return lambda x: F.hardtanh(x * slope + offset, 0.0, 1.0)


def clip(node: OnnxNode, context: Context) -> Run:
    """Clip, by inputs or (before opset 11) attributes."""
    low, high = (context.scalar(node, index) for index in (1, 2))
    low = node.real("min") if low is None and node.has("min") else low
    high = node.real("max") if high is None and node.has("max") else high
    if low is None or high is None:
        if low == 0 and high is None:
            return nn.ReLU()
        raise refuse(node, "clips on one side only", "use Relu, or two bounds")
    if not low < high:
        raise refuse(node, f"clips to {low} .. {high}", "give bounds in their order")
    return nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high)


def prelu(node: OnnxNode, context: Context) -> Run:
    """PRelu with one slope, or one per channel."""
    slope, shape = context.weight(node, 1), context.shape(node)
    if context.version < 7 and slope.ndim == 1:  # per channel, before there was broadcasting
        slope = slope.reshape(-1, *[1] * (len(shape) - 2))
    values = by_channel(node, slope, len(shape), shape[1] if len(shape) > 1 else 0)
    layer = nn.PReLU(values.numel())
    with torch.no_grad():
        layer.weight.copy_(values)
    return layer


def power(node: OnnxNode, context: Context) -> Run:
    """Pow with the exponent 2."""
    if context.scalar(node, 1) != 2:
        raise refuse(node, "a power other than the square", "use the exponent 2")
    return torch.square


class _Affine(nn.Module):
    """``factor * x + offset``, per channel; either may be None."""

    factor: Tensor
    offset: Tensor

    def __init__(self, factor: Tensor | None, offset: Tensor | None) -> None:
        super().__init__()
        self.scales, self.shifts = factor is not None, offset is not None
        self.register_buffer("factor", factor)
        self.register_buffer("offset", offset)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.factor if self.scales else x
        return x + self.offset if self.shifts else x


def arithmetic(node: OnnxNode, context: Context) -> Run:
    """Add, Sub, Mul, Div and Sum: of tensors, or of a tensor and a constant.

    A constant that a layer's output is multiplied by, or that is added to it, is folded into the
    layer.
    """
    kind = node.op_type
    if node.has("axis"):
        raise refuse(node, "broadcasts along an axis it names", "export opset 7 or later")
    fixed = [index for index, name in enumerate(node.input) if name in context.known]
    if not fixed:
        return _of_tensors(node, context)
    dynamic = [name for name in node.input if name not in context.known]
    if len(dynamic) != 1:
        raise refuse(node, "adds tensors and constants", "add a constant on its own")
    layer = context.products.get(dynamic[0])
    if layer is not None:
        shape = [0, len(layer.weight), *[0] * (layer.weight.dim() - 2)]
    else:
        shape = context.shapes.get(dynamic[0], [])
    if kind == "Div" and fixed == [0]:
        raise refuse(node, "divides a constant by a tensor", "divide by constants only")
    terms = [
        by_channel(node, context.known[node.input[i]], len(shape), shape[1] if shape[1:] else 0)
        for i in fixed
    ]
    value = reduce(torch.add, terms)
    factor = offset = None
    if kind == "Mul":
        factor = value
    elif kind == "Div":
        if bool((value == 0).any()):
            raise refuse(node, "divides by zero", "divide by constants other than 0")
        factor = 1 / value
    elif kind == "Sub":
        first = fixed == [0]
        factor, offset = (-torch.ones(1), value) if first else (None, -value)
    else:
        offset = value
    if layer is None or not context.only_reader(dynamic[0]):
        spatial = [-1] + [1] * (len(shape) - 2)
        shaped = [None if part is None else part.reshape(spatial) for part in (factor, offset)]
        return _Affine(*shaped)
    count = len(layer.weight)
    with torch.no_grad():
        if factor is not None:
            factor = factor.expand(count)
            layer.weight *= factor.reshape(-1, *[1] * (layer.weight.dim() - 1))
            if layer.bias is not None:
                layer.bias *= factor
        if offset is not None:
            before = 0 if layer.bias is None else layer.bias.detach()
            layer.bias = nn.Parameter(offset.expand(count) + before)
    context.products[node.output[0]] = layer
    return nn.Identity()


def _of_tensors(node: OnnxNode, context: Context) -> Run:
    kind, shapes = node.op_type, [context.shapes.get(name, []) for name in node.input]
    if kind == "Div":
        raise refuse(node, "divides a tensor by a tensor", "divide by constants only")
    first = shapes[0]
    for other in shapes[1:]:
        small, large = sorted((first, other), key=lambda shape: int(np.prod(shape[2:])))
        gate = kind == "Mul" and len(small) == 4 and small[2:] == [1, 1]
        pairs = zip(small[:2] if gate else small, large[:2] if gate else large, strict=False)
        if len(first) != len(other) or any(a != b for a, b in pairs if a and b):
            verb = "multiplies" if kind == "Mul" else "adds"
            raise refuse(node, f"{verb} shapes {first} and {other}", "use tensors of one shape")
    if kind == "Mul":
        return torch.mul
    if kind == "Sub":
        return torch.sub
    return lambda *parts: reduce(torch.add, parts)

"""ONNX functions of one number as PyTorch's."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.capture.onnx.context import Context, Run
from secateur.capture.onnx.node import OnnxNode, refuse
from secateur.capture.onnx.operators.call import Call, tensor

#: From here on, a bound is none: exporters write the largest number for it.
_UNBOUNDED = 3.4e38

#: Functions without attributes.
FUNCTIONS: dict[str, Run] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
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
    if kind == "ThresholdedRelu":
        return nn.Threshold(node.real("alpha", 1.0), 0.0)
    if kind == "Shrink":
        return _shrink(node.real("lambd", 0.5), node.real("bias", 0.0))
    slope, offset = node.real("alpha", 0.2), node.real("beta", 0.5)
    if math.isclose(slope, 1 / 6, rel_tol=1e-6) and offset == 0.5:
        return nn.Hardsigmoid()
    return lambda x: F.hardtanh(x * slope + offset, 0.0, 1.0)


def _shrink(bound: float, bias: float) -> Run:
    if bias == 0:
        return lambda x: F.hardshrink(x, bound)
    if bias == bound:
        return lambda x: F.softshrink(x, bound)

    def run(x: Tensor) -> Tensor:
        kept = F.hardshrink(x, bound)
        return kept - torch.sign(kept) * bias

    return run


def clip(node: OnnxNode, context: Context) -> Run:
    """Clip, by inputs or (before opset 11) attributes."""
    low, high = (context.scalar(node, index) for index in (1, 2))
    low = node.real("min") if low is None and node.has("min") else low
    high = node.real("max") if high is None and node.has("max") else high
    low = None if low is not None and low <= -_UNBOUNDED else low
    high = None if high is not None and high >= _UNBOUNDED else high
    if low is None and high is None:
        return nn.Identity()
    if high is None:
        return nn.ReLU() if low == 0 else lambda x: x.clamp(min=low)
    if low is None:
        return lambda x: x.clamp(max=high)
    if not low < high:
        raise refuse(node, f"clips to {low} .. {high}", "give bounds in their order")
    return nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high)


def prelu(node: OnnxNode, context: Context) -> Run:
    """PRelu: one slope, one per channel, or any that broadcast."""
    shape = context.shape(node)
    if len(node.input) > 1 and node.input[1] not in context.known:
        return _sloped
    slope, rank = context.weight(node, 1), len(shape)
    if context.version < 7 and slope.ndim == 1:  # per channel, before there was broadcasting
        slope = slope.reshape(-1, *[1] * (rank - 2))
    padded = (1,) * (rank - slope.ndim) + slope.shape
    others = [size for axis, size in enumerate(padded) if axis != 1]
    if rank < 2 or len(padded) != rank or any(size != 1 for size in others):
        return Call(_sloped, node, context, whole=True)
    if slope.size not in (1, shape[1] or slope.size):
        reason = f"{slope.size} values for {shape[1]} channels"
        raise refuse(node, reason, "give one value per channel")
    layer = nn.PReLU(slope.size)
    with torch.no_grad():
        layer.weight.copy_(tensor(slope).flatten())
    return layer


def _sloped(x: Tensor, slope: Tensor) -> Tensor:
    return torch.relu(x) - torch.relu(-x) * slope


def power(node: OnnxNode, context: Context) -> Run:
    """Pow: of a tensor, or of a constant."""
    if len(node.input) > 1 and node.input[1] in context.known:
        exponent = context.known[node.input[1]]
        if exponent.size == 1 and float(exponent.flat[0]) == 2 and exponent.ndim <= 1:
            return torch.square
        if exponent.size == 1 and float(exponent.flat[0]) == 0.5 and exponent.ndim <= 1:
            return torch.sqrt
    return Call(torch.pow, node, context)

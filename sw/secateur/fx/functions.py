"""Activation functions that the array looks up: any function of one number, 256 codes at a time."""

from __future__ import annotations

import torch
from torch.fx import Node

from secateur.fx.graph import aten

#: Functions that are never negative.
_NEVER_NEGATIVE = {
    aten.sigmoid.default,
    aten.hardsigmoid.default,
    aten.softplus.default,
    aten.exp.default,
    aten.abs.default,
    aten.square.default,
    aten.sqrt.default,
    aten.rsqrt.default,
}
#: All functions of one tensor, element by element, and numbers.
UNARY = (
    *_NEVER_NEGATIVE,
    aten.tanh.default,
    aten.silu.default,
    aten.hardswish.default,
    aten.gelu.default,
    aten.elu.default,
    aten.selu.default,
    aten.celu.default,
    aten.leaky_relu.default,
    aten.mish.default,
    aten.log_sigmoid.default,
    aten.erf.default,
    aten.sin.default,
    aten.cos.default,
    aten.atan.default,
    aten.log.default,
    aten.reciprocal.default,
    aten.pow.Tensor_Scalar,
    aten.hardshrink.default,
    aten.softshrink.default,
    aten.threshold.default,
)


def elementwise(target: object) -> bool:
    """Whether an operation works element by element; torch does not tag all that do."""
    return target in UNARY or torch.Tag.pointwise in getattr(target, "tags", [])


def never_negative(node: Node) -> bool:
    """Whether the function of a unary node has no negative value."""
    return node.target in _NEVER_NEGATIVE

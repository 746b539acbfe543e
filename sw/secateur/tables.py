"""Activation functions that the array looks up: any function of one number, 256 codes at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch.fx import Node

from secateur.graph import aten, refuse
from secateur.hw.spec import TABLE_ENTRIES
from secateur.ir import Table
from secateur.lower_store import Scale

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


def table_of(node: Node, before: Scale, after: Scale) -> Table:
    """What PyTorch computes of every code, quantised as the node behind ``node`` does it.

    Parameters
    ----------
    node : a call of one of ``UNARY``
    before, after : scales of its argument and of its result

    Raises SecateurError if the function of a code is not a number.
    """
    codes = np.arange(TABLE_ENTRIES)
    if before.signed:
        codes = codes.astype(np.uint8).view(np.int8)
    values = torch.from_numpy(codes.astype(np.float32)) * 2.0**before.exponent
    function = cast(Callable[..., Any], node.target)
    with torch.no_grad():
        found = function(values, *node.args[1:], **node.kwargs)
    if bool(found.isnan().any()):
        reason = "is no number for some of the values that its argument may have"
        remedy = "give it those for which it is defined: clamp(min=...) before it, a ReLU for sqrt"
        raise refuse(node, reason, remedy)
    scaled = (found * 2.0**-after.exponent).round().clamp(after.low, after.high)
    entries = scaled.numpy().astype(np.int64) & 0xFF
    return Table(entries, before.signed)

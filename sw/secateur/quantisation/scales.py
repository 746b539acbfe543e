"""Scales of a converted graph: powers of two, symmetric, 8 bits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch.fx import Node

from secateur.fx.graph import argument, refuse
from secateur.ir import Ints

REQUANTISE = "requantise with secateur.quantize"


@dataclass(frozen=True)
class Scale:
    """Code range of a tensor: a real value is code * 2**exponent, low <= code <= high."""

    exponent: int
    signed: bool
    low: int
    high: int


def scale_of(node: Node) -> Scale:
    """Scale of a ``quantize_per_tensor`` or ``dequantize_per_tensor`` node.

    Raises
    ------
    SecateurError : it is not a power of two, not symmetric, or not of 8 bits
    """
    scale, zero = node.args[1], node.args[2]
    low, high = argument(node, 3, 0), argument(node, 4, 0)
    if not isinstance(scale, float | int) or not isinstance(zero, int):
        raise refuse(node, "a scale that is not a constant", REQUANTISE)
    if zero != 0:
        raise refuse(node, f"zero point {zero} instead of 0", REQUANTISE)
    signed = low < 0
    if not (-128 <= low <= 0 < high <= 127 if signed else low == 0 < high <= 255):
        raise refuse(node, f"codes {low}..{high} do not fit a byte", REQUANTISE)
    return Scale(exponent_of(node, float(scale)), signed, int(low), int(high))


def exponent_of(node: Node, scale: float) -> int:
    """log2 of a scale.

    Raises
    ------
    SecateurError : it is not an integer, or out of float32's range
    """
    mantissa, exponent = math.frexp(scale)
    if mantissa != 0.5 or not -125 <= exponent <= 128:
        raise refuse(node, f"scale {scale:g} is not a power of two", REQUANTISE)
    return exponent - 1


def reach(codes: npt.NDArray[np.int64 | np.float64], low: int, high: int) -> Ints:
    """(2, O) how far below and above zero sums of weight * input can be, over any of their terms.

    Parameters
    ----------
    codes : (O, ...) weights, integers
    low, high : bounds of the input's codes, low <= 0 <= high
    """
    rows = codes.reshape(len(codes), -1)
    positive = np.maximum(rows, 0).sum(1).astype(np.int64)
    negative = positive - rows.sum(1).astype(np.int64)
    return np.stack([negative * high - positive * low, positive * high - negative * low])

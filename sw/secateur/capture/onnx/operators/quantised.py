"""QuantizeLinear and DequantizeLinear: of constants, and of activations."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torchao.quantization.pt2e import allow_exported_model_train_eval  # noqa: F401  registers q, dq

from secateur.capture.onnx.context import Context, Run
from secateur.capture.onnx.node import OnnxNode, refuse
from secateur.capture.onnx.values import Array
from secateur.text import name as quoted

RECHOSEN = "activations of the file are quantised; their scales are chosen again, powers of two"
_POWERS = "quantise symmetrically to 8 bits, with powers of two as scales"
#: Operators that move codes.
MOVES = (
    "Concat", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GlobalMaxPool", "Identity",
    "MaxPool", "Pad", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose",
    "Unsqueeze",
)  # fmt: skip


class Stored(nn.Module):
    """Activations as the array stores them: codes times ``2**exponent``."""

    def __init__(self, exponent: int, signed: bool) -> None:
        super().__init__()
        bounds = (-128, 127, torch.int8) if signed else (0, 255, torch.uint8)
        self.arguments = (2.0**exponent, 0, *bounds)

    def forward(self, x: Tensor) -> Tensor:
        ops = torch.ops.quantized_decomposed
        codes = ops.quantize_per_tensor.default(x, *self.arguments)
        values: Tensor = ops.dequantize_per_tensor.default(codes, *self.arguments)
        return values


def quantise(node: OnnxNode, context: Context) -> Run:
    """QuantizeLinear of activations; they are dequantised at once, so that all else is in float.

    Without ``context.keep`` it is omitted, with a note.
    """
    scale = context.weight(node, 1)
    if not context.keep:
        context.note(RECHOSEN)
        return nn.Identity()
    found = _power_of_two(node, scale, context.constant(node, 2))
    context.scales[node.output[0]] = found
    return Stored(*found)


def dequantise(node: OnnxNode, context: Context) -> Run:
    """DequantizeLinear of activations, by the scale that they have."""
    scale = context.weight(node, 1)
    if context.keep:
        stored = context.scales.get(node.input[0])
        if stored is None:
            raise refuse(
                node, f"reads '{quoted(node.input[0])}', codes of no QuantizeLinear", _POWERS
            )
        if _power_of_two(node, scale, context.constant(node, 2)) != stored:
            raise refuse(node, "another scale or type than its QuantizeLinear", _POWERS)
    return nn.Identity()


def moved(node: OnnxNode, context: Context) -> None:
    """Give the output of a node that moves codes the scale of these.

    Raises
    ------
    SecateurError : the node computes with codes
    """
    found = {context.scales.get(name) for name in context.dynamic(node)}
    if found <= {None} or node.op_type == "DequantizeLinear":
        return
    if len(found) > 1 or not (node.op_type in MOVES or _copies(node)):
        raise refuse(node, "computes with codes", "put DequantizeLinear before it")
    scale = next(scale for scale in found if scale is not None)
    context.scales |= dict.fromkeys(node.output, scale)


def _copies(node: OnnxNode) -> bool:
    """Whether a node resizes by copies of its values."""
    resizes = node.op_type in ("Resize", "Upsample")
    return resizes and node.choice("mode", "nearest", "linear", "cubic") == "nearest"


def _power_of_two(node: OnnxNode, scale: Array, zero: Array | None) -> tuple[int, bool]:
    """(exponent, signed) of an activation's scale."""
    if scale.size != 1 or node.integer("block_size", 0):
        raise refuse(node, "several scales for one tensor of activations", _POWERS)
    dtype = np.dtype(np.uint8) if zero is None else zero.dtype
    if zero is None and node.integer("output_dtype", 0):
        from onnx import helper

        dtype = helper.tensor_dtype_to_np_dtype(node.integer("output_dtype"))
    if zero is not None and zero.any():
        raise refuse(node, f"zero point {zero.flat[0]} instead of 0", _POWERS)
    if dtype not in (np.uint8, np.int8):
        raise refuse(node, f"codes of {dtype}", _POWERS)
    value = float(scale.flat[0])
    mantissa, exponent = math.frexp(value)
    if mantissa != 0.5:
        raise refuse(node, f"scale {value:g} is not a power of two", _POWERS)
    return exponent - 1, bool(dtype == np.int8)

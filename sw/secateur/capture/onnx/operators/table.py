"""ONNX operators as PyTorch modules or functions, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from secateur.capture.onnx.context import Context, Run
from secateur.capture.onnx.node import OnnxNode, refuse
from secateur.capture.onnx.operators import (
    arithmetic,
    functions,
    moves,
    products,
    recurrent,
    reduce,
    resize,
    views,
    windows,
)
from secateur.capture.onnx.operators.call import tensor
from secateur.capture.onnx.operators.quantised import dequantise, quantise

#: Types of Cast: floats of any length are float32 here.
_FLOATS, _BOOL = {1, 10, 11, 16}, 9
_NORM = "use BatchNormalization, which folds into the convolution"
_NARROWED = "floats of 16 or 64 bits are computed in 32, until they are quantised"


def _batch_norm(node: OnnxNode, context: Context) -> Run:
    if node.integer("training_mode", 0):
        raise refuse(node, "training_mode", "export the model in evaluation mode")
    rank = len(context.shape(node, 2, 3, 4))
    parts = [context.weight(node, index) for index in range(1, 5)]
    if any(part.shape != parts[0].shape or part.ndim != 1 for part in parts):
        shapes = [part.shape for part in parts]
        raise refuse(node, f"parameters of shapes {shapes}", "give four of one value per channel")
    epsilon = node.real("epsilon", 1e-5)
    if not bool((parts[3] + epsilon > 0).all()):
        raise refuse(node, "a variance that is not above 0", "train the model again")
    kind = nn.BatchNorm2d if rank == 4 else nn.BatchNorm1d
    norm = kind(parts[0].size, eps=epsilon)
    names = ("weight", "bias", "running_mean", "running_var")
    norm.load_state_dict(
        {name: tensor(value) for name, value in zip(names, parts, strict=True)}, strict=False
    )
    return norm


def _cast(node: OnnxNode, context: Context) -> Run:
    to = node.integer("to")
    if to in _FLOATS:
        if to != 1:
            context.note(_NARROWED)
        return lambda x: x if x.dtype == torch.float32 else x.to(torch.float32)
    if to == _BOOL:
        return lambda x: x if x.dtype == torch.bool else x != 0

    def whole(x: Tensor) -> Tensor:
        if x.dtype == torch.float32:
            raise ValueError("makes whole numbers of activations; use Floor or Round")
        return x

    return whole


def _refused(reason: str, remedy: str) -> Callable[[OnnxNode, Context], Run]:
    def convert(node: OnnxNode, context: Context) -> Run:
        raise refuse(node, reason, remedy)

    return convert


#: Operators by name: (node, context) -> module or function of the dynamic inputs.
LAYERS: dict[str, Callable[[OnnxNode, Context], Run]] = {
    **dict.fromkeys(functions.FUNCTIONS, functions.function),
    **dict.fromkeys(arithmetic.FUNCTIONS, arithmetic.function),
    **dict.fromkeys(reduce.REDUCTIONS, reduce.reduction),
    **dict.fromkeys(recurrent.LAYERS, recurrent.recurrent),
    "Add": arithmetic.arithmetic,
    "ArgMax": reduce.largest,
    "ArgMin": reduce.largest,
    "AveragePool": windows.average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Celu": functions.parametric,
    "Clip": functions.clip,
    "Concat": moves.concat,
    "Conv": products.conv,
    "ConvTranspose": products.conv_transposed,
    "DepthToSpace": moves.depth_to_space,
    "DequantizeLinear": dequantise,
    "Div": arithmetic.arithmetic,
    "Dropout": moves.dropout,
    "Einsum": products.einsum,
    "Elu": functions.parametric,
    "Expand": views.expand,
    "Flatten": views.flatten,
    "Gather": moves.gather,
    "Gelu": functions.parametric,
    "Gemm": products.gemm,
    "GlobalAveragePool": windows.global_average,
    "GlobalMaxPool": windows.global_maximum,
    "HardSigmoid": functions.parametric,
    "Identity": moves.through,
    "LeakyRelu": functions.parametric,
    "LogSoftmax": reduce.host,
    "MatMul": products.matmul,
    "MaxPool": windows.max_pool,
    "Mul": arithmetic.arithmetic,
    "PRelu": functions.prelu,
    "Pad": moves.pad,
    "Pow": functions.power,
    "QuantizeLinear": quantise,
    "Reshape": views.reshape,
    "Resize": resize.resize,
    "Selu": functions.parametric,
    "Shrink": functions.parametric,
    "Slice": moves.cut,
    "Softmax": reduce.host,
    "SpaceToDepth": moves.space_to_depth,
    "Split": moves.split,
    "Squeeze": views.squeeze,
    "Sub": arithmetic.arithmetic,
    "Sum": arithmetic.arithmetic,
    "Swish": functions.parametric,
    "ThresholdedRelu": functions.parametric,
    "Tile": moves.tile,
    "Transpose": moves.transpose,
    "Unsqueeze": views.unsqueeze,
    "Upsample": resize.resize,
}
#: Operators that are refused, with what to do instead.
REFUSED: dict[str, Callable[[OnnxNode, Context], Run]] = {
    **dict.fromkeys(
        ("GroupNormalization", "InstanceNormalization", "LayerNormalization", "LRN",
         "LpNormalization", "MeanVarianceNormalization", "RMSNormalization"),
        _refused("normalises by the values of the input", _NORM),
    ),
    **dict.fromkeys(
        ("Attention", "MultiHeadAttention", "RotaryEmbedding"),
        _refused("attention", "use convolutions, dense or recurrent layers"),
    ),
    **dict.fromkeys(
        ("NonMaxSuppression", "TopK", "RoiAlign", "GridSample"),
        _refused("chooses places by values", "export without it, and compute it on the host"),
    ),
}  # fmt: skip

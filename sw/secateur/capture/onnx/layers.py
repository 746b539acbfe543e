"""ONNX operators as PyTorch modules or functions; forms that the array cannot run are refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from secateur.capture.onnx import elementwise, windows
from secateur.capture.onnx.context import Context, Run, tensor
from secateur.capture.onnx.node import OnnxNode, refuse
from secateur.capture.onnx.quantised import dequantise, quantise

CHANNELS_FIRST = (
    "export the model with channels first (tf2onnx: --inputs-as-nchw and --outputs-as-nchw)"
)
RECURRENT_LAYERS = ("GRU", "LSTM", "RNN")
RECURRENT = "compile the PyTorch module, with torch.nn.{} in it"


def _linear(context: Context, out: str, weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    context.products[out] = layer
    return layer


def _gemm(node: OnnxNode, context: Context) -> Run:
    if node.integer("transA", 0):
        raise refuse(node, "transA", "transpose the activations before")
    weight, bias = context.weight(node, 1), context.constant(node, 2)
    if weight.ndim != 2 or 0 in weight.shape:
        raise refuse(node, f"weights of shape {weight.shape}", "give a matrix")
    matrix = tensor(weight) * node.real("alpha", 1.0)
    matrix = matrix if node.integer("transB", 0) else matrix.T
    vector = None
    if bias is not None:
        if bias.size not in (1, len(matrix)) or (bias.ndim == 2 and bias.shape[0] != 1):
            raise refuse(node, f"a bias of shape {bias.shape}", "use one value per output")
        vector = (tensor(bias).flatten() * node.real("beta", 1.0)).expand(len(matrix))
    return _linear(context, node.output[0], matrix, vector)


def _matmul(node: OnnxNode, context: Context) -> Run:
    weight = context.constant(node, 1)
    if weight is None or weight.ndim != 2 or 0 in weight.shape or node.input[0] in context.known:
        raise refuse(node, "is not a product with a constant matrix on the right", "use Gemm")
    context.shape(node, 2)
    return _linear(context, node.output[0], tensor(weight).T, None)


def _flatten(node: OnnxNode, context: Context) -> Run:
    rank = len(context.shape(node))
    axis = node.integer("axis", 1)
    if axis % max(rank, 1) != 1:
        raise refuse(node, f"flattens {rank} dimensions from axis {axis}", "flatten from axis 1")
    return nn.Flatten()


def _reshape(node: OnnxNode, context: Context) -> Run:
    target, shape = context.integers(node, 1), context.shape(node)
    if target is None or not shape:
        raise refuse(node, f"reshapes {shape} to {target}", "only flattening is supported")
    size = math.prod(shape[1:])
    # The batch stays, all other dimensions become one.
    batch = target[:1] in ([0], [-1], shape[:1])
    wide = target[1:2] in ([-1], [size]) and target[:2] != [-1, -1]
    if target[2:] == [1, 1] and batch and size > 0 and wide:
        return lambda x: x.flatten(1).unsqueeze(2).unsqueeze(3)
    if len(target) != 2 or not batch or not wide:
        raise refuse(node, f"reshapes {shape} to {target}", "only flattening is supported")
    return nn.Flatten()


def _squeeze(node: OnnxNode, context: Context) -> Run:
    shape = context.shape(node, 3, 4)
    chosen = context.axes(node, 1, len(shape))
    if chosen != list(range(2, len(shape))) or any(size != 1 for size in shape[2:]):
        raise refuse(node, f"squeezes the axes {chosen} of {shape}", "squeeze maps of one pixel")
    return nn.Flatten()


def _unsqueeze(node: OnnxNode, context: Context) -> Run:
    context.shape(node, 2)
    chosen = context.axes(node, 1, 4)
    if chosen != [2, 3]:
        raise refuse(node, f"inserts the axes {chosen}", "make vectors maps of one pixel")
    return lambda x: x.unsqueeze(2).unsqueeze(3)


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


def _concat(node: OnnxNode, context: Context) -> Run:
    rank = len(context.shape(node))
    fixed = [name for name in node.input if name in context.known]
    axis = node.integer("axis")
    if rank < 2 or axis not in (1, 1 - rank) or fixed:
        raise refuse(node, f"joins along axis {axis}", "join tensors by channels")
    return lambda *parts: torch.cat(parts, 1)


def _dropout(node: OnnxNode, context: Context) -> Run:
    if context.scalar(node, 2):
        raise refuse(node, "training_mode", "export the model in evaluation mode")
    return nn.Identity()


def _through(node: OnnxNode, context: Context) -> Run:
    return nn.Identity()


def _host(node: OnnxNode, context: Context) -> Run:
    """Softmax: the compiler leaves it to the host if it comes last, and refuses it elsewhere."""
    kind = nn.Softmax if node.op_type == "Softmax" else nn.LogSoftmax
    return kind(node.integer("axis", -1 if context.version >= 13 else 1))


def _transpose(node: OnnxNode, context: Context) -> Run:
    perm = node.integers("perm") if node.has("perm") else None
    raise refuse(node, f"permutes axes, {perm}", CHANNELS_FIRST)


def _shape(node: OnnxNode, context: Context) -> Run:
    raise refuse(node, "computes with a size", "export with a fixed batch, or simplify (onnxsim)")


def _recurrent(node: OnnxNode, context: Context) -> Run:
    raise refuse(node, "a recurrent layer", RECURRENT.format(node.op_type))


#: Operators by name: (node, context) -> module or function of the dynamic inputs.
LAYERS: dict[str, Callable[[OnnxNode, Context], Run]] = {
    **dict.fromkeys(elementwise.FUNCTIONS, elementwise.function),
    "Add": elementwise.arithmetic,
    "AveragePool": windows.average_pool,
    "BatchNormalization": _batch_norm,
    "Celu": elementwise.parametric,
    "Clip": elementwise.clip,
    "Concat": _concat,
    "Conv": windows.conv,
    "DequantizeLinear": dequantise,
    "Div": elementwise.arithmetic,
    "Dropout": _dropout,
    "Elu": elementwise.parametric,
    "Flatten": _flatten,
    "Gelu": elementwise.parametric,
    "Gemm": _gemm,
    "GlobalAveragePool": windows.global_average,
    "GlobalMaxPool": windows.global_maximum,
    "HardSigmoid": elementwise.parametric,
    "Identity": _through,
    "LeakyRelu": elementwise.parametric,
    "LogSoftmax": _host,
    "MatMul": _matmul,
    "MaxPool": windows.max_pool,
    "Mul": elementwise.arithmetic,
    "PRelu": elementwise.prelu,
    "Pad": windows.pad,
    "Pow": elementwise.power,
    "QuantizeLinear": quantise,
    "ReduceMean": windows.reduce_mean,
    "Reshape": _reshape,
    "Selu": elementwise.parametric,
    "Softmax": _host,
    "Squeeze": _squeeze,
    "Sub": elementwise.arithmetic,
    "Sum": elementwise.arithmetic,
    "Swish": elementwise.parametric,
    "Unsqueeze": _unsqueeze,
}
#: Operators that are refused, with what to do instead.
REFUSED: dict[str, Callable[[OnnxNode, Context], Run]] = {
    **dict.fromkeys(RECURRENT_LAYERS, _recurrent),
    "Shape": _shape,
    "Transpose": _transpose,
}

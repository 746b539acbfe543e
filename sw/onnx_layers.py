"""ONNX operators as PyTorch modules or functions; each refuses what the array could not run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.errors import SecateurError

Attributes = dict[str, Any]
Run = Callable[..., Tensor]
CHANNELS_FIRST = (
    "export the model with channels first (tf2onnx: --inputs-as-nchw and --outputs-as-nchw)"
)
Pads = tuple[int, int, int, int]  # top, left, bottom, right


@dataclass
class Context:
    """What is known of a graph while it is converted.

    ``known``: constants by tensor name; ``shapes``: as inferred, 0 where unknown; ``readers``:
    how often a tensor is read; ``opsets``: as the model imports them; ``products``: modules by the
    tensor that they make; ``notes``: what the user is to be told.
    """

    known: dict[str, npt.NDArray[Any]]
    shapes: dict[str, list[int]]
    readers: dict[str, int]
    opsets: list[Any]
    products: dict[str, nn.Conv2d | nn.Linear] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def constant(self, node: Any, index: int) -> npt.NDArray[Any] | None:
        """Input ``index``, which must be constant; None if it is not given."""
        if index >= len(node.input) or not node.input[index]:
            return None
        if node.input[index] not in self.known:
            what = f"input {node.input[index]!r} that is not constant"
            raise refuse(node, what, "export it as an initializer")
        return self.known[node.input[index]]

    def shape(self, node: Any, rank: int | None = None) -> list[int]:
        """Shape of the first input; refused if its rank is unknown or another."""
        shape = self.shapes.get(node.input[0])
        if shape is None or (rank is not None and len(shape) != rank):
            found = "unknown" if shape is None else len(shape)
            raise refuse(node, f"input of rank {found}, expected {rank}", "use 2-D layers")
        return shape


def refuse(node: Any, reason: str, remedy: str) -> SecateurError:
    """The one-line error for a node."""
    name = node.name or (node.output[0] if node.output else "")
    return SecateurError(f"node {name!r} ({node.op_type}): {reason}; {remedy}")


def _tensor(values: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32))


def _window(node: Any, attributes: Attributes, context: Context, kernel: list[int]) -> Pads:
    """Padding of a convolution or pooling, auto_pad resolved with the shapes."""
    strides = attributes.get("strides", [1, 1])
    dilations = attributes.get("dilations", [1, 1])
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    if auto == "NOTSET":
        top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
        return top, left, bottom, right
    if auto == "VALID":
        return 0, 0, 0, 0
    pairs = []
    for size, k, s, d in zip(context.shape(node, 4)[2:], kernel, strides, dilations, strict=True):
        if size == 0:
            raise refuse(node, f"{auto} padding of an unknown size", "export with fixed sizes")
        total = max(0, (-(-size // s) - 1) * s + d * (k - 1) + 1 - size)
        small, large = total // 2, total - total // 2
        pairs.append((small, large) if auto == "SAME_UPPER" else (large, small))
    (top, bottom), (left, right) = pairs
    return top, left, bottom, right


class _Padded(nn.Module):
    """Zero padding, then a convolution or an average that has none."""

    def __init__(self, pads: Pads, layer: nn.Module) -> None:
        super().__init__()
        self.pads, self.layer = pads, layer

    def forward(self, x: Tensor) -> Tensor:
        top, left, bottom, right = self.pads
        result: Tensor = self.layer(F.pad(x, (left, right, top, bottom)))
        return result


def _conv(node: Any, attributes: Attributes, context: Context) -> Run:
    weight, bias = context.constant(node, 1), context.constant(node, 2)
    assert weight is not None
    if weight.ndim != 4:
        raise refuse(node, f"a {weight.ndim - 2}-D convolution", "use 2-D convolutions")
    kernel = list(weight.shape[2:])
    top, left, bottom, right = _window(node, attributes, context, kernel)
    even = (top, left) == (bottom, right)
    groups = attributes.get("group", 1)
    conv = nn.Conv2d(
        weight.shape[1] * groups, weight.shape[0], tuple(kernel),
        stride=tuple(attributes.get("strides", [1, 1])),
        padding=(top, left) if even else 0,
        dilation=tuple(attributes.get("dilations", [1, 1])),
        groups=groups, bias=bias is not None,
    )  # fmt: skip
    with torch.no_grad():
        conv.weight.copy_(_tensor(weight))
        if bias is not None and conv.bias is not None:
            conv.bias.copy_(_tensor(bias))
    context.products[node.output[0]] = conv
    return conv if even else _Padded((top, left, bottom, right), conv)


def _linear(context: Context, out: str, weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    context.products[out] = layer
    return layer


def _gemm(node: Any, attributes: Attributes, context: Context) -> Run:
    if attributes.get("transA", 0):
        raise refuse(node, "transA", "transpose the activations before")
    weight, bias = context.constant(node, 1), context.constant(node, 2)
    assert weight is not None
    matrix = _tensor(weight) * attributes.get("alpha", 1.0)
    matrix = matrix if attributes.get("transB", 0) else matrix.T
    vector = None
    if bias is not None:
        if bias.size not in (1, len(matrix)) or (bias.ndim == 2 and bias.shape[0] != 1):
            raise refuse(node, f"a bias of shape {bias.shape}", "use one value an output")
        vector = (_tensor(bias).flatten() * attributes.get("beta", 1.0)).expand(len(matrix))
    return _linear(context, node.output[0], matrix, vector)


def _matmul(node: Any, attributes: Attributes, context: Context) -> Run:
    weight = context.constant(node, 1)
    if weight is None or weight.ndim != 2 or node.input[0] in context.known:
        raise refuse(node, "is no layer with a constant matrix on the right", "use a dense layer")
    context.shape(node, 2)
    return _linear(context, node.output[0], _tensor(weight).T, None)


def _add(node: Any, attributes: Attributes, context: Context) -> Run:
    constants = [name for name in node.input if name in context.known]
    if not constants:
        first, second = (context.shapes.get(name, []) for name in node.input)
        pairs = zip(first, second, strict=False)
        if len(first) != len(second) or any(a != b for a, b in pairs if a and b):
            raise refuse(node, f"adds shapes {first} and {second}", "add tensors of one shape")
        return torch.add
    (tensor,) = (name for name in node.input if name not in context.known)
    layer, values = context.products.get(tensor), context.known[constants[0]]
    if layer is None or context.readers[tensor] > 1:
        raise refuse(node, "adds a constant to no layer of its own", "put it into a layer's bias")
    count = len(layer.weight)
    spatial = 2 if isinstance(layer, nn.Conv2d) else 0
    by_channel = values.size == 1 or values.shape[-1 - spatial :] == (count, *[1] * spatial)
    if not by_channel or values.size not in (1, count):
        raise refuse(node, f"adds a constant of shape {values.shape}", "add one value a channel")
    with torch.no_grad():
        vector = _tensor(values).flatten().expand(count).clone()
        if layer.bias is not None:
            vector += layer.bias
        layer.bias = nn.Parameter(vector)
    context.products[node.output[0]] = layer
    return nn.Identity()


def _clip(node: Any, attributes: Attributes, context: Context) -> Run:
    bounds = [context.constant(node, index) for index in (1, 2)]
    low = float(bounds[0]) if bounds[0] is not None else attributes.get("min")
    high = float(bounds[1]) if bounds[1] is not None else attributes.get("max")
    if low is None or high is None:
        if low == 0 and high is None:
            return nn.ReLU()
        raise refuse(node, "clips on one side only", "use Relu, or two bounds")
    if low >= high:
        raise refuse(node, f"clips to {low} .. {high}", "give bounds in their order")
    return nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high)


def _pool_of(node: Any, attributes: Attributes, context: Context) -> tuple[tuple[int, int], Pads]:
    context.shape(node, 4)
    rows, columns = attributes["kernel_shape"]
    if any(d != 1 for d in attributes.get("dilations", [1, 1])):
        raise refuse(node, "a dilated pooling", "use dilation 1")
    return (rows, columns), _window(node, attributes, context, [rows, columns])


def _max_pool(node: Any, attributes: Attributes, context: Context) -> Run:
    kernel, (top, left, bottom, right) = _pool_of(node, attributes, context)
    if (top, left) != (bottom, right) or 2 * top > kernel[0] or 2 * left > kernel[1]:
        raise refuse(node, "uneven padding of a maximum, or more than half of it", "pad less")
    ceil = bool(attributes.get("ceil_mode", 0))
    return nn.MaxPool2d(kernel, attributes.get("strides", [1, 1]), (top, left), ceil_mode=ceil)


def _average_pool(node: Any, attributes: Attributes, context: Context) -> Run:
    kernel, (top, left, bottom, right) = _pool_of(node, attributes, context)
    if attributes.get("ceil_mode", 0):
        raise refuse(node, "ceil_mode of an average", "pad explicitly and use ceil_mode 0")
    padded = any((top, left, bottom, right))
    if padded and not attributes.get("count_include_pad", 0):
        raise refuse(node, "an average that leaves its padding out", "use count_include_pad 1")
    pool = nn.AvgPool2d(kernel, attributes.get("strides", [1, 1]))
    return _Padded((top, left, bottom, right), pool) if padded else pool


def _global_average(node: Any, attributes: Attributes, context: Context) -> Run:
    context.shape(node, 4)
    return nn.AdaptiveAvgPool2d(1)


def _reduce_mean(node: Any, attributes: Attributes, context: Context) -> Run:
    axes = context.constant(node, 1)
    chosen = attributes.get("axes") if axes is None else axes.tolist()
    context.shape(node, 4)
    if chosen is None or sorted(axis % 4 for axis in chosen) != [2, 3]:
        raise refuse(node, f"a mean over the axes {chosen}", "take the mean over height and width")
    keep = bool(attributes.get("keepdims", 1))
    return lambda x: x.mean((2, 3), keepdim=keep)


def _flatten(node: Any, attributes: Attributes, context: Context) -> Run:
    rank = len(context.shape(node))
    if attributes.get("axis", 1) % max(rank, 1) != 1:
        raise refuse(node, f"flattens from axis {attributes['axis']}", "flatten from axis 1")
    return nn.Flatten()


def _reshape(node: Any, attributes: Attributes, context: Context) -> Run:
    wanted = context.constant(node, 1)
    shape = context.shape(node)
    assert wanted is not None
    target, size = wanted.tolist(), int(np.prod(shape[1:]))
    # The batch stays, all else is in one row.
    batch = target[:1] in ([0], [-1]) or target[0] == shape[0]
    if len(target) != 2 or not batch or target[1] not in (-1, size) or target == [-1, -1]:
        raise refuse(node, f"reshapes {shape} to {target}", "only flattening is supported")
    return nn.Flatten()


def _squeeze(node: Any, attributes: Attributes, context: Context) -> Run:
    axes = context.constant(node, 1)
    chosen = attributes.get("axes") if axes is None else axes.tolist()
    shape = context.shape(node, 4)
    if chosen is None or sorted(axis % 4 for axis in chosen) != [2, 3] or shape[2:] != [1, 1]:
        raise refuse(node, f"squeezes the axes {chosen} of {shape}", "squeeze maps of one pixel")
    return nn.Flatten()


def _batch_norm(node: Any, attributes: Attributes, context: Context) -> Run:
    if attributes.get("training_mode", 0):
        raise refuse(node, "training_mode", "export the model in evaluation mode")
    rank = len(context.shape(node))
    if rank not in (2, 4):
        raise refuse(node, f"input of rank {rank}, expected 2 or 4", "use 2-D layers")
    scale, bias, mean, var = (context.constant(node, index) for index in range(1, 5))
    assert scale is not None
    kind = nn.BatchNorm2d if rank == 4 else nn.BatchNorm1d
    norm = kind(scale.size, eps=attributes.get("epsilon", 1e-5))
    state = {"weight": scale, "bias": bias, "running_mean": mean, "running_var": var}
    norm.load_state_dict(
        {name: _tensor(value) for name, value in state.items() if value is not None}, strict=False
    )
    return norm


def _pad(node: Any, attributes: Attributes, context: Context) -> Run:
    shape = context.shape(node, 4)
    given, value, axes = (context.constant(node, index) for index in (1, 2, 3))
    pads: list[int] = attributes["pads"] if given is None else given.tolist()
    number = attributes.get("value", 0.0) if value is None else float(value)
    if attributes.get("mode", b"constant") != b"constant" or number != 0:
        raise refuse(node, "pads with other than zeros", "pad with zeros")
    places = range(len(shape)) if axes is None else [int(axis) % len(shape) for axis in axes]
    begin, end = [0] * 4, [0] * 4
    for position, axis in enumerate(places):
        begin[axis], end[axis] = pads[position], pads[position + len(places)]
    if any([*begin[:2], *end[:2]]) or min([*begin, *end]) < 0:
        raise refuse(node, f"pads by {pads}", "pad height and width, by 0 or more")
    return nn.ZeroPad2d((begin[3], end[3], begin[2], end[2]))


def _concat(node: Any, attributes: Attributes, context: Context) -> Run:
    rank = len(context.shape(node))
    fixed = [name for name in node.input if name in context.known]
    if attributes["axis"] % max(rank, 1) != 1 or fixed:
        raise refuse(node, f"joins along axis {attributes['axis']}", "join tensors by channels")
    return lambda *parts: torch.cat(parts, 1)


def _dropout(node: Any, attributes: Attributes, context: Context) -> Run:
    training = context.constant(node, 2)
    if training is not None and bool(training):
        raise refuse(node, "training_mode", "export the model in evaluation mode")
    return nn.Identity()


def _through(node: Any, attributes: Attributes, context: Context) -> Run:
    return nn.Identity()


def _relu(node: Any, attributes: Attributes, context: Context) -> Run:
    return nn.ReLU()


def _host(node: Any, attributes: Attributes, context: Context) -> Run:
    """What the compiler leaves to the host if it comes last, and refuses if it does not."""
    if node.op_type == "Sigmoid":
        return nn.Sigmoid()
    kind = nn.Softmax if node.op_type == "Softmax" else nn.LogSoftmax
    version = max((item.version for item in context.opsets if item.domain == ""), default=13)
    return kind(attributes.get("axis", -1 if version >= 13 else 1))


def _quantisation(node: Any, attributes: Attributes, context: Context) -> Run:
    """Q and DQ of activations: the network is calibrated anew, and the user is told."""
    scale = context.constant(node, 1)
    assert scale is not None
    note = "activations of the file are quantised; their scales are chosen anew, powers of two"
    if note not in context.notes:
        context.notes.append(note)
    return nn.Identity()


def dequantised(
    node: Any,
    codes: npt.NDArray[Any],
    scale: npt.NDArray[Any],
    zero: npt.NDArray[Any] | None = None,
) -> npt.NDArray[np.float32]:
    """Constant DequantizeLinear, per tensor or along an axis."""
    attributes = {item.name: item.i for item in node.attribute}
    if attributes.get("block_size", 0):
        raise refuse(node, "blocked scales", "use one scale a channel")
    shape = [1] * codes.ndim
    if scale.size > 1:
        shape[attributes.get("axis", 1)] = scale.size
    offset = np.zeros(1) if zero is None else zero
    shift = offset.astype(np.float32).reshape(shape if offset.size > 1 else [1] * codes.ndim)
    shifted = codes.astype(np.float32) - shift
    found: npt.NDArray[np.float32] = shifted * scale.astype(np.float32).reshape(shape)
    return found


def _transpose(node: Any, attributes: Attributes, context: Context) -> Run:
    raise refuse(node, f"permutes axes, {attributes.get('perm')}", CHANNELS_FIRST)


#: Operators by name: (node, attributes, context) -> module or function of the dynamic inputs.
LAYERS: dict[str, Callable[[Any, Attributes, Context], Run]] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "DequantizeLinear": _quantisation,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "Identity": _through,
    "LogSoftmax": _host,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Pad": _pad,
    "QuantizeLinear": _quantisation,
    "ReduceMean": _reduce_mean,
    "Relu": _relu,
    "Reshape": _reshape,
    "Sigmoid": _host,
    "Softmax": _host,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
}

"""ONNX products with weights: convolutions, transposed ones, Gemm, MatMul and Einsum."""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.capture.onnx.context import Context, Run
from secateur.capture.onnx.node import OnnxNode, refuse
from secateur.capture.onnx.operators.call import Call, tensor
from secateur.capture.onnx.operators.windows import Around, Padded, Sizes, amounts, auto_padding
from secateur.capture.onnx.values import Array

_SHAPES = "give weights (outputs, inputs of a group, kernel)"


def _kernel(node: OnnxNode, weight: Array, outputs: int, bias: Array | None) -> Sizes:
    """Size of the kernel of a convolution, whose weight and bias are checked."""
    if weight.ndim not in (3, 4):
        raise refuse(node, f"a {weight.ndim - 2}-D convolution", "use 1-D or 2-D convolutions")
    kernel, groups = tuple(weight.shape[2:]), node.integer("group", 1)
    if 0 in weight.shape or groups < 1 or weight.shape[0] % groups:
        raise refuse(node, f"weights of shape {weight.shape} in {groups} groups", _SHAPES)
    if bias is not None and bias.shape != (outputs,):
        what = f"a bias of shape {bias.shape} for {outputs} channels"
        raise refuse(node, what, "give one value per channel")
    if node.has("kernel_shape") and tuple(node.integers("kernel_shape")) != kernel:
        what = f"weights of shape {weight.shape}, another kernel_shape"
        raise refuse(node, what, "export the model again")
    return kernel


def _filled(layer: Any, weight: Tensor, bias: Tensor | None) -> Any:
    """The layer with its weights."""
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def conv(node: OnnxNode, context: Context) -> Run:
    """Conv, 1-D or 2-D."""
    weight, bias = context.weight(node, 1), context.constant(node, 2)
    kernel = _kernel(node, weight, weight.shape[0] if weight.ndim else 0, bias)
    count, groups = len(kernel), node.integer("group", 1)
    pads = auto_padding(node, kernel)
    inner = pads.before if isinstance(pads, Around) and pads.even else None
    kind: Any = nn.Conv2d if count == 2 else nn.Conv1d
    layer = kind(
        weight.shape[1] * groups, weight.shape[0], kernel,
        stride=tuple(node.sizes("strides", count, 1)),
        padding=inner or 0,
        dilation=tuple(node.sizes("dilations", count, 1)),
        groups=groups, bias=bias is not None,
    )  # fmt: skip
    _filled(layer, tensor(weight), None if bias is None else tensor(bias))
    context.products[node.output[0]] = layer
    return layer if inner is not None else Padded(pads, layer)


def conv_transposed(node: OnnxNode, context: Context) -> Run:
    """ConvTranspose, 1-D or 2-D, with paddings of any kind."""
    weight, bias = context.weight(node, 1), context.constant(node, 2)
    groups = node.integer("group", 1)
    outputs = weight.shape[1] * groups if weight.ndim > 1 else 0
    kernel = _kernel(node, weight, outputs, bias)
    count = len(kernel)
    strides, dilations = node.sizes("strides", count, 1), node.sizes("dilations", count, 1)
    extra = node.sizes("output_padding", count, 0)
    before, after = _cropped(node, context, kernel, extra)
    # What PyTorch crops on both sides, what is cropped behind it, and what it adds at the end.
    both = [max(min(b, a), 0) for b, a in zip(before, after, strict=True)]
    first = [b - p for b, p in zip(before, both, strict=True)]
    rest = [e - (a - p) for e, a, p in zip(extra, after, both, strict=True)]
    added = [max(n, 0) for n in rest]
    if min(first) < 0 or any(n >= max(s, d) for n, s, d in zip(added, strides, dilations,
                                                               strict=True)):  # fmt: skip
        raise refuse(node, f"an output that is {added} longer", "use less output_padding")
    kind: Any = nn.ConvTranspose2d if count == 2 else nn.ConvTranspose1d
    layer = kind(
        weight.shape[0], outputs, kernel, stride=tuple(strides), padding=tuple(both),
        output_padding=tuple(added), dilation=tuple(dilations), groups=groups,
        bias=bias is not None,
    )  # fmt: skip
    _filled(layer, tensor(weight), None if bias is None else tensor(bias))
    context.products[node.output[0]] = layer
    crop = amounts(tuple(-n for n in first), tuple(min(n, 0) for n in rest))
    return Cropped(layer, crop) if any(crop) else layer


class Cropped(nn.Module):
    """A layer, and what is cut off its output."""

    def __init__(self, layer: nn.Module, crop: list[int]) -> None:
        super().__init__()
        self.layer, self.crop = layer, crop

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(self.layer(x), self.crop)


def _cropped(
    node: OnnxNode, context: Context, kernel: Sizes, extra: list[int]
) -> tuple[list[int], list[int]]:
    """What a transposed convolution crops before and after, by dimension."""
    count = len(kernel)
    strides, dilations = node.sizes("strides", count, 1), node.sizes("dilations", count, 1)
    auto = node.choice("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    if auto in ("NOTSET", "VALID") and not node.has("output_shape"):
        pads = node.sizes("pads", 2 * count, 0) if auto == "NOTSET" else [0] * 2 * count
        return pads[:count], pads[count:]
    before, after = [], []
    sizes = context.shape(node, count + 2)[2:]
    if 0 in sizes:
        raise refuse(node, "an output of a fixed shape, of an input of none", "fix its size")
    wanted = [n * s for n, s in zip(sizes, strides, strict=True)]
    if node.has("output_shape"):
        wanted = node.sizes("output_shape", len(node.integers("output_shape")), 1)[-count:]
    for n, s, d, k, e, out in zip(sizes, strides, dilations, kernel, extra, wanted, strict=True):
        total = s * (n - 1) + e + d * (k - 1) + 1 - out
        small = int(total / 2)
        first = small if auto == "SAME_UPPER" else total - small
        first = min(first, max(total, 0))
        before.append(first)
        after.append(total - first)
    return before, after


def linear(context: Context, out: str, weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A dense layer that makes the tensor ``out``.

    Parameters
    ----------
    context : remembers it
    out : name of its output
    weight : (outputs, inputs)
    bias : (outputs,), or None
    """
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    context.products[out] = _filled(layer, weight, bias)
    return layer


def gemm(node: OnnxNode, context: Context) -> Run:
    """Gemm: with constant weights a dense layer."""
    alpha, beta = node.real("alpha", 1.0), node.real("beta", 1.0)
    turned = bool(node.integer("transA", 0))
    names = [*node.input, ""]
    vector = None
    fixed = names[1] in context.known and names[0] not in context.known and not turned
    if fixed and names[2] in context.known:
        bias = context.known[names[2]]
        fixed = bias.ndim < 2 or bias.shape[0] == 1
    if not fixed or (names[2] and names[2] not in context.known):

        def run(a: Tensor, b: Tensor, c: Tensor | float | None = None) -> Tensor:
            found = (a.T if turned else a) @ (b.T if node.integer("transB", 0) else b)
            found = found if alpha == 1 else found * alpha
            return found if c is None else found + c * beta

        return Call(run, node, context)
    weight = context.known[names[1]]
    if weight.ndim != 2 or 0 in weight.shape:
        raise refuse(node, f"weights of shape {weight.shape}", "give a matrix")
    matrix = tensor(weight) * alpha
    matrix = matrix if node.integer("transB", 0) else matrix.T
    if names[2]:
        if bias.size not in (1, len(matrix)):
            raise refuse(node, f"a bias of shape {bias.shape}", "use one value per output")
        vector = (tensor(bias).flatten() * beta).expand(len(matrix))
    return linear(context, node.output[0], matrix, vector)


def matmul(node: OnnxNode, context: Context) -> Run:
    """MatMul: with a constant matrix a dense layer, over the last dimension or the one before."""
    fixed = [index for index, name in enumerate(node.input) if name in context.known]
    if not fixed or len(node.input) != 2:
        return torch.matmul
    weight, rank = context.known[node.input[fixed[0]]], len(context.shapes.get(
        context.dynamic(node)[0], ()))  # fmt: skip
    if weight.ndim > 2 and weight.ndim <= max(rank, 2) and set(weight.shape[:-2]) == {1}:
        weight = weight.reshape(weight.shape[-2:])
    if weight.ndim != 2 or 0 in weight.shape:
        return Call(torch.matmul, node, context, whole=True)
    if fixed == [1]:
        return linear(context, node.output[0], tensor(weight).T, None)
    if rank < 2:
        return Call(torch.matmul, node, context, whole=True)
    return _Turned(linear(context, "", tensor(weight), None))


class _Turned(nn.Module):
    """A dense layer over the dimension before the last."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        turned: Tensor = self.layer(x.transpose(-1, -2))
        return turned.transpose(-1, -2)


def einsum(node: OnnxNode, context: Context) -> Run:
    """Einsum, as PyTorch's."""
    equation = node.attributes["equation"].s.decode("ascii") if node.has("equation") else ""
    if not re.fullmatch(r"[A-Za-z,.> -]{1,200}", equation):
        raise refuse(node, "an equation of other signs than letters", "export the model again")
    return Call(lambda *parts: torch.einsum(equation, *parts), node, context, whole=True)

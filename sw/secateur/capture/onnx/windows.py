"""ONNX convolutions, pooling and padding, on maps (N, C, H, W) and signals (N, C, L)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.capture.onnx.context import Context, Run, tensor
from secateur.capture.onnx.node import MOST, OnnxNode, refuse

Sizes = tuple[int, ...]
#: Multiplications that take as long as a step of a pooling, roughly.
_POOLED = 16


def _padding(node: OnnxNode, context: Context, kernel: Sizes) -> tuple[Sizes, Sizes]:
    """Padding before and after by dimension, auto_pad resolved with the shapes."""
    count = len(kernel)
    strides, dilations = node.sizes("strides", count, 1), node.sizes("dilations", count, 1)
    auto = node.choice("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    if auto == "NOTSET":
        pads = node.sizes("pads", 2 * count, 0)
        return tuple(pads[:count]), tuple(pads[count:])
    if auto == "VALID":
        return (0,) * count, (0,) * count
    pairs = []
    sizes = context.shape(node, count + 2)[2:]
    for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        if size == 0:
            raise refuse(node, f"{auto} padding of an unknown size", "export with fixed sizes")
        total = max(0, (-(-size // s) - 1) * s + d * (k - 1) + 1 - size)
        small, large = total // 2, total - total // 2
        pairs.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return tuple(before for before, _ in pairs), tuple(after for _, after in pairs)


def _amounts(before: Sizes, after: Sizes) -> list[int]:
    """As ``F.pad`` takes them, the last dimension first."""
    return [n for pair in zip(before[::-1], after[::-1], strict=True) for n in pair]


class _Padded(nn.Module):
    """Zero padding, then a convolution or an average that has none."""

    def __init__(self, before: Sizes, after: Sizes, layer: nn.Module) -> None:
        super().__init__()
        self.amounts, self.layer = _amounts(before, after), layer

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(F.pad(x, self.amounts))
        return result


def terms(layer: nn.Module) -> int:
    """Operations for each number that a layer makes."""
    layer = layer.layer if isinstance(layer, _Padded) else layer
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
        return layer.weight[0].numel()
    if isinstance(layer, nn.MaxPool1d | nn.MaxPool2d | nn.AvgPool1d | nn.AvgPool2d):
        size = layer.kernel_size
        return _POOLED * math.prod((size,) if isinstance(size, int) else size)
    return 1


def conv(node: OnnxNode, context: Context) -> Run:
    """Conv, 1-D or 2-D."""
    weight, bias = context.weight(node, 1), context.constant(node, 2)
    if weight.ndim not in (3, 4):
        raise refuse(node, f"a {weight.ndim - 2}-D convolution", "use 1-D or 2-D convolutions")
    kernel, count = tuple(weight.shape[2:]), weight.ndim - 2
    groups = node.integer("group", 1)
    if 0 in weight.shape or groups < 1 or weight.shape[0] % groups:
        what = f"weights of shape {weight.shape} in {groups} groups"
        raise refuse(node, what, "give weights (outputs, inputs of a group, kernel)")
    if bias is not None and bias.shape != weight.shape[:1]:
        what = f"a bias of shape {bias.shape} for {weight.shape[0]} channels"
        raise refuse(node, what, "give one value per channel")
    if node.has("kernel_shape") and tuple(node.integers("kernel_shape")) != kernel:
        what = f"weights of shape {weight.shape}, another kernel_shape"
        raise refuse(node, what, "export the model again")
    before, after = _padding(node, context, kernel)
    even = before == after
    kind: Any = nn.Conv2d if count == 2 else nn.Conv1d
    layer: nn.Conv1d | nn.Conv2d = kind(
        weight.shape[1] * groups, weight.shape[0], kernel,
        stride=tuple(node.sizes("strides", count, 1)),
        padding=before if even else 0,
        dilation=tuple(node.sizes("dilations", count, 1)),
        groups=groups, bias=bias is not None,
    )  # fmt: skip
    with torch.no_grad():
        layer.weight.copy_(tensor(weight))
        if bias is not None and layer.bias is not None:
            layer.bias.copy_(tensor(bias))
    context.products[node.output[0]] = layer
    return layer if even else _Padded(before, after, layer)


def _pool_of(node: OnnxNode, context: Context) -> tuple[Sizes, Sizes, Sizes, Sizes]:
    """Kernel, strides, padding before and after."""
    count = len(node.integers("kernel_shape"))
    if count not in (1, 2):
        raise refuse(node, f"a {count}-D pooling", "use 1-D or 2-D pooling")
    kernel = tuple(node.sizes("kernel_shape", count, 1))
    context.shape(node, count + 2)
    return kernel, tuple(node.sizes("strides", count, 1)), *_padding(node, context, kernel)


def max_pool(node: OnnxNode, context: Context) -> Run:
    """MaxPool, 1-D or 2-D."""
    kernel, strides, before, after = _pool_of(node, context)
    if before != after or any(2 * b > k for b, k in zip(before, kernel, strict=True)):
        raise refuse(node, "max pooling with uneven padding, or too much", "pad less")
    ceil = bool(node.integer("ceil_mode", 0))
    dilations = tuple(node.sizes("dilations", len(kernel), 1))
    if len(kernel) == 2:
        return nn.MaxPool2d(kernel, strides, before, dilations, ceil_mode=ceil)
    return nn.MaxPool1d(kernel[0], strides[0], before[0], dilations[0], ceil_mode=ceil)


def average_pool(node: OnnxNode, context: Context) -> Run:
    """AveragePool, 1-D or 2-D, of which padding counts."""
    kernel, strides, before, after = _pool_of(node, context)
    if any(d != 1 for d in node.sizes("dilations", len(kernel), 1)):
        raise refuse(node, "dilated average pooling", "use dilation 1")
    if node.integer("ceil_mode", 0):
        raise refuse(node, "ceil_mode of average pooling", "pad explicitly and use ceil_mode 0")
    padded = any((*before, *after))
    if padded and not node.integer("count_include_pad", 0):
        raise refuse(node, "average pooling that omits its padding", "use count_include_pad 1")
    kind: Any = nn.AvgPool2d if len(kernel) == 2 else nn.AvgPool1d
    pool: nn.Module = kind(kernel, strides)
    return _Padded(before, after, pool) if padded else pool


def global_average(node: OnnxNode, context: Context) -> Run:
    """GlobalAveragePool."""
    rank = len(context.shape(node, 3, 4))
    return nn.AdaptiveAvgPool2d(1) if rank == 4 else nn.AdaptiveAvgPool1d(1)


def global_maximum(node: OnnxNode, context: Context) -> Run:
    """GlobalMaxPool of maps of a fixed size."""
    sizes = context.shape(node, 3, 4)[2:]
    if 0 in sizes:
        raise refuse(node, "max pooling of unknown size", "export with fixed sizes")
    return nn.MaxPool2d(tuple(sizes)) if len(sizes) == 2 else nn.MaxPool1d(sizes[0])


def reduce_mean(node: OnnxNode, context: Context) -> Run:
    """ReduceMean over height and width, or the length."""
    rank = len(context.shape(node, 3, 4))
    chosen, places = context.axes(node, 1, rank), list(range(2, rank))
    if chosen != places:
        raise refuse(
            node, f"a mean over the axes {chosen}", "take the mean over height and width, or length"
        )
    keep = bool(node.integer("keepdims", 1))
    return lambda x: x.mean(places, keepdim=keep)


def pad(node: OnnxNode, context: Context) -> Run:
    """Pad of height, width or length with zeros."""
    rank = len(context.shape(node, 3, 4))
    given, value, axes = (
        context.integers(node, 1),
        context.scalar(node, 2),
        context.integers(node, 3),
    )
    pads = node.integers("pads") if given is None else given
    number = node.real("value", 0.0) if value is None else value
    if node.choice("mode", "constant", "reflect", "edge", "wrap") != "constant" or number != 0:
        raise refuse(node, "pads with other values than zeros", "pad with zeros")
    places = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    before, after = [0] * rank, [0] * rank
    if len(pads) != 2 * len(places):
        what = f"{len(pads)} numbers for {len(places)} dimensions"
        raise refuse(node, what, "give two per dimension")
    for position, axis in enumerate(places):
        before[axis], after[axis] = pads[position], pads[position + len(places)]
    cut = any([*before[:2], *after[:2]])
    if cut or not all(0 <= n <= MOST for n in (*before, *after)):
        raise refuse(node, f"pads by {pads}", "pad height and width, by 0 or more")
    amounts = _amounts(tuple(before[2:]), tuple(after[2:]))
    return lambda x: F.pad(x, amounts)

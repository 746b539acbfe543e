"""ONNX convolutions, pooling and padding, on maps (N, C, H, W) and signals (N, C, L)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.onnx_context import Attributes, Context, Run, refuse, tensor

Sizes = tuple[int, ...]


def _padding(
    node: Any, attributes: Attributes, context: Context, kernel: Sizes
) -> tuple[Sizes, Sizes]:
    """Padding before and after by dimension, auto_pad resolved with the shapes."""
    count = len(kernel)
    strides = attributes.get("strides", [1] * count)
    dilations = attributes.get("dilations", [1] * count)
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    if auto == "NOTSET":
        pads = attributes.get("pads", [0] * 2 * count)
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


def conv(node: Any, attributes: Attributes, context: Context) -> Run:
    weight, bias = context.constant(node, 1), context.constant(node, 2)
    assert weight is not None
    if weight.ndim not in (3, 4):
        raise refuse(node, f"a {weight.ndim - 2}-D convolution", "use 1-D or 2-D convolutions")
    kernel = weight.shape[2:]
    before, after = _padding(node, attributes, context, kernel)
    even = before == after
    groups = attributes.get("group", 1)
    kind: Any = nn.Conv2d if weight.ndim == 4 else nn.Conv1d
    layer: nn.Conv1d | nn.Conv2d = kind(
        weight.shape[1] * groups, weight.shape[0], tuple(kernel),
        stride=tuple(attributes.get("strides", [1] * len(kernel))),
        padding=before if even else 0,
        dilation=tuple(attributes.get("dilations", [1] * len(kernel))),
        groups=groups, bias=bias is not None,
    )  # fmt: skip
    with torch.no_grad():
        layer.weight.copy_(tensor(weight))
        if bias is not None and layer.bias is not None:
            layer.bias.copy_(tensor(bias))
    context.products[node.output[0]] = layer
    return layer if even else _Padded(before, after, layer)


def _pool_of(
    node: Any, attributes: Attributes, context: Context
) -> tuple[Sizes, Sizes, Sizes, Sizes]:
    """Kernel, strides, padding before and after."""
    kernel = tuple(attributes["kernel_shape"])
    if len(kernel) not in (1, 2):
        raise refuse(node, f"a {len(kernel)}-D pooling", "use 1-D or 2-D pooling")
    context.shape(node, len(kernel) + 2)
    strides = tuple(attributes.get("strides", [1] * len(kernel)))
    return kernel, strides, *_padding(node, attributes, context, kernel)


def max_pool(node: Any, attributes: Attributes, context: Context) -> Run:
    kernel, strides, before, after = _pool_of(node, attributes, context)
    if before != after or any(2 * b > k for b, k in zip(before, kernel, strict=True)):
        raise refuse(node, "uneven padding of a maximum, or more than half of it", "pad less")
    ceil = bool(attributes.get("ceil_mode", 0))
    dilations = tuple(attributes.get("dilations", [1] * len(kernel)))
    if len(kernel) == 2:
        return nn.MaxPool2d(kernel, strides, before, dilations, ceil_mode=ceil)
    return nn.MaxPool1d(kernel[0], strides[0], before[0], dilations[0], ceil_mode=ceil)


def average_pool(node: Any, attributes: Attributes, context: Context) -> Run:
    kernel, strides, before, after = _pool_of(node, attributes, context)
    if any(d != 1 for d in attributes.get("dilations", [1])):
        raise refuse(node, "a dilated average", "use dilation 1")
    if attributes.get("ceil_mode", 0):
        raise refuse(node, "ceil_mode of an average", "pad explicitly and use ceil_mode 0")
    padded = any((*before, *after))
    if padded and not attributes.get("count_include_pad", 0):
        raise refuse(node, "an average that leaves its padding out", "use count_include_pad 1")
    kind: Any = nn.AvgPool2d if len(kernel) == 2 else nn.AvgPool1d
    pool: nn.Module = kind(kernel, strides)
    return _Padded(before, after, pool) if padded else pool


def global_average(node: Any, attributes: Attributes, context: Context) -> Run:
    rank = len(context.shape(node, 3, 4))
    return nn.AdaptiveAvgPool2d(1) if rank == 4 else nn.AdaptiveAvgPool1d(1)


def global_maximum(node: Any, attributes: Attributes, context: Context) -> Run:
    sizes = context.shape(node, 3, 4)[2:]
    if 0 in sizes:
        raise refuse(node, "a maximum of unknown size", "export with fixed sizes")
    return nn.MaxPool2d(tuple(sizes)) if len(sizes) == 2 else nn.MaxPool1d(sizes[0])


def reduce_mean(node: Any, attributes: Attributes, context: Context) -> Run:
    axes = context.constant(node, 1)
    chosen = attributes.get("axes") if axes is None else axes.tolist()
    rank = len(context.shape(node, 3, 4))
    if chosen is None or sorted(axis % rank for axis in chosen) != list(range(2, rank)):
        raise refuse(
            node, f"a mean over the axes {chosen}", "take the mean over height and width, or length"
        )
    keep, places = bool(attributes.get("keepdims", 1)), list(range(2, rank))
    return lambda x: x.mean(places, keepdim=keep)


def pad(node: Any, attributes: Attributes, context: Context) -> Run:
    rank = len(context.shape(node, 3, 4))
    given, value, axes = (context.constant(node, index) for index in (1, 2, 3))
    pads: list[int] = attributes["pads"] if given is None else given.tolist()
    number = attributes.get("value", 0.0) if value is None else float(value)
    if attributes.get("mode", b"constant") != b"constant" or number != 0:
        raise refuse(node, "pads with other than zeros", "pad with zeros")
    places = range(rank) if axes is None else [int(axis) % rank for axis in axes]
    before, after = [0] * rank, [0] * rank
    for position, axis in enumerate(places):
        before[axis], after[axis] = pads[position], pads[position + len(places)]
    if any([*before[:2], *after[:2]]) or min([*before, *after]) < 0:
        raise refuse(node, f"pads by {pads}", "pad height and width, by 0 or more")
    amounts = _amounts(tuple(before[2:]), tuple(after[2:]))
    return lambda x: F.pad(x, amounts)

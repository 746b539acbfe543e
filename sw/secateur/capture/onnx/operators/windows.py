"""Padding of ONNX windows, and pooling, on maps (N, C, H, W) and signals (N, C, L)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.capture.onnx.context import Context, Run
from secateur.capture.onnx.node import OnnxNode, refuse

Sizes = tuple[int, ...]
#: Multiplications that take as long as a step of a pooling, roughly.
_POOLED = 16


@dataclass(frozen=True)
class Around:
    """Padding before and after, by dimension."""

    before: Sizes
    after: Sizes

    @property
    def even(self) -> bool:
        """Whether both sides have the same."""
        return self.before == self.after

    def of(self, sizes: Sizes) -> Around:
        """The same for maps of any size."""
        return self


@dataclass(frozen=True)
class Same:
    """Padding that depends on the size of the map: its output is as large, by the stride."""

    kernel: Sizes
    strides: Sizes
    dilations: Sizes
    upper: bool

    def of(self, sizes: Sizes) -> Around:
        """The padding of maps of a size."""
        before, after = [], []
        for size, k, s, d in zip(sizes, self.kernel, self.strides, self.dilations, strict=True):
            total = max(0, (-(-size // s) - 1) * s + d * (k - 1) + 1 - size)
            first = total // 2 if self.upper else total - total // 2
            before.append(first)
            after.append(total - first)
        return Around(tuple(before), tuple(after))


def auto_padding(node: OnnxNode, kernel: Sizes) -> Around | Same:
    """Padding as ``pads`` or ``auto_pad`` give it."""
    count = len(kernel)
    strides, dilations = node.sizes("strides", count, 1), node.sizes("dilations", count, 1)
    auto = node.choice("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    if auto == "NOTSET":
        pads = node.sizes("pads", 2 * count, 0)
        return Around(tuple(pads[:count]), tuple(pads[count:]))
    if auto == "VALID":
        return Around((0,) * count, (0,) * count)
    return Same(kernel, tuple(strides), tuple(dilations), auto == "SAME_UPPER")


def amounts(before: Sizes, after: Sizes) -> list[int]:
    """As ``F.pad`` takes them, the last dimension first."""
    return [n for pair in zip(before[::-1], after[::-1], strict=True) for n in pair]


class Padded(nn.Module):
    """Padding with a constant, then a layer that has none."""

    def __init__(self, pads: Around | Same, layer: nn.Module, value: float = 0.0) -> None:
        super().__init__()
        self.pads, self.layer, self.value = pads, layer, value

    def forward(self, x: Tensor) -> Tensor:
        pads = self.pads.of(tuple(x.shape[2:]))
        added = amounts(pads.before, pads.after)
        result: Tensor = self.layer(F.pad(x, added, value=self.value) if any(added) else x)
        return result


def terms(layer: nn.Module) -> int:
    """Operations for each number that a layer makes."""
    while isinstance(inner := getattr(layer, "layer", None), nn.Module):
        layer = inner
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
        return layer.weight[0].numel()
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d):
        return layer.weight[:, 0].numel()
    kernel = getattr(layer, "kernel_size", None)
    if kernel is not None:
        return _POOLED * math.prod((kernel,) if isinstance(kernel, int) else kernel)
    return 1


@dataclass(frozen=True)
class _Pool:
    """Attributes of a pooling."""

    kernel: Sizes
    strides: Sizes
    dilations: Sizes
    pads: Around | Same
    ceil: bool

    @property
    def fits(self) -> bool:
        """Whether PyTorch pads as much itself."""
        spans = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        if not isinstance(self.pads, Around) or not self.pads.even:
            return False
        return all(2 * b <= k for b, k in zip(self.pads.before, spans, strict=True))


def _pool_of(node: OnnxNode, context: Context) -> _Pool:
    count = len(node.integers("kernel_shape"))
    if count not in (1, 2):
        raise refuse(node, f"a {count}-D pooling", "use 1-D or 2-D pooling")
    kernel = tuple(node.sizes("kernel_shape", count, 1))
    context.shape(node, count + 2)
    return _Pool(
        kernel, tuple(node.sizes("strides", count, 1)), tuple(node.sizes("dilations", count, 1)),
        auto_padding(node, kernel), bool(node.integer("ceil_mode", 0)),
    )  # fmt: skip


def max_pool(node: OnnxNode, context: Context) -> Run:
    """MaxPool, 1-D or 2-D."""
    pool = _pool_of(node, context)
    inner = (
        pool.pads.before if isinstance(pool.pads, Around) and pool.fits else (0,) * len(pool.kernel)
    )
    kind: Any = nn.MaxPool2d if len(pool.kernel) == 2 else nn.MaxPool1d
    layer = kind(
        *map(_plain, (pool.kernel, pool.strides, inner, pool.dilations)), ceil_mode=pool.ceil
    )
    return layer if pool.fits else Padded(pool.pads, layer, float("-inf"))


def _plain(sizes: Sizes) -> Any:
    """As PyTorch's one-dimensional layers take them."""
    return sizes[0] if len(sizes) == 1 else sizes


def average_pool(node: OnnxNode, context: Context) -> Run:
    """AveragePool, 1-D or 2-D."""
    pool = _pool_of(node, context)
    counted = bool(node.integer("count_include_pad", 0))
    if any(d != 1 for d in pool.dilations):
        layer: nn.Module = _Spread(pool)
    elif pool.fits and isinstance(pool.pads, Around):
        return _average(pool, pool.pads.before, counted)
    else:
        layer = _average(pool, (0,) * len(pool.kernel), True)
    padded = Padded(pool.pads, layer)
    return padded if counted else _Counted(padded)


def _average(pool: _Pool, padding: Sizes, counted: bool) -> nn.Module:
    kind: Any = nn.AvgPool2d if len(pool.kernel) == 2 else nn.AvgPool1d
    found: nn.Module = kind(*map(_plain, (pool.kernel, pool.strides, padding)), pool.ceil, counted)
    return found


class _Spread(nn.Module):
    """An average over a window with holes."""

    def __init__(self, pool: _Pool) -> None:
        super().__init__()
        self.pool = pool
        self.kernel_size = pool.kernel

    def forward(self, x: Tensor) -> Tensor:
        pool = self.pool
        if pool.ceil:
            raise ValueError("ceil_mode with dilations")
        weight = torch.full((x.shape[1], 1, *pool.kernel), 1 / math.prod(pool.kernel))
        run: Callable[..., Tensor] = F.conv2d if len(pool.kernel) == 2 else F.conv1d
        return run(x, weight.to(x.device), None, pool.strides, 0, pool.dilations, x.shape[1])


class _Counted(nn.Module):
    """An average that divides by what lies in the map only."""

    def __init__(self, layer: Padded) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        share: Tensor = self.layer(torch.ones(1, *x.shape[1:], device=x.device))
        return torch.mul(self.layer(x), 1 / share)


def global_average(node: OnnxNode, context: Context) -> Run:
    """GlobalAveragePool."""
    rank = len(context.shape(node, 3, 4))
    return nn.AdaptiveAvgPool2d(1) if rank == 4 else nn.AdaptiveAvgPool1d(1)


def global_maximum(node: OnnxNode, context: Context) -> Run:
    """GlobalMaxPool."""
    places = list(range(2, len(context.shape(node, 3, 4))))
    return lambda x: x.amax(places, keepdim=True)

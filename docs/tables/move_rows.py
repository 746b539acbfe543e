"""Rows of the table of operators: what only moves values, and what becomes of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from docs.tables.operator_rows import Here, Row, before, calls


def both(x: Tensor) -> Tensor:
    """Every other channel of two, twice as high."""
    return torch.hstack([x, x])[:, 1::2].tile(2, 1)


def padded(x: Tensor) -> Tensor:
    """Circular, with a constant, with a row taken off, with channels of zeros."""
    x = F.pad(F.pad(x, (0, 1, 1, 0), "circular"), (1, 0), value=0.25)
    return F.pad(x, (-1, 0, 0, 0, 1, 0))


#: Read where the values are, or copied: the compiler knows what every one of them does.
MOVES = (
    Row("`torch.permute`, `transpose`, `movedim`", "any dimensions but that of the samples",
        calls(lambda x: x.permute(0, 2, 3, 1).transpose(1, 2).movedim(3, 2))),
    Row("`torch.t`", "at the very end, where samples may be anywhere",
        calls(lambda x: x.t()), "vectors"),
    Row("`torch.permute`, before a layer", "height and width: read so, without a copy",
        lambda: before(Here(lambda x: x.transpose(2, 3)), nn.Conv2d(4, 2, 1))),
    Row("slices", "any dimension, any step", calls(lambda x: x[:, 1:, ::2, -3:])),
    Row("slices, before a layer", "channels, rows, columns: read so, without a copy",
        lambda: before(Here(lambda x: x[:, :2, 1:, ::2]), nn.Conv2d(2, 2, 1))),
    Row("`torch.select`, `narrow`", "", calls(lambda x: x[:, :, 0].narrow(2, 1, 3))),
    Row("`torch.split`, `chunk`, `unbind`", "the parts in any order",
        calls(lambda x: torch.cat([*x.chunk(2, 1)[::-1], *x.split(3, 1)], 1))),
    Row("`torch.cat` of rows, `hstack`, `vstack`", "any dimension but that of the samples",
        calls(lambda x: torch.cat([torch.cat([x, x], 2), both(x)], 3))),
    Row("`torch.stack`", "", calls(lambda x: torch.stack([x, x], 2).flatten(1, 2))),
    Row("`nn.ChannelShuffle`", "also written with views", lambda: nn.ChannelShuffle(2)),
    Row("`nn.PixelShuffle`", "", lambda: nn.PixelShuffle(2)),
    Row("`nn.PixelUnshuffle`", "", lambda: nn.PixelUnshuffle(2)),
    Row("`nn.Upsample`, `F.interpolate`", "nearest, to any size",
        lambda: nn.Upsample(scale_factor=2)),
    Row("`nn.Upsample`, bilinear", "one layer for each kind of pixel",
        lambda: nn.Upsample(scale_factor=2, mode="bilinear")),
    Row("`F.interpolate`, bilinear, bicubic, area", "to any size, antialiased, too",
        calls(lambda x: F.interpolate(F.interpolate(x, (4, 3), mode="bilinear", antialias=True),
                                      (3, 6), mode="bicubic"))),
    Row("`F.interpolate`, antialiased bicubic, aligned corners", "many kinds: products of matrices",
        calls(lambda x: F.interpolate(F.interpolate(x, (4, 3), mode="bicubic", antialias=True),
                                      (15, 14), mode="bilinear", align_corners=True))),
    Row("`F.interpolate`, linear", "signals", lambda: nn.Upsample(scale_factor=2, mode="linear"),
        "signals"),
    Row("`torch.flip`, `roll`, `rot90`", "",
        calls(lambda x: torch.rot90(x.flip(2), 1, (2, 3)).roll(1, 3))),
    Row("`expand_as`, `view_as`, `reshape_as`", "",
        calls(lambda x: x.view_as(x)[:, :, :, :1].expand_as(x).transpose(2, 3).reshape_as(x))),
    Row("`Tensor.expand`, `repeat`, `tile`", "",
        calls(lambda x: x[:, :, :1].expand(-1, -1, 3, -1).repeat(1, 1, 2, 1))),
    Row("`F.pad`, other kinds", "reflect, replicate, circular, any constant, channels, cropping",
        calls(lambda x: padded(F.pad(x, (1, 1, 1, 1), "reflect")))),
    Row("`Tensor.view`, `reshape` to maps", "any shape", calls(lambda x: x.view(-1, 4, 4, 9))),
)  # fmt: skip

REDUCTIONS = (
    Row("`torch.mean`, any dimensions", "but that of the samples",
        calls(lambda x: x.mean(1, keepdim=True) + x.mean((1, 2, 3), keepdim=True))),
    Row("`torch.sum`", "as mean", calls(lambda x: x.sum((2, 3)) / 36)),
    Row("`torch.amax`, `max` over any dimensions", "values alone; not that of the samples",
        calls(lambda x: x.amax(1).max(2)[0])),
)  # fmt: skip

#: Convolutions in other forms.
CONVOLUTIONS = (
    Row("`nn.Conv2d`, grouped", "the weights between groups are zeros, which cost nothing",
        lambda: nn.Conv2d(4, 4, 3, groups=2)),
    Row("`nn.Conv2d`, depthwise with a multiplier", "as grouped",
        lambda: nn.Conv2d(4, 8, 3, groups=4)),
    Row("`nn.ConvTranspose2d`", "stride, padding, output padding, groups; one layer per phase",
        lambda: nn.ConvTranspose2d(4, 4, 3, 2, 1, 1)),
    Row("`torch.matmul`, `@`, `bmm`", "one side is a constant",
        calls(lambda x: torch.ones(6, 6).triu() @ x @ torch.eye(6)[:, :5] / 6)),
    Row("`torch.mm`", "a constant on the right",
        calls(lambda x: torch.mm(x, torch.linspace(-1, 1, 8).view(4, 2))), "vectors"),
    Row("`torch.bmm`, `baddbmm`", "one side is a constant",
        calls(lambda x: torch.baddbmm(
            torch.ones(1, 1, 1), torch.bmm(torch.ones(1, 4, 4).triu().expand(len(x), 4, 4), x),
            torch.eye(8)[:, :6].expand(len(x), 8, 6))), "signals"),
    Row("`torch.einsum`", "of a tensor and a constant",
        calls(lambda x: torch.einsum("nchw,oc->nohw", x, torch.linspace(-1, 1, 12).view(3, 4)))),
    Row("`nn.Unfold`", "", calls(lambda x: F.unfold(x, 2)[:, ::3])),
    Row("`nn.Linear`, on maps and sequences", "(N, ..., features)", lambda: nn.Linear(6, 5)),
    Row("`+`, of other shapes", "broadcast",
        calls(lambda x: x + x.mean((2, 3), keepdim=True))),
    Row("`*`, of other shapes", "broadcast", calls(lambda x: x * F.max_pool2d(x, (6, 1)))),
)  # fmt: skip

"""Rows of the table of operators that are refused: the message names the layer and a remedy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from docs.tables.operator_rows import Attention, Last, Row, calls, point

REFUSED = (
    Row("`nn.ConvTranspose2d`, with dilation", "",
        lambda: nn.ConvTranspose2d(4, 4, 3, dilation=2)),
    Row("`nn.Upsample`, bilinear by a fraction", "",
        lambda: nn.Upsample(size=(7, 8), mode="bilinear")),
    Row("`nn.Upsample`, bicubic", "", lambda: nn.Upsample(scale_factor=2, mode="bicubic")),
    Row("`torch.mean` over samples", "", calls(lambda x: x.mean(0, keepdim=True) + x)),
    Row("`nn.GroupNorm`", "", lambda: nn.GroupNorm(2, 4)),
    Row("`nn.LayerNorm`", "", lambda: nn.LayerNorm((4, 6, 6))),
    Row("`nn.InstanceNorm2d`", "", lambda: nn.InstanceNorm2d(4)),
    Row("`nn.LocalResponseNorm`", "", lambda: nn.LocalResponseNorm(2)),
    Row("`nn.Softmax`, inside", "", calls(lambda x: F.softmax(x, 1) * 2), "vectors"),
    Row("`nn.LogSoftmax`, inside", "", calls(lambda x: F.log_softmax(x, 1) * 2), "vectors"),
    Row("`nn.MaxPool2d`, wider padding", "", lambda: nn.MaxPool2d(2, 1, 1, 7)),
    Row("`nn.AdaptiveMaxPool2d`, uneven", "", lambda: nn.AdaptiveMaxPool2d(4)),
    Row("`nn.AdaptiveMaxPool1d`, uneven", "", lambda: nn.AdaptiveMaxPool1d(3), "signals"),
    Row("`nn.AvgPool2d`, ceil mode", "", lambda: nn.AvgPool2d(4, 3, ceil_mode=True)),
    Row("`nn.AvgPool2d`, padding not counted", "",
        lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
    Row("`nn.AdaptiveAvgPool2d`, uneven", "", lambda: nn.AdaptiveAvgPool2d(4)),
    Row("`torch.matmul`, `@`", "", calls(lambda x: x @ torch.ones(4, 2)), "vectors"),
    Row("`torch.mm`", "", calls(lambda x: torch.mm(x, torch.ones(4, 2))), "vectors"),
    Row("`torch.einsum`", "",
        calls(lambda x: torch.einsum("nchw,oc->nohw", x, torch.ones(4, 4)))),
    Row("`torch.t`", "", calls(lambda x: x.t()), "vectors"),
    Row("`torch.add` with `alpha`", "", calls(lambda x, y: torch.add(x, y, alpha=2), point)),
    Row("`*`, a constant per pixel", "", calls(lambda x: x * torch.ones(6, 6))),
    Row("`torch.div`, rounding", "",
        calls(lambda x: torch.div(x, 2.0, rounding_mode="floor"))),
    Row("`/` by 0", "", calls(lambda x: x / 0)),
    Row("`torch.sqrt` of negative values", "", calls(lambda x: torch.sqrt(x + 9))),
    Row("`torch.clamp`, bounds that are tensors", "",
        calls(lambda x, y: torch.clamp(x, y), point)),
    Row("`Tensor.double`", "", calls(lambda x: x.double())),
    Row("`nn.MultiheadAttention`", "",
        Attention, "tokens"),
    Row("`nn.TransformerEncoderLayer`", "",
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), "tokens"),
    Row("`F.scaled_dot_product_attention`", "",
        calls(lambda x: F.scaled_dot_product_attention(x, x, x)), "tokens"),
    Row("`nn.GRU`, in an archive of `torch.export`", "",
        lambda: Last(nn.GRU(3, 4, batch_first=True)), "sequences", program=lambda found: found),
    Row("`nn.Conv2d`, behind `run_decompositions()`", "", lambda: nn.Conv2d(3, 4, 3),
        program=lambda found: found.run_decompositions()),
    Row("`nn.Linear`, behind `run_decompositions()`", "", lambda: nn.Linear(6, 4), "vectors",
        program=lambda found: found.run_decompositions()),
)  # fmt: skip

"""Rows of the table of operators that are refused: the message names the layer and a remedy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from docs.tables.operator_rows import Attention, Last, Row, calls, point

REFUSED = (
    Row("`nn.ConvTranspose2d`, with dilation", "",
        lambda: nn.ConvTranspose2d(4, 4, 3, dilation=2)),
    Row("`torch.mean` over samples", "", calls(lambda x: x.mean(0, keepdim=True) + x)),
    Row("`nn.GroupNorm`", "", lambda: nn.GroupNorm(2, 4)),
    Row("`nn.LayerNorm`", "", lambda: nn.LayerNorm((4, 6, 6))),
    Row("`nn.InstanceNorm2d`", "", lambda: nn.InstanceNorm2d(4)),
    Row("`nn.LocalResponseNorm`", "", lambda: nn.LocalResponseNorm(2)),
    Row("`nn.Softmax`, inside", "", calls(lambda x: F.softmax(x, 1) * 2), "vectors"),
    Row("`nn.LogSoftmax`, inside", "", calls(lambda x: F.log_softmax(x, 1) * 2), "vectors"),
    Row("`torch.argmax`, inside", "", calls(lambda x: x * x.argmax(1, keepdim=True))),
    Row("`nn.MaxPool2d`, wider padding", "", lambda: nn.MaxPool2d(2, 1, 1, 7)),
    Row("`torch.matmul`, of two tensors", "", calls(lambda x, y: x @ y, point)),
    Row("`torch.matmul`, of samples", "", calls(lambda x: torch.ones(2, 4) @ x), "vectors"),
    Row("`torch.einsum`, a label twice", "",
        calls(lambda x: torch.einsum("ncii,c->ni", x, torch.ones(4)))),
    Row("`torch.t`, beside what it turns", "", calls(lambda x: x + x.t()), "vectors"),
    Row("`/` by 0", "", calls(lambda x: x / 0)),
    Row("`torch.log` of 0 and less between others", "",
        calls(lambda x: torch.log(x.square() - 1e-12))),
    Row("`torch.hypot`, `pow` of two tensors", "", calls(lambda x, y: torch.hypot(x, y), point)),
    Row("`/` by the size of the batch", "", calls(lambda x: x / x.shape[0])),
    Row("`+`, a constant of too many pixels", "",
        calls(lambda x: F.pad(x, (12, 12, 12, 12)) + torch.arange(3600).sin().view(4, 30, 30))),
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

"""A small CNN for traffic signs."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


class GtsrbNet(nn.Module):
    """Images (batch, 3, 32, 32), 0 to 1 -> logits (batch, classes), 43 signs in GTSRB.

    Three stages of two convolutions with batch norm, max pooling between them, and the mean of the
    last maps.

    Parameters
    ----------
    channels : of the stages
    classes : of signs
    """

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 64), classes: int = 43) -> None:
        super().__init__()
        widths = [3]
        for width in channels:
            widths += [width, width]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1, bias=False) for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = F.relu(norm(conv(x)))
            if index in (1, 3):
                x = F.max_pool2d(x, 2)
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits

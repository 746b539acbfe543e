"""A small model in which channels are tied in all ways that there are."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Tangle(nn.Module):
    """A residual, a depthwise layer, a concatenation and a flattened map: (B, 2, 6, 6) -> 3."""

    def __init__(self, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16, eps=0)
        self.activation = nn.ReLU() if activation is None else activation
        self.b = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.c = nn.Conv2d(16, 8, 1)
        self.d = nn.Conv2d(24, 16, 3, stride=2)
        self.linear = nn.Linear(16 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.norm(self.a(x)))
        x = torch.relu(self.depthwise(x + self.b(x)))
        x = torch.cat([self.c(x), x], dim=1)
        result: Tensor = self.linear(torch.relu(self.d(x)).flatten(1))
        return result

"""Signals (N, C, L): Conv1d and what goes with it, on every layer as PyTorch computes it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur import api
from tests.support.pipeline import build, check_image, compile_for, target

SHAPE = (3, 41)
Tail = Callable[[nn.Module, Tensor], Tensor]


class Signals(nn.Module):
    """Convolutions of all kinds, then ``tail``."""

    def __init__(self, tail: Tail) -> None:
        super().__init__()
        self.wide = nn.Conv1d(3, 12, 5, stride=2, padding=2)
        self.norm = nn.BatchNorm1d(12)
        self.each = nn.Conv1d(12, 12, 3, padding="same", groups=12, bias=False)
        self.pool = nn.MaxPool1d(3, 2, 1, ceil_mode=True)
        self.apart = nn.Conv1d(24, 8, 3, dilation=2)
        self.slopes = nn.PReLU(8)
        self.factors = nn.Parameter(torch.rand(12, 1))
        self.last, self.tail = nn.Linear(8, 4), tail

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.norm(self.wide(x)))
        x = torch.cat([self.factors * x, torch.sigmoid(self.each(x))], 1)
        return self.tail(self, self.slopes(self.apart(F.pad(self.pool(x), (1, 0)))))


def signals(tail: Tail) -> Signals:
    torch.manual_seed(0)
    model = Signals(tail)
    with torch.no_grad():
        model.norm.running_mean.normal_()
        model.norm.running_var.uniform_(0.5, 2.0)
    return model.eval()


TAILS: dict[str, Tail] = {
    "mean": lambda m, x: m.last(x.mean(-1)),
    "mean, kept": lambda m, x: m.last(x.mean(2, keepdim=True).squeeze(-1)),
    "average": lambda m, x: F.avg_pool1d(x, 2).flatten(1),
    "adaptive": lambda m, x: m.last(F.adaptive_avg_pool1d(x, 1).squeeze(-1)),
    "signal": lambda m, x: F.silu(x) + x,
    "maximum": lambda m, x: m.last(F.adaptive_max_pool1d(x, 1).squeeze(-1)),
    "maximum, by amax": lambda m, x: m.last(x.amax(-1)),
    "functions": lambda m, x: F.logsigmoid(F.hardswish(x)),
    "time first": lambda m, x: x.transpose(1, 2),
    "linear per step": lambda m, x: m.last(x.transpose(1, 2)),
    "mean of channels": lambda m, x: x.mean(1),
    "last step": lambda m, x: m.last(x[:, :, -1]),
    "cut behind, as causal layers do": lambda m, x: F.relu(x[:, :, :-2]),
    "both ends": lambda m, x: torch.cat([x, x.relu().flip(2)], 2),
    "cast to what it is": lambda m, x: x.float(),
    "padded by itself": lambda m, x: F.pad(
        F.pad(F.pad(x, (2, 1), "reflect"), (0, 3), "replicate"), (1, 1), "circular"
    ),
}


@pytest.mark.parametrize("name", TAILS)
def test_every_layer(name: str) -> None:
    model = signals(TAILS[name])
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(3))
    built = build(model, x)
    for n, p in ((8, 8), (4, 3)):
        to = target(n, p)
        image = compile_for(built, to)
        assert check_image(built, image, to.geometry) > 0
        values = torch.from_numpy(api.run(image, x.numpy()).values)
        assert torch.equal(values, built.graph(x))
        assert values.shape == model(x).shape

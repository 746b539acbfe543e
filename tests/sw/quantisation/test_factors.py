"""A factor of a product has a scale that serves the product."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.quantisation.prepare import quantize
from tests.support.pipeline import build, check_image, compile_for, target


class Between(nn.Module):
    """A function of what a convolution without biases computes: zeros of zeros."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.function = nn.Conv2d(3, 8, 1, bias=False), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(torch.relu(self.conv(x)))


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "normalize": lambda x: F.normalize(x, dim=1),
    "divided": lambda x: x / x.sum(1, keepdim=True).clamp(min=1e-6),
    "root": lambda x: x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-9),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_that_meet_zeros_take_no_bits(name: str) -> None:
    """A third of the pixels are zero, and have the largest factor by far."""
    model, x = Between(FUNCTIONS[name]), torch.randn(16, 3, 6, 6)
    x[:, :, :2] = 0
    built = build(model, x)
    with torch.no_grad():
        wanted, found = model(x), built.graph(x)
    noise = float((wanted - found).square().sum() / wanted.square().sum())
    assert 10 * torch.log10(torch.tensor(noise)) < -15
    image = compile_for(built, target(4, 2))
    check_image(built, image, image.geometry)


def clamps(function: Callable[[Tensor], Tensor]) -> int:
    """How many functions the quantised graph clips."""
    graph = quantize(Between(function).eval(), torch.randn(16, 3, 6, 6))
    return sum(node.target is torch.ops.aten.clamp.default for node in graph.graph.nodes)


def test_other_factors_stay() -> None:
    assert clamps(lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True))) == 0
    assert clamps(lambda x: x * torch.tanh(x.flip(1))) == 0
    assert clamps(lambda x: x * torch.exp(-1000 * x.flip(1))) == 0

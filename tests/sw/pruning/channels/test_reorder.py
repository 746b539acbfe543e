"""Filters that move: the model computes what it computed, in the order that was asked for."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.pruning import prune
from secateur.pruning.channels.reorder import reorder
from tests.sw.compiler.tangle import Tangle

X = torch.arange(2 * 2 * 36).reshape(2, 2, 6, 6).remainder(5).double()


def slopes() -> Tangle:
    """In float64, norm and slopes differ by channel."""
    torch.manual_seed(0)
    model = Tangle(nn.PReLU(16)).double().eval()
    with torch.no_grad():
        for tensor in (*model.norm.parameters(), *model.norm.buffers(), model.activation.weight):
            if tensor.dim():
                tensor.uniform_(0.5, 1.5)
    return model


TIED, C, D = (np.random.default_rng(0).permutation(n).tolist() for n in (16, 8, 16))
ORDERS = {"a": TIED, "b": TIED, "depthwise": TIED, "c": C, "d": D}


def test_the_model_computes_what_it_computed() -> None:
    model = slopes()
    old = copy.deepcopy(model)
    reorder(model, X, ORDERS)
    with torch.no_grad():
        torch.testing.assert_close(model(X), old(X), rtol=1e-12, atol=1e-12)
    assert torch.equal(model.a.weight, old.a.weight[TIED])
    assert torch.equal(model.a.bias, old.a.bias[TIED])
    assert torch.equal(model.norm.running_var, old.norm.running_var[TIED])
    assert torch.equal(model.activation.weight, old.activation.weight[TIED])
    assert torch.equal(model.b.weight, old.b.weight[TIED][:, TIED])
    assert torch.equal(model.depthwise.weight, old.depthwise.weight[TIED])
    assert torch.equal(model.c.weight, old.c.weight[C][:, TIED])
    inputs = [*C, *(8 + k for k in TIED)]
    assert torch.equal(model.d.weight, old.d.weight[D][:, inputs])
    flat = [4 * k + pixel for k in D for pixel in range(4)]
    assert torch.equal(model.linear.weight, old.linear.weight[:, flat])
    assert torch.equal(model.linear.bias, old.linear.bias)


def test_a_part_moves_and_results_stay() -> None:
    """``c`` alone; the result of ``linear`` is not moved, whatever is asked for."""
    model = slopes()
    old = copy.deepcopy(model)
    reorder(model, X, {"c": C, "linear": [2, 0, 1]})
    with torch.no_grad():
        torch.testing.assert_close(model(X), old(X), rtol=1e-12, atol=1e-12)
    assert torch.equal(model.c.weight, old.c.weight[C])
    assert torch.equal(model.a.weight, old.a.weight)


class Normed(nn.Module):
    """Groups of channels, which must stay together."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(2, 6, 1), nn.GroupNorm(2, 6)
        self.b = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.b(self.norm(self.a(x)))
        return result


class OneSlope(nn.Module):
    """Torch-Pruning stops at a concatenation behind one slope for all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.slope = nn.Conv2d(2, 6, 1), nn.PReLU()
        self.b = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.b(torch.cat([self.slope(self.a(x)), x], 1))
        return result


class AddsItsInput(nn.Module):
    """Channels of the input cannot move, so none of ``a`` may; a faint input does not show it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.b(torch.relu(self.a(x)) + x)
        return result


@pytest.mark.parametrize("size", [0.0, 1e-6, 1.0])
def test_no_example_hides_that_a_model_changed(size: float) -> None:
    torch.manual_seed(0)
    model = AddsItsInput()
    x = torch.rand(1, 2, 4, 4) * size
    with pytest.raises(SecateurError, match="outputs of the model change"):
        reorder(model, x, {"a": [1, 0]})


class Split(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.a(x).chunk(2, 1)
        result: Tensor = self.b(one * other)
        return result


def test_refusals_leave_the_model_as_it_was() -> None:
    model, masked = slopes(), slopes()
    prune(masked, density=0.5, n=2)
    for wrong, orders, message in (
        (
            model,
            {"a": TIED, "b": list(range(16))},
            "'b', 'a' share 16 channels: give them one",
        ),
        (model, {"c": [*range(7), 6]}, "'c' share 8 channels: .* a permutation"),
        (model, {"c": [0, 1, 2]}, "'c' share 8 channels: .* a permutation"),
        (Normed().double(), {"a": [5, 4, 3, 2, 1, 0]}, r"GroupNorm\(.*cannot be reordered"),
        (
            OneSlope().double(),
            {"a": [5, 4, 3, 2, 1, 0]},
            "followed; Torch-Pruning says: unsup",
        ),
        (model, {"e": C}, "no layer 'e' with channels"),
        (Split().double(), {"a": [1, 0, 3, 2]}, "filters that the model splits cannot move"),
        (masked, {"c": C}, "has a mask: channels come first"),
    ):
        before = copy.deepcopy(wrong.state_dict())
        with pytest.raises(SecateurError, match=message):
            reorder(wrong, X, orders)
        assert all(torch.equal(before[name], value) for name, value in wrong.state_dict().items())

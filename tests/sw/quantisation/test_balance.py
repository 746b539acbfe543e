"""Factors of stored tensors: the function stays, and the values fill their codes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from secateur import api, quantize
from secateur.agreement import check_image
from secateur.canonical.rewrite import canonicalise
from secateur.capture.export import export
from secateur.capture.ports import inputs_of
from secateur.fx.graph import PRODUCTS, constant, is_call
from secateur.quantisation.annotate import SecateurQuantizer
from secateur.quantisation.balance.balance import balance, to_units
from secateur.quantisation.balance.layers import FloatLayers
from secateur.quantisation.balance.ties import Ties
from tests.support.networks import random_input, random_network


class Gate(nn.Module):
    """Squeeze and excitation, a concatenation of unlike ranges, and a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.gate, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.hardtanh(self.first(x), -0.4, 0.7)
        gate = torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        y = nn.functional.silu(self.second(x * gate) + x)
        return self.last(torch.cat([y, 100 * torch.relu(self.second(y))], 1))


def _balanced(model: nn.Module, x: Tensor) -> tuple[GraphModule, GraphModule]:
    graph = canonicalise(export(model.eval(), x))
    before = copy.deepcopy(graph)
    balanced = balance(graph, SecateurQuantizer(unsigned=list(inputs_of(graph))), [[[x]]])
    to_units(graph, balanced.inverse)
    return before, graph


@pytest.mark.parametrize("seed", [0, 1, 7, 10, "gate"])
def test_the_function_stays(seed: Any) -> None:
    torch.manual_seed(0)
    if seed == "gate":
        model, x = Gate(), torch.rand(8, 3, 6, 6)
    else:
        model, shape = random_network(seed)
        x = random_input(seed, shape, 8).abs()
    before, after = _balanced(model, x)
    with torch.no_grad():
        expected, found = before(x), after(x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    again = canonicalise(copy.deepcopy(after))  # what PT2E's preparation does
    assert len(FloatLayers(again).layers) == len(FloatLayers(before).layers)


def test_factors_are_used() -> None:
    """Values a little beyond a power of two would waste half of their codes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(8, 3).reshape(8, 3, 1, 1) * 1.4)
    x = torch.rand(64, 3, 8, 8)
    _, after = _balanced(model, x)
    first = next(n for n in after.graph.nodes if is_call(n, *PRODUCTS))
    peak = float(constant(after, first.args[1]).max())
    # From 0 to 1.4 become nearly all of 0 to 2, or of 0 to 1.
    assert 0.85 < peak / 2 ** np.ceil(np.log2(peak)) <= 1.05


def test_ties() -> None:
    """What is added has one factor; that of a product is the product of both."""
    before, _ = _balanced(Gate(), torch.rand(2, 3, 6, 6))
    layers = FloatLayers(before)
    ties = Ties(layers)
    for layer in layers.layers:
        end = ties.sum(layer.end)
        for term in layer.terms:
            assert all(ties.sum(part) == end for part in layers.parts(term))
        if layer.factors:
            first, second = (ties.sum(layers.parts(f)[0]) for f in layer.factors)
            assert end == first + second
            assert end
    inputs = [node for node in layers.stored if node.op == "placeholder"]
    assert inputs
    assert not any(ties.sum(node) for node in inputs)


def test_parts_of_a_concatenation_keep_their_bits() -> None:
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.box, self.score, self.last = (nn.Conv2d(3, 4, 1) for _ in range(3))
            self.last = nn.Conv2d(8, 8, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            boxes = 160 * torch.relu(self.box(x))
            return self.last(torch.cat([boxes, torch.sigmoid(self.score(x))], 1))

    torch.manual_seed(0)
    model, x = Scores().eval(), torch.rand(32, 3, 6, 6)
    with torch.no_grad():
        # Of the scores alone; the output's scale is that of all channels.
        model.last.weight.zero_()
        model.last.weight[:, 4:] = torch.randn(8, 4, 1, 1)
        graph = quantize(model, x)
        expected, found = model(x), graph(x)
    noise = float(((found - expected) ** 2).mean() / expected.var())
    assert 10 * np.log10(noise) < -20


class Written(nn.Module):
    """A map of which a channel is set to a number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x)).clone()
        x[:, 0] = self.value
        return self.last(x)


class Beside(nn.Module):
    """Two maps of unlike ranges, of which the second is made in phases, and zeros, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 2, 2)
        self.up, self.last = nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(18, 4, 1)
        with torch.no_grad():
            self.last.weight[:, 8:16] /= 200
            self.last.weight[:, 16:] *= 1000

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(torch.cat([x, 200 * self.up(self.down(x)), torch.zeros_like(x[:, :2])], 1))


@pytest.mark.parametrize("kind", [lambda: Written(0.0), lambda: Written(0.4), Beside])
def test_constants_and_neighbours_cost_no_bits(kind: Callable[[], nn.Module]) -> None:
    """Each part has a factor of its own, and weights that only zeros meet do not matter."""
    torch.manual_seed(0)
    model, x = kind().eval(), torch.rand(32, 3, 6, 6)
    graph = quantize(model, x)
    check_image(api.compile(graph, target="8x8"), graph, x[:2])
    with torch.no_grad():
        expected, found = model(x), graph(x)
    noise = float(((found - expected) ** 2).mean() / expected.var())
    assert 10 * np.log10(noise) < -30

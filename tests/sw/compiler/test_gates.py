"""Gates that read the same are one layer, in which each row names its table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secateur import agreement, api
from secateur.capture.recurrent import decompose
from secateur.hw.ring import Source
from secateur.hw.spec import Geometry
from secateur.image.decode import decode
from secateur.pruning import prune
from secateur.pruning.budget.costing import CostModel
from secateur.quantisation.prepare import quantize
from secateur.report import figures
from secateur.report.figures.blocks import weights_of
from secateur.report.summary import summary
from secateur.target import Target
from tests.support.pipeline import Built, build, check_image, compile_for

SMALL = Target(name="made", geometry=Geometry(n=4, p=3, s=2, weight_words=8192, bank_words=128))
ROOMY = Target(name="made", geometry=Geometry(n=8, p=8, s=8, weight_words=1 << 16, bank_words=1024))


class Lstm(nn.Module):
    """An LSTM, or a layer of its kind, and a linear one."""

    def __init__(self, inputs: int = 28, hidden: int = 20, kind: type[nn.Module] = nn.LSTM) -> None:
        super().__init__()
        self.inner, self.last = kind(inputs, hidden, batch_first=True), nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(x)[0])


class Kept(nn.Module):
    """A vector that a product reads, and then a sum, value by value."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(9, 35), nn.Linear(35, 35)

    def forward(self, x: Tensor) -> Tensor:
        kept = torch.relu(self.a(x))
        return kept + torch.relu(self.b(kept))


class Gated(nn.Module):
    """Two gates of one input; with ``broad``, a product reads one of them, too."""

    def __init__(self, broad: bool) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(9, 11), nn.Linear(9, 11), nn.Linear(11, 4)
        self.broad = broad

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.sigmoid(self.a(x)), torch.tanh(self.b(x))
        return a * b + self.last(a).sum(1, keepdim=True) if self.broad else a * b


def without(target: Target, tables: int) -> Target:
    return replace(target, geometry=replace(target.geometry, tables=tables))


def members(built: Built, target: Target) -> list[list[str]]:
    """Names of the gates of every joined layer, which computes what PyTorch computes."""
    image = compile_for(built, target)
    check_image(built, image, target.geometry)
    layers: list[dict[str, Any]] = image.metadata["layers"]
    return [[each["name"] for each in layer["members"]] for layer in layers if "members" in layer]


@pytest.fixture(scope="module")
def lstm() -> Built:
    torch.manual_seed(0)
    return build(Lstm(), torch.randn(4, 5, 28))


def test_four_gates_are_one_layer(lstm: Built) -> None:
    (gates,) = members(lstm, ROOMY)
    assert [name.rpartition(".")[2] for name in gates] == [
        "input_h", "forget_h", "output_h", "cell_h"
    ]  # fmt: skip
    found = summary(compile_for(lstm, ROOMY))
    assert found["cycles"] <= 450
    # One layer of 12 rows in two groups of 8 of 48 words, in place of four of a group each.
    assert found["layers"][0]["cycles"] == 11 + 2 * (2 + 48)


def test_compile_compares_every_gate_with_pytorch(lstm: Built) -> None:
    image = compile_for(lstm, ROOMY)
    compared = agreement.check_image(image, lstm.graph, lstm.x, lstm.network)
    assert compared == 4 * 5 * len(lstm.network.layers)
    names = [name for name, _ in api.layer_codes(image, lstm.x.numpy())]
    assert sorted(names) == sorted(layer.name for layer in lstm.network.layers)


def test_a_report_shows_the_weights_of_all_gates(lstm: Built) -> None:
    image = compile_for(lstm, ROOMY)
    name = image.metadata["layers"][0]["name"]
    assert name.endswith(".input_h+3")
    shapes = {weights.layer: weights.shape for weights in decode(image, apart=False)[:1]}
    assert shapes == {name: (80, 28, 1, 1)}
    assert weights_of(image, 0).shape == (80, 28, 1, 1)
    codes = np.ones(256, np.int64)
    assert "scales of their own" in figures.activations(image, 0, {"pruned": codes}).text


def test_parts_of_the_tensor_have_scales_of_their_own(lstm: Built) -> None:
    tensors = compile_for(lstm, ROOMY).metadata["tensors"]
    (joined,) = [tensor["joined"] for tensor in tensors if "joined" in tensor]
    assert [part["signed"] for part in joined] == [False, False, False, True]
    assert [part["channels"] for part in joined] == [20] * 4


def test_a_target_of_too_few_tables_has_a_layer_for_each(lstm: Built) -> None:
    needed = compile_for(lstm, ROOMY).tables
    assert needed > 2
    assert len(members(lstm, without(ROOMY, needed))) == 1
    for tables in (needed - 1, 1):
        assert members(lstm, without(ROOMY, tables)) == []


@pytest.mark.parametrize("broad", [False, True])
def test_a_gate_that_a_product_reads_stays_alone(broad: bool) -> None:
    torch.manual_seed(0)
    built = build(Gated(broad), torch.randn(6, 9))
    assert members(built, ROOMY) == ([] if broad else [["a", "b"]])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_in_verilator(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    graph = quantize(Lstm(5, 11, kind).eval(), torch.randn(4, 5, 5))
    image = api.compile(graph, target=SMALL)
    assert any("members" in layer for layer in image.metadata["layers"])
    result = api.simulate(image, torch.randn(2, 4, 5).numpy())
    assert result.mismatches == []
    assert result.layers_compared == 2 * 4 * len(image.metadata["layers"])


@pytest.mark.long
def test_from_a_ring_as_from_memory() -> None:
    """In filter lanes, in Verilator: `pytest -m long tests/sw/compiler/test_gates.py`."""
    torch.manual_seed(0)
    graph = quantize(Lstm(5, 11).eval(), torch.randn(4, 5, 5))
    small = replace(SMALL, geometry=replace(SMALL.geometry, ring=256), source=Source())
    on_chip, image = (api.compile(graph, target=target) for target in (SMALL, small))
    assert image.stream == on_chip.stream
    assert any("members" in layer for layer in image.metadata["layers"])
    result = api.simulate(image, torch.randn(2, 4, 5).numpy())
    assert result.mismatches == []
    assert result.cycles == on_chip.cycles


def test_filter_lanes_step_to_their_words() -> None:
    """What a product has read is one map for all lanes, which each finds its own words in."""
    torch.manual_seed(0)
    built = build(Kept(), torch.randn(6, 9))
    for target in (ROOMY, SMALL):
        image = compile_for(built, target)
        check_image(built, image, target.geometry)
        deals = [layer["deal"] for layer in image.metadata["layers"]]
        assert deals == ["filters"] * len(deals)


def test_the_pruner_costs_joined_gates_as_they_are_compiled() -> None:
    torch.manual_seed(0)
    model, x = decompose(Lstm(16, 24).eval()), torch.randn(4, 5, 16)
    costs = CostModel(model, x, ROOMY)
    gates = {name: costs.sources[name][0] for name in costs.alive if "cells.0" in name}
    assert len({place.layer for place in gates.values()}) == 1
    assert sorted({place.first for place in gates.values()}) == [0, 24, 48, 72]
    prune(model, density=0.3, n=8)
    restricted = CostModel(model, x, ROOMY)
    image = compile_for(build(model, x), ROOMY)
    cost = costs.cost(restricted.alive)
    # Registers that training changes are counted as written: a word or two for each layer.
    layers = len(image.metadata["layers"])
    assert 0 <= cost.cycles - image.metadata["cycles"] <= 3 * layers
    assert costs.cost(costs.alive).cycles > cost.cycles

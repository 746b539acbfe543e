"""Lowered networks compute, bit for bit, what stock PyTorch computes from the converted graph."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch.fx import GraphModule

from secateur.ir import Network
from secateur.lowering.lower import lower
from secateur.lowering.reference import reference
from secateur.quantisation.prepare import finalize, prepare, quantize
from tests.support.long import quick
from tests.support.networks import random_input, random_network, resnet8
from tests.sw.lowering.naive_layers import evaluate

PLAIN = range(50)
TRAINED = range(100, 110)


@functools.cache
def quantised(seed: int) -> GraphModule:
    """A random network after calibration; not to be changed."""
    model, shape = random_network(seed)
    return quantize(model, random_input(seed, shape, 6))


def check(graph: GraphModule, x: torch.Tensor) -> Network:
    """Every layer's codes, and the output's values, from integers alone."""
    network = lower(graph)
    expected = reference(graph, x, network)
    found = evaluate(network, expected[network.given[0].name])
    for layer in network.layers:
        if layer.kind != "copy":  # a copy stands for no layer of the model
            np.testing.assert_array_equal(found[layer.name], expected[layer.name], layer.name)
    last = network.layers[-1]
    assert last.output is network.results[0]
    (port,) = network.outputs
    values = np.ldexp(found[last.name], port.tensor.exponent).reshape(-1, *port.shape)
    values = values.astype(np.float32) * port.factors
    with torch.no_grad(), torch.backends.nnpack.flags(enabled=False):
        np.testing.assert_array_equal(values, graph(x).numpy())
    return network


@pytest.mark.parametrize("seed", quick(PLAIN, PLAIN[:20]))
def test_random_network(seed: int) -> None:
    _, shape = random_network(seed)
    network = check(quantised(seed), random_input(seed + 1000, shape, 3))
    assert network.given[0].signed == (seed % 2 == 1)


@pytest.mark.long
def test_random_networks_cover_everything() -> None:
    """The generator reaches every kind of layer and source; else the tests above prove little."""
    kinds, modes, facts = set(), set(), set()
    for seed in PLAIN:
        network = lower(quantised(seed))
        for layer in network.layers:
            kinds.add(layer.kind)
            modes.add(tuple(s.mode for s in layer.sources))
            for s in layer.sources:
                facts |= {"wshift"} if s.wshift else set()
                facts |= {"dilation"} if s.dilation != (1, 1) else set()
                facts |= {"asymmetric"} if s.padding[:2] != s.padding[2:] else set()
                facts |= {"slice"} if s.first else set()
                facts |= {f"stride {max(s.stride)}"}
            facts |= {"signed"} if layer.output.signed else {"unsigned"}
            facts |= {"shifts differ"} if np.ptp(layer.shift) else set()
            facts |= {"concatenation"} if layer.first else set()
            facts |= {"table"} if layer.table is not None else set()
    wanted = {"conv", "depthwise", "linear", "add", "mul", "avgpool", "maxpool", "table"}
    assert kinds == wanted
    assert ("gate", "lanewise") in modes
    assert {("broadcast",), ("lanewise",), ("maximum",)} <= modes
    assert {("broadcast", "broadcast"), ("broadcast", "lanewise"), ("lanewise",) * 2} <= modes
    assert facts >= {"wshift", "dilation", "asymmetric", "signed", "unsigned", "shifts differ"}
    assert facts >= {"concatenation", "slice", "stride 0", "stride 4", "table"}


@pytest.mark.parametrize("seed", TRAINED)
def test_after_training(seed: int) -> None:
    model, shape = random_network(seed)
    x = random_input(seed, shape, 8)

    def train(prepared: GraphModule) -> None:
        prepared.train()
        optimiser = torch.optim.Adam(prepared.parameters(), lr=3e-3)
        for _ in range(4):
            optimiser.zero_grad()
            prepared(x).square().mean().backward()
            optimiser.step()

    check(quantize(model, x, qat=train), random_input(seed + 1000, shape, 3))


@pytest.mark.parametrize("seed", [0, 3, 7, 10, 16])
def test_saved_and_loaded(seed: int, tmp_path: object) -> None:
    _, shape = random_network(seed)
    graph = quantised(seed)
    x = random_input(seed + 1000, shape, 3)
    path = f"{tmp_path}/quantised.pt2"
    torch.export.save(torch.export.export(graph, (x,)), path)
    loaded = torch.export.load(path)
    again = check(loaded.module(), x)  # type: ignore[arg-type]
    once = lower(graph)
    assert len(again.layers) == len(once.layers)
    for a, b in zip(again.layers, once.layers, strict=True):
        assert (a.kind, a.low, a.high) == (b.kind, b.low, b.high)
        np.testing.assert_array_equal(a.bias, b.bias)
        np.testing.assert_array_equal(a.shift, b.shift)
        for s, t in zip(a.sources, b.sources, strict=True):
            np.testing.assert_array_equal(s.weight, t.weight)
    assert lower(loaded).source_hash == again.source_hash


def test_extreme_inputs_stay_exact() -> None:
    """Saturated inputs reach the largest sums; the proof must hold for them in float32."""
    for seed in range(8):
        _, shape = random_network(seed)
        check(quantised(seed), random_input(seed, shape, 3) * 1e6)


def test_resnet8_layers() -> None:
    model, shape = resnet8(1)
    network = check(quantize(model, random_input(0, shape, 8)), random_input(4, shape, 16))
    assert [layer.kind for layer in network.layers] == ["conv"] * 7 + ["avgpool", "linear"]
    modes = [[s.mode for s in layer.sources] for layer in network.layers]
    assert modes[2] == ["broadcast", "lanewise"]
    assert modes[4] == modes[6] == ["broadcast", "broadcast"]
    assert network.outputs[0].shape == (10,)
    assert network.layers[3].sources[0].padding == (0, 0, 1, 1)


def test_source_hash_follows_weights() -> None:
    model, shape = random_network(3)
    x = random_input(3, shape, 4)
    first = lower(quantize(model, x)).source_hash
    assert first == lower(quantize(model, x)).source_hash
    with torch.no_grad():
        next(p for p in model.parameters() if p.dim() > 1).mul_(1.5)
    assert first != lower(quantize(model, x)).source_hash


def test_prepare_and_finalize_are_the_pieces_of_quantize() -> None:
    model, shape = random_network(5)
    x = random_input(5, shape, 4)
    pieces = finalize(prepare(model, x))
    assert lower(pieces).source_hash == lower(quantize(model, x)).source_hash

"""The figures that README states for ResNet-8 on 8 x 8."""

from __future__ import annotations

import os

import pytest

from docs.tables.networks import TARGET, build_resnet8
from secateur import api
from secateur.image import host
from secateur.image.image import Image
from secateur.report.summary import summary
from secateur.sim import golden
from secateur.sim.simulate import build as build_simulator
from secateur.sim.simulate import compare, simulate
from tests.support.pipeline import Built, check_image, compile_for


@pytest.fixture(scope="module")
def dense() -> tuple[Built, Image]:
    built = build_resnet8(1.0)
    return built, compile_for(built, TARGET)


@pytest.fixture(scope="module")
def pruned() -> tuple[Built, Image]:
    built = build_resnet8(0.25)
    return built, compile_for(built, TARGET)


def test_every_layer_is_exact(dense: tuple[Built, Image], pruned: tuple[Built, Image]) -> None:
    for built, image in (dense, pruned):
        assert check_image(built, image, TARGET.geometry) > 100_000


def test_cycles(dense: tuple[Built, Image], pruned: tuple[Built, Image]) -> None:
    before, after = summary(dense[1]), summary(pruned[1])
    assert before["cycles"] <= 205_000
    assert after["cycles"] <= 58_000
    assert before["cycles"] >= 3.5 * after["cycles"]
    # Pruning changes scales, and with them a few configuration and residual words.
    assert after["cycles_dense"] == pytest.approx(before["cycles"], rel=1e-3)
    layers = [layer for layer in after["layers"] if layer["kind"] == "conv"]
    assert len(layers) == 7
    bound = sum(layer["bound_cycles"] for layer in layers)
    assert bound >= 0.9 * sum(layer["cycles"] for layer in layers)


def test_bits_of_stream(pruned: tuple[Built, Image]) -> None:
    found = summary(pruned[1])
    assert found["dense_weights"] == 77_360
    assert found["stream_bits"] == len(pruned[1].stream) * 8
    assert found["stream_bits"] <= 2.5 * found["dense_weights"]


@pytest.mark.long
def test_compile_and_simulate_take_seconds(pruned: tuple[Built, Image]) -> None:
    """Of the processor, the simulator's among them."""
    built, image = pruned
    build_simulator(TARGET.geometry)
    for work, most in (
        (lambda: compile_for(built, TARGET), 10),
        (lambda: api.simulate(image, built.x[:2].numpy()), 20),
    ):
        began = sum(os.times()[:4])
        work()
        assert sum(os.times()[:4]) - began < most


def test_verilator(pruned: tuple[Built, Image]) -> None:
    built, image = pruned
    meta = image.metadata["inputs"][0]
    packed = host.pack(host.to_codes(built.x[:2].numpy(), meta), meta, image.n)
    expected = golden.run(golden.parse(image.stream, TARGET.geometry), packed, sequential=True)
    result = simulate(image.stream, packed, TARGET.geometry)
    compared = compare(result, expected, packed)
    assert compared.mismatches == []
    assert compared.layers_compared == 2 * len(image.metadata["layers"])
    assert result.cycles == [image.metadata["cycles"]] * 2

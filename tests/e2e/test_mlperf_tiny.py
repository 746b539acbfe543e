"""The four networks of MLPerf Tiny with random weights: exact on every layer, within their cycles.

Dense, and at a quarter of the blocks of all layers that are worth pruning (open division).
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import secateur
from docs.tables.larger_boards import wide_resnet
from docs.tables.networks import ROOMY
from secateur.hw.ring import Source
from secateur.models import DSCNN, Autoencoder, MobileNetV1, ResNet8
from secateur.report.summary import summary
from secateur.target import Target
from tests.support.networks import mlperf_tiny
from tests.support.pipeline import build, check_image, compile_for


@pytest.mark.parametrize(
    ("kind", "dense", "quarter"),
    [
        (ResNet8, 196_270, 54_959),
        (DSCNN, 42_500, 18_600),
        (MobileNetV1, 128_000, 54_000),
        (Autoencoder, 5_000, 1_800),
    ],
)
@pytest.mark.parametrize("density", [1.0, 0.25])
def test_exact_and_within_its_cycles(
    kind: type[nn.Module], dense: int, quarter: int, density: float
) -> None:
    model, shape = mlperf_tiny(kind, density)
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
    built = build(model, x)
    image = compile_for(built, ROOMY)
    assert summary(image)["cycles"] <= (dense if density == 1 else quarter)
    assert check_image(built, image, ROOMY.geometry) > 0


@pytest.mark.long
@pytest.mark.parametrize("kind", [ResNet8, DSCNN, MobileNetV1, Autoencoder])
@pytest.mark.parametrize("density", [1.0, 0.25])
def test_the_same_in_verilator(kind: type[nn.Module], density: float) -> None:
    model, shape = mlperf_tiny(kind, density)
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
    image = compile_for(build(model, x), ROOMY)
    result = secateur.simulate(image, x[:1].numpy())
    assert result.mismatches == []
    assert result.layers_compared == len(image.metadata["layers"])
    assert result.cycles == result.predicted_cycles == image.metadata["cycles"]


@pytest.mark.long
@pytest.mark.parametrize("kind", [ResNet8, DSCNN, MobileNetV1, Autoencoder])
@pytest.mark.parametrize("s", [1, 8])
def test_the_same_from_a_ring(kind: type[nn.Module], s: int) -> None:
    """With pixel lanes the very image; in every case the waits that were predicted."""
    model, shape = mlperf_tiny(kind, 1.0)
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
    built = build(model, x)
    on_chip = replace(ROOMY, geometry=replace(ROOMY.geometry, s=s))
    small = replace(on_chip, geometry=replace(on_chip.geometry, ring=2048), source=Source())
    image = compile_for(built, small)
    if s == 1:
        assert image.stream == compile_for(built, on_chip).stream
    result = secateur.simulate(image, x.numpy())
    assert result.mismatches == []
    assert result.cycles == result.predicted_cycles == image.metadata["cycles"]
    waits = summary(image)["ring"]["memory_wait"]
    assert result.memory_wait >= waits["full"]


@pytest.mark.long
@pytest.mark.parametrize("density", [1.0, 0.25])
def test_a_wide_resnet_at_the_pace_of_a_flash(density: float) -> None:
    """76.5 million multiply-accumulates, on the engine for the LFE5U-85F."""
    model, shape = wide_resnet(density)
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
    built, target = build(model, x), Target.load("8x16-flash")
    image = compile_for(built, target)
    assert check_image(built, image, target.geometry) > 0
    result = secateur.simulate(image, x[:1].numpy())
    assert result.mismatches == []
    assert result.cycles == result.predicted_cycles == image.metadata["cycles"]
    assert result.memory_wait == result.predicted_memory_wait
    assert result.memory_wait == summary(image)["ring"]["memory_wait"]["full"]

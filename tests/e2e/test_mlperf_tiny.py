"""The four networks of MLPerf Tiny with random weights: exact on every layer, within their cycles.

Dense, and at a quarter of the blocks of all layers that are worth pruning (open division).
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import secateur
from docs.tables.networks import ROOMY
from secateur.models import DSCNN, Autoencoder, MobileNetV1, ResNet8
from secateur.report.summary import summary
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

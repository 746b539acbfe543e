"""Calibration data and models that the quantiser refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from secateur.canonical.rewrite import canonicalise
from secateur.errors import SecateurError
from secateur.quantisation.prepare import finalize, prepare, quantize
from tests.support.networks import random_input

MAPS = (4, 8, 8)


def test_unusable_calibration() -> None:
    model, x = nn.Conv2d(4, 4, 3), random_input(1, MAPS, 4)
    for data, message in (
        (x[:0], "no samples"),
        ([], "no samples"),
        (x.long(), "torch.int64 data; give floats"),
        (x.numpy(), "give a torch tensor .*, not ndarray"),
        (x / 0, "infinite or NaN"),
        ([x, x[:, :3]], r"samples of shape \(3, 8, 8\), the model takes \(4, 8, 8\)"),
    ):
        with pytest.raises(SecateurError, match=message):
            quantize(model, data)


def test_uncalibrated_graph_is_not_converted() -> None:
    prepared = prepare(nn.Conv2d(4, 4, 3), random_input(1, MAPS, 4))
    for module in prepared.modules():
        if hasattr(module, "histogram"):
            module.histogram.zero_()
            module.exponent = torch.zeros(0, dtype=torch.int32)
    with pytest.raises(SecateurError, match="not calibrated; run inputs through it first"):
        finalize(prepared)


def test_calibration_in_double_precision_is_rounded() -> None:
    model, x = nn.Conv2d(4, 4, 3), random_input(1, MAPS, 4)
    assert torch.equal(quantize(model, x.double())(x), quantize(model, x)(x))


def test_batches_of_a_model_that_has_a_size_of_its_own() -> None:
    class Five(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(12, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x.view(5, 12))

    torch.manual_seed(0)
    x = torch.randn(100, 12)
    model = Five()
    graph = quantize(model, list(x.split(5)))
    with torch.no_grad():
        error = (graph(x[:5]) - model(x[:5])).abs().max()
    assert error < 0.05


def test_names_that_a_graph_cannot_have() -> None:
    x = random_input(1, MAPS, 4)
    named = nn.Sequential()
    named.add_module('a"b', nn.Conv2d(4, 4, 3))
    with pytest.raises(SecateurError, match="rename it"):
        quantize(named, x)


def test_models_that_are_not_finite() -> None:
    x = random_input(1, MAPS, 4)
    model = nn.Conv2d(4, 4, 3)
    with torch.no_grad():
        model.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(SecateurError, match="computes infinite or NaN values; check its weights"):
        quantize(model, x)

    with torch.no_grad():  # finite, but beyond the last power of two of float32
        model.weight.fill_(0).view(4, -1)[:, 0] = 1.5 * 2.0**127
    with pytest.raises(SecateurError, match=r"computes values of [0-9.e+]+; check its weights"):
        quantize(model, torch.ones_like(x))

    def diverge(prepared: GraphModule) -> None:
        with torch.no_grad():
            next(p for p in prepared.parameters() if p.dim() == 4).fill_(float("inf"))

    with pytest.raises(SecateurError, match="a weight is infinite or NaN; train with a lower rate"):
        quantize(nn.Conv2d(4, 4, 3), x, qat=diverge)


@pytest.mark.parametrize("factor", [1.05, float("nan")])
def test_a_rewrite_that_changes_values_is_found(
    factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(graph: GraphModule) -> GraphModule:
        rewritten = canonicalise(graph)
        next(rewritten.parameters()).data[0] *= factor
        return rewritten

    monkeypatch.setattr("secateur.quantisation.prepare.canonicalise", wrong)
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), random_input(1, (3, 8, 8), 4)
    with pytest.raises(SecateurError, match=r"differ by .* from its own"):
        quantize(model.eval(), x)

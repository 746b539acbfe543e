"""Weights rounded by the error of their sums, and biases without mean error."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import nn

from secateur import quantize
from secateur.capture.steps import Sequence
from secateur.fx.graph import LINEAR, is_call
from secateur.lowering.lower import lower
from secateur.quantisation.gptq import round_weights
from secateur.quantisation.prepare import finalize, prepare


def test_rounding_without_correlation_is_to_the_nearest() -> None:
    torch.manual_seed(0)
    weights = torch.randn(2, 5, 7, dtype=torch.float64)
    scales = torch.full((2, 5), 2.0**-4, dtype=torch.float64)
    moments = torch.diag_embed(torch.rand(2, 7, dtype=torch.float64) + 0.1)
    found = round_weights(weights, scales, moments, (-127, 127))
    assert torch.equal(found, (weights * 16).round() / 16)


def test_rounding_by_error() -> None:
    """On the grid, within the codes, zeros are kept; sums of correlated inputs have less error."""
    torch.manual_seed(1)
    weights = torch.randn(1, 16, 1100, dtype=torch.float64)
    weights[:, :, 4:8] = 0
    scales = torch.full((1, 16), 2.0**-3, dtype=torch.float64)
    x = torch.rand(512, 1100, dtype=torch.float64)
    moments = (x.mT @ x / len(x))[None]
    found = round_weights(weights, scales, moments, (-12, 11))
    codes = found * 8
    assert torch.equal(codes, codes.round())
    assert int(codes.min()) >= -12
    assert int(codes.max()) <= 11
    assert not found[:, :, 4:8].any()
    nearest = (weights * 8).round().clamp(-12, 11) / 8

    def error(rounded: torch.Tensor) -> float:
        return float(((rounded - weights) @ x.mT).square().mean())

    assert error(found) < error(nearest) / 4


def test_the_mean_of_every_output_is_kept() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3)).eval()
    x = torch.rand(32, 3, 8, 8)
    graph = quantize(model, x)
    out = lower(graph).layers[-1].output.exponent
    with torch.no_grad():
        error = (graph(x) - model(x)).mean((0, 2, 3))
    # A bias has steps of an eighth of a code; rounding of the outputs adds to that.
    assert float(error.abs().max()) < 2.0**out / 4


class Scored(nn.Module):
    """The scores of a GRU's last state."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.scores = nn.GRU(4, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores(self.gru(x)[0][:, -1])  # type: ignore[no-any-return]


def test_biases_in_a_loop_stay() -> None:
    """A changed one would change the states for which its error was measured."""
    torch.manual_seed(4)
    prepared = cast(Sequence, prepare(Scored(), torch.randn(16, 5, 4))).graph
    corrected = {
        str(node.args[0].target)
        for node in prepared.graph.nodes
        if is_call(node, LINEAR) and str(node.args[2]).startswith("_corrected")
    }
    all_of_them = [node for node in prepared.graph.nodes if is_call(node, LINEAR)]
    assert len(all_of_them) > 5
    assert len(corrected) == 1


def test_finalize_keeps_what_was_rounded() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    with torch.no_grad():
        model[0].weight[:, 8:16] = 0
    x = torch.rand(48, 64)
    prepared = prepare(model, x)
    rounded = {name: b for name, b in prepared.named_buffers() if name.startswith("_rounded")}
    first = lower(finalize(prepared)).layers[0].sources[0].weight.reshape(16, 64)
    ratio = rounded["_rounded_0"].double().numpy() / np.where(first == 0, 1, first)
    assert ((first == 0) == (rounded["_rounded_0"].numpy() == 0)).all()
    assert not first[:, 8:16].any()
    for row, codes in zip(ratio, first, strict=True):
        scales = set(row[codes != 0])
        assert len(scales) == 1
        assert np.frexp(scales.pop())[0] == 0.5
    once, again = quantize(model, x), quantize(model, x)
    assert torch.equal(once(x), again(x))

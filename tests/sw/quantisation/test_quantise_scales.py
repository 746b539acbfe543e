"""Scales: least squared error first, then raised until the array can compute with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.lowering.lower import lower
from secateur.quantisation.fake_quantise import ActivationFakeQuantize, PerChannelWeightFakeQuantize
from secateur.quantisation.prepare import quantize
from tests.support.network_blocks import Add
from tests.support.networks import random_input


def _squared_error(x: Tensor, exponent: int, low: int, high: int) -> float:
    scale = 2.0**exponent
    return float(((x / scale).round().clamp(low, high) * scale - x).square().sum())


@pytest.mark.parametrize("low", [0, -128])
@pytest.mark.parametrize("kind", ["uniform", "normal", "heavy", "outlier"])
def test_activation_exponent_has_least_error(low: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(20000, generator=generator)
    if kind == "uniform":
        x = torch.rand(20000, generator=generator) - 0.5
    if kind == "heavy":
        x = x**3
    if kind == "outlier":
        x[7] = 30.0
    x = x.double().clamp(min=min(low, 0) * 1e6)
    high = low + 255
    observer = ActivationFakeQuantize(quant_min=low, quant_max=high)
    for batch in x.float().split(4000):
        observer(batch)
    errors = {e: _squared_error(x, e, low, high) for e in range(-14, 4)}
    # The histogram takes rounding errors as uniform; neighbours closer than that are equal.
    assert errors[int(observer.exponent)] <= 1.02 * min(errors.values())


def test_weight_exponents_have_least_error() -> None:
    generator = torch.Generator().manual_seed(6)
    w = torch.randn(32, 50, generator=generator) * torch.exp2(torch.arange(32.0) - 16).unsqueeze(1)
    w[3] = 0
    w[4] = 127 / 128
    found = PerChannelWeightFakeQuantize().best(w)
    for row, exponent in zip(w.double(), found.tolist(), strict=True):
        errors = {e: _squared_error(row, e, -127, 127) for e in range(-30, 20)}
        if row.any():
            assert errors[exponent] == min(errors.values())
    assert found[4] == -7
    assert found[3] == -100


def test_gradients_pass_straight_through_unless_clipped() -> None:
    quantiser = ActivationFakeQuantize(quant_min=-128, quant_max=127, qat=True)
    quantiser.disable_observer()
    quantiser.exponent = torch.tensor(-5, dtype=torch.int32)
    x = torch.tensor([0.3, -3.9, 3.97, 4.2, -5.0], requires_grad=True)
    y = quantiser(x)
    y.sum().backward()
    assert y.tolist() == [0.3125, -3.90625, 3.96875, 3.96875, -4.0]
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1, 1, 0, 0]


def test_statistics_do_not_depend_on_batches() -> None:
    x = torch.randn(4096, generator=torch.Generator().manual_seed(1)) * torch.linspace(0.1, 9, 4096)
    whole, parts = ActivationFakeQuantize(), ActivationFakeQuantize()
    whole(x)
    for part in x.split(100):
        parts(part)
    assert torch.equal(whole.histogram, parts.histogram)
    assert whole.exponent == parts.exponent
    assert whole.histogram.sum() == 4096


def test_accumulators_cannot_overflow() -> None:
    """1,200 equal weights on an unsigned input: the exponent must give way, not the sum."""
    model = nn.Linear(1200, 3)
    with torch.no_grad():
        model.weight.fill_(0.9)
        model.weight[1, ::2] = -0.9
        model.weight[2] = 0
    network = lower(quantize(model, random_input(2, (1200,), 8)))
    weight = network.layers[0].sources[0].weight.reshape(3, -1)
    largest = np.maximum(weight.clip(0).sum(1), -weight.clip(None, 0).sum(1)) * 255
    assert (largest < 1 << 23).all()
    assert (largest[:2] >= 1 << 21).all()
    assert not weight[2].any()


def test_uneven_channels_and_dead_ones_fit_the_shifts() -> None:
    model = nn.Conv2d(4, 8, 3)
    with torch.no_grad():
        model.weight.mul_(torch.exp2(torch.arange(8.0) * 4 - 16).view(-1, 1, 1, 1))
        model.weight[5] = 0
    layer = lower(quantize(model, random_input(1, (4, 6, 6), 8))).layers[0]
    assert np.ptp(layer.shift) == 7
    assert not layer.sources[0].weight[5].any()
    assert np.abs(layer.bias).max() <= 4096


def test_large_biases_coarsen_the_output() -> None:
    """A bias beyond 13 bits that the sum can undo is not clamped: the scale gives way."""
    model = nn.Sequential(nn.Linear(64, 1), nn.ReLU())
    x = random_input(0, (64,), 32) * 0.01 + 1
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.fill_(-64.0)
    graph = quantize(model, x)
    network = lower(graph)
    layer, factor = network.layers[0], network.outputs[0].factors.item()
    bias = np.ldexp(layer.bias[0] * factor, layer.output.exponent - 3)
    assert bias == pytest.approx(-64, abs=0.1)


def test_residual_ratios_fit_a_byte() -> None:
    """The added tensor may be far coarser than the convolution's products, or as fine."""
    for factor in (2.0**-14, 2.0**-5, 1.0, 2.0**6):
        conv = nn.Conv2d(4, 4, 1, bias=False)
        with torch.no_grad():
            conv.weight.mul_(factor)
        model = Add(conv, nn.Identity(), nn.ReLU(), False)
        layer = lower(quantize(model, random_input(0, (4, 5, 5), 4))).layers[0]
        assert [s.mode for s in layer.sources] == ["broadcast", "lanewise"]
        assert set(np.unique(layer.sources[1].weight)) <= {1 << k for k in range(7)}


def test_residual_that_no_scale_fits_is_refused() -> None:
    """Weights of thousands on the very tensor that is added: raising its scale raises both."""
    conv = nn.Conv2d(4, 4, 1, bias=False)
    with torch.no_grad():
        conv.weight.fill_(5000.0)
    with pytest.raises(SecateurError, match=r"no power-of-two scales fit .*; insert a conv"):
        quantize(Add(conv, nn.Identity(), nn.ReLU(), False), random_input(0, (4, 5, 5), 4))


def test_relu6_clips_at_its_code() -> None:
    conv = nn.Conv2d(1, 1, 1, bias=False)
    with torch.no_grad():
        conv.weight.fill_(0.06)
    x = torch.linspace(0, 255, 256).view(-1, 1, 1, 1)
    network = lower(quantize(nn.Sequential(conv, nn.ReLU6()), x))
    layer, factor = network.layers[0], network.outputs[0].factors.item()
    assert (layer.low, layer.high) == (0, round(6 / (factor * 2.0**layer.output.exponent)))


def test_bounds_between_codes_round_as_values_do() -> None:
    """Hardtanh's bounds are no codes here; PyTorch clips first and rounds then."""
    conv = nn.Conv2d(1, 1, 1, bias=False)
    with torch.no_grad():
        conv.weight.fill_(1.0)
    x = torch.linspace(-4, 4, 256).view(-1, 1, 1, 1)
    graph = quantize(nn.Sequential(conv, nn.Hardtanh(-1.45, 1.87)), x)
    network = lower(graph)
    layer = network.layers[0]
    step = network.outputs[0].factors.item() * 2.0**layer.output.exponent
    codes = (graph(x) / step).round()
    assert (layer.low, layer.high) == (int(codes.min()), int(codes.max()))

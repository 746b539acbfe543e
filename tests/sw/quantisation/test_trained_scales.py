"""Trained power-of-two scales: gradients of the paper, learning, and exactness afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secateur.lowering.lower import lower
from secateur.quantisation.fake_quantise import ActivationFakeQuantize, PerChannelWeightFakeQuantize
from secateur.quantisation.prepare import finalize, prepare
from tests.parts import data, model
from tests.support.pipeline import Built, check_image, compile_for, target


def quantised(x: Tensor, logarithm: Tensor, low: int, high: int) -> Tensor:
    """The quantiser written with rounding whose gradient autograd takes as one (TQT, section 3)."""

    def through(value: Tensor, rounded: Tensor) -> Tensor:
        return value + (rounded - value).detach()

    scale = torch.exp2(through(logarithm, logarithm.ceil()))
    ratio = x / scale
    return through(ratio, ratio.round()).clamp(low, high) * scale


@pytest.mark.parametrize("low", [0, -128])
def test_gradients_of_activations(low: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, generator=generator).mul(2).double().requires_grad_()
    weights = torch.randn(500, generator=generator).double()
    quantiser = ActivationFakeQuantize(quant_min=low, quant_max=low + 255, qat=True)
    quantiser(x)
    quantiser.disable_observer()
    quantiser.raise_to(-7)
    quantiser.train_scale()
    assert quantiser.logarithm is not None
    (quantiser(x) * weights).sum().backward()
    logarithm = quantiser.logarithm.detach().double().requires_grad_()
    other = x.detach().clone().requires_grad_()
    expected = quantised(other, logarithm, low, low + 255)
    (expected * weights).sum().backward()
    assert torch.equal(quantiser(x), expected)
    assert x.grad is not None
    assert other.grad is not None
    torch.testing.assert_close(x.grad, other.grad)
    torch.testing.assert_close(quantiser.logarithm.grad, logarithm.grad, check_dtype=False)
    assert 0 < (x.grad == 0).sum() < 500  # some are clipped


def test_gradients_of_weights() -> None:
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(6, 4, 3, generator=generator).double() * torch.arange(1, 7)[:, None, None]
    w.requires_grad_()
    quantiser = PerChannelWeightFakeQuantize(qat=True)
    quantiser.fix(torch.full((6,), -6), torch.full((6,), -6))
    quantiser.disable_observer()
    quantiser.train_scale()
    assert quantiser.logarithm is not None
    quantiser(w).square().sum().backward()
    logarithm = quantiser.logarithm.detach().double().requires_grad_()
    rows = logarithm[:, None, None]
    quantised(w, rows, -127, 127).square().sum().backward()
    torch.testing.assert_close(quantiser.logarithm.grad, logarithm.grad, check_dtype=False)
    assert (logarithm.grad != 0).all()


@pytest.mark.parametrize("start", [-12, -2])
def test_training_finds_the_best_scale(start: int) -> None:
    x = torch.randn(4000, generator=torch.Generator().manual_seed(2))
    quantiser = ActivationFakeQuantize(qat=True)
    quantiser.disable_observer()
    quantiser.exponent = torch.tensor(start, dtype=torch.int32)
    quantiser.train_scale()
    optimiser = torch.optim.Adam([quantiser.logarithm], lr=0.01)
    for _ in range(2000):
        optimiser.zero_grad()
        (quantiser(x) - x).square().sum().backward()
        optimiser.step()
    quantiser.settle()

    def error(exponent: int) -> float:
        scale = 2.0**exponent
        return float(((x / scale).round().clamp(-128, 127) * scale - x).square().sum())

    # The trained threshold swings between two neighbours at the optimum (TQT, appendix C).
    best = min(range(-14, 4), key=error)
    assert abs(int(quantiser.exponent) - best) <= 1


def test_a_trained_graph_is_exact_on_the_array() -> None:
    split = data(0)
    x, y = split["train_x"], split["train_y"]
    prepared = prepare(model(0).eval(), x[:64], qat=True, train_scales=True)
    scales = {n: p for n, p in prepared.named_parameters() if n.endswith("logarithm")}
    before = {name: value.detach().clone() for name, value in scales.items()}
    assert len(scales) >= 6  # three weights, input, two maps, mean and result
    rest = [p for n, p in prepared.named_parameters() if n not in scales]
    rates = [{"params": rest, "lr": 0.05}, {"params": list(scales.values()), "lr": 0.2}]
    optimiser = torch.optim.Adam(rates)
    prepared.train()
    for _ in range(30):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(prepared(x), y).backward()
        optimiser.step()
    prepared.eval()
    moved = [bool((scales[n].ceil() != before[n].ceil()).any()) for n in scales]
    assert any(moved)
    graph = finalize(prepared)
    built = Built(graph, lower(graph), split["test_x"][:8])
    to = target(8, 4)
    assert check_image(built, compile_for(built, to), to.geometry) > 0

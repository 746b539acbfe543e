"""Sums of several sources keep the bits of each; terms of weight one cost no bits, no layers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secateur import api
from secateur.hw.spec import WSHIFT
from secateur.lowering.lower import lower
from secateur.quantisation.prepare import quantize
from tests.support.network_blocks import Call
from tests.support.networks import random_input
from tests.support.pipeline import Built, build, check_image, compile_for, simulated, target


def signal_to_noise(wanted: Tensor, found: Tensor) -> float:
    """In dB."""
    return float(10 * torch.log10(wanted.square().sum() / (wanted - found).square().sum()))


class TwoSides(nn.Module):
    """a(x) + b(relu(x)) with weights of b that are larger by 2**gap."""

    def __init__(self, gap: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Conv2d(3, 8, 1)
        self.a, self.b = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(8, 6, 1)
        with torch.no_grad():
            self.b.weight.mul_(2.0**gap)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.a(x) + self.b(torch.relu(x))  # type: ignore[no-any-return]


def check(built: Built, n: int = 4) -> None:
    image = compile_for(built, target(n, 2))
    check_image(built, image, image.geometry)


def bits(weight: np.ndarray) -> float:
    """Of the largest code of each channel, the mean."""
    return float(np.log2(np.abs(weight).reshape(len(weight), -1).max(1) + 0.5).mean()) + 1


@pytest.mark.parametrize("gap", [0, 2, 4, 6, 8])
def test_a_source_of_small_products_keeps_its_bits(gap: int) -> None:
    """One accumulator, 8-bit weights: but the large products may count 2**WSHIFT each.

    Where they are larger by a factor of 4, one side or the other loses two bits.
    """
    model = TwoSides(gap)
    built = build(model, random_input(3, (3, 6, 6), 16))
    layer = built.network.layers[-1]
    small, large = layer.sources
    assert bits(large.weight) > 4.5
    ratio = np.log2(
        model.b.weight.detach().abs().max() * 2.0**large.tensor.exponent
        / model.a.weight.detach().abs().max() / 2.0**small.tensor.exponent
    )  # fmt: skip
    lost = 2 if ratio < WSHIFT else math.ceil(ratio) - WSHIFT
    assert bits(small.weight) > 6.5 - lost
    check(built)


def test_wide_products_in_verilog() -> None:
    built = build(TwoSides(4), random_input(3, (3, 6, 6), 16))
    assert [source.wshift for source in built.network.layers[-1].sources] == [False, True]
    image = compile_for(built, simulated(4, 2))
    assert api.simulate(image, built.x[:1].numpy()).mismatches == []


class Coarse(nn.Module):
    """A fine tensor beside a convolution with large weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.a = nn.Conv2d(3, 6, 1)
        self.b = nn.Conv2d(3, 6, 1)
        with torch.no_grad():
            self.b.weight.mul_(2.0**7)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.a(x)) + self.b(x)  # type: ignore[no-any-return]


def test_a_tensor_finer_than_the_products_beside_it() -> None:
    """The tensor keeps its scale: the products count 2**WSHIFT."""
    x = random_input(3, (3, 6, 6), 16)
    built = build(Coarse(), x)
    alone = build(nn.Sequential(Coarse().a, nn.ReLU()), x)
    layer = built.network.layers[-1]
    assert [source.wshift for source in layer.sources] == [True, False]
    assert layer.sources[1].tensor.exponent == alone.network.results[0].exponent
    check(built)


with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    A, B, LAST = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
    NORM, DENSE = nn.BatchNorm2d(8).eval(), nn.Linear(4, 3)
    FACTORS = torch.randn(8, 1, 1)

#: Ways to write a term, each one layer of two convolutions, or one of one.
TERMS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "sum": (lambda x: sum([A(x), B(x)]), 2),  # type: ignore[return-value,list-item]
    "difference": (lambda x: A(x) - B(x), 2),
    "difference, in place": (lambda x: A(x).sub_(B(x)), 2),
    "minus one times": (lambda x: A(x) + (-1) * B(x), 2),
    "quotient": (lambda x: A(x) / 1.0 + B(x), 2),
    "times one": (lambda x: 1 * A(x) + B(x), 2),
    "plus nothing": (lambda x: 0.0 + A(x) + (B(x) - 0), 2),
    "negated both": (lambda x: -A(x) - B(x), 2),
    "a share of each": (lambda x: 0.3 * A(x) + B(x) / 7, 2),
    "by channel": (lambda x: FACTORS * A(x) + B(x), 2),
    "from one": (lambda x: 1 - A(x), 1),
    "standardised": (lambda x: (A(x) - 0.5) / FACTORS.abs(), 1),
    "norm behind": (lambda x: NORM(2 - 3 * A(x)), 1),
}


@pytest.mark.parametrize("name", TERMS)
def test_terms_of_convolutions_are_their_weights(name: str) -> None:
    term, sources = TERMS[name]
    model = Call(lambda x: LAST(torch.relu(term(x))))
    built = build(model, random_input(4, (3, 6, 6), 16))
    assert [len(layer.sources) for layer in built.network.layers] == [sources, 1]
    check(built)
    with torch.no_grad():
        assert signal_to_noise(model(built.x), built.graph(built.x)) > 28


def test_a_product_that_others_read_is_not_scaled() -> None:
    def forward(x: Tensor) -> Tensor:
        y = A(x)
        return torch.relu(y) - 2 * y  # type: ignore[no-any-return]

    x = random_input(4, (3, 6, 6), 16)
    built = build(Call(forward), x)
    modes = [source.mode for layer in built.network.layers for source in layer.sources]
    assert modes.count("broadcast") == 1
    check(built)
    with torch.no_grad():
        assert signal_to_noise(forward(x), built.graph(x)) > 28


def test_a_scaled_average_is_never_negative() -> None:
    """It keeps all 8 bits; times -1 it is negative."""
    x = random_input(4, (3, 6, 6), 16)
    for factor, signed in ((0.5, False), (-0.5, True)):
        model = Call(lambda x, f=factor: torch.relu(A(x)).mean((2, 3)) * f)  # type: ignore[misc]
        built = build(model, x)
        assert [layer.output.signed for layer in built.network.layers] == [False, signed]
        check(built)


def test_factors_that_are_trained_stay_parameters() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.scale = nn.Conv2d(3, 8, 1), nn.Parameter(torch.ones(8, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) * self.scale  # type: ignore[no-any-return]

    found = []

    def train(graph: nn.Module) -> None:
        graph(random_input(4, (3, 4, 4), 4)).sum().backward()
        found.extend(p.grad is not None and bool(p.grad.any()) for p in graph.parameters())

    quantize(Scaled(), random_input(4, (3, 4, 4), 4), qat=train)
    assert found == [True, True, True]


def wide(inputs: int, kernel: int) -> nn.Sequential:
    """A layer of many terms, as in a classifier behind a small CNN."""
    torch.manual_seed(3)
    layer = nn.Linear(inputs, 5) if not kernel else nn.Conv2d(inputs, 5, kernel)
    nn.init.normal_(layer.weight, 0, layer.weight[0].numel() ** -0.5)
    return nn.Sequential(layer, nn.ReLU(), *[nn.Flatten()] * bool(kernel), nn.Linear(5, 3))


def plain(model: nn.Sequential, x: Tensor) -> Tensor:
    """Weights and results rounded to 8 bits of the best scale, per channel and per tensor."""
    for layer in model:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            rows = layer.weight.flatten(1)
            step = rows.abs().amax(1, keepdim=True) / 127
            weight = ((rows / step).round() * step).reshape(layer.weight.shape)
            name = "linear" if isinstance(layer, nn.Linear) else "conv2d"
            x = getattr(nn.functional, name)(x, weight, layer.bias)
            step = x.abs().max() / 127
            x = (x / step).round() * step
        else:
            x = layer(x)
    return x


@pytest.mark.parametrize(("shape", "kernel"), [((6000,), 0), ((160, 6, 6), 6)])
def test_a_sum_of_thousands_keeps_its_bits(shape: tuple[int, ...], kernel: int) -> None:
    """Its parts are computed in one layer, and added in another."""
    model, x = wide(shape[0], kernel), random_input(5, shape, 48)
    built = build(model, x)
    layers = built.network.layers
    assert len(layers) == 3
    parts = layers[0].channels // 5
    assert parts in (2, 4, 8)
    weight = layers[0].sources[0].weight.reshape(parts, 5, -1)
    assert ((weight != 0).sum(0) <= 1).all()
    image = compile_for(built, target(4, 2, bank_words=8192, weight_words=1 << 17))
    check_image(built, image, image.geometry)
    with torch.no_grad():
        wanted = model(x)
        free = signal_to_noise(wanted, plain(model, x))
        assert signal_to_noise(wanted, built.graph(x)) > free - 5


def test_zeros_of_a_sum_in_parts_stay_zeros() -> None:
    model, x = wide(9000, 0), random_input(5, (9000,), 48)
    keep = torch.rand(5, 9000, generator=torch.Generator().manual_seed(0)) < 0.7
    with torch.no_grad():
        model[0].weight.mul_(keep)
    network = lower(quantize(model, x))
    parts = network.layers[0].channels // 5
    assert parts > 1
    weight = network.layers[0].sources[0].weight.reshape(parts, 5, -1)
    assert not weight[:, ~keep.numpy()].any()


def test_a_short_sum_is_one_layer() -> None:
    assert len(lower(quantize(wide(300, 0), random_input(5, (300,), 48))).layers) == 2


class Deviation(nn.Module):
    """What is left of a map without its mean over the width; nothing, for a width of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return x - x.mean(3, keepdim=True)


@pytest.mark.parametrize("seed", range(6))
def test_a_result_finer_than_both_of_its_terms(seed: int) -> None:
    torch.manual_seed(seed)
    check(build(Deviation(), random_input(3, (4, 5, 1), 16)))

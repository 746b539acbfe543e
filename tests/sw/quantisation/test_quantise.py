"""The quantiser: where it quantises, which scales it takes, and what survives training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.utils import parametrize
from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e, prepare_qat_pt2e

from secateur.canonical.rewrite import canonicalise
from secateur.capture.export import export
from secateur.capture.ports import inputs_of
from secateur.fx.graph import CAT, FLATTEN, activation_bounds
from secateur.lowering.lower import lower
from secateur.quantisation import annotate as module
from secateur.quantisation.annotate import SecateurQuantizer
from secateur.quantisation.fake_quantise import ActivationFakeQuantize
from secateur.quantisation.match import stored_roots
from secateur.quantisation.prepare import finalize, prepare, quantize
from tests.support.network_blocks import Call, Cat
from tests.support.networks import Mask, random_input, random_network, resnet8
from tests.support.pipeline import build, check_image, compile_for, target


def calls(graph: GraphModule, part: str) -> list[torch.fx.Node]:
    return [n for n in graph.graph.nodes if n.op == "call_function" and part in str(n.target)]


@pytest.mark.parametrize("seed", range(12))
def test_canonical_form_computes_the_same(seed: int) -> None:
    model, shape = random_network(seed)
    x = random_input(seed, shape, 3).double()
    graph = canonicalise(export(model, x.float()))
    with torch.no_grad():
        expected, found = model.double()(x), graph.double()(x)
    # Folding computes in float64 and stores float32: 2**-24 relative a weight, a few layers deep.
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_one_quantise_operation_a_layer() -> None:
    """Nothing is quantised between a convolution, its add and its activation, nor at pools."""
    model, shape = resnet8(0)
    graph = quantize(model, random_input(0, shape, 4))
    assert len(calls(graph, "quantized_decomposed.quantize_per_tensor")) == 1 + 9  # input, layers
    for add in calls(graph, "aten.add.Tensor"):
        assert [u.target for u in add.users] == [torch.ops.aten.relu.default]
    pooled = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )
    graph = quantize(pooled, random_input(1, (2, 6, 6), 4))
    assert len(calls(graph, "quantized_decomposed.quantize_per_tensor")) == 1 + 2


def test_scales_are_powers_of_two_with_zero_point_zero() -> None:
    for seed in range(4):
        model, shape = random_network(seed)
        graph = quantize(model, random_input(seed, shape, 4))
        for node in calls(graph, "quantize_per_tensor"):
            assert math.frexp(node.args[1])[0] == 0.5  # type: ignore[arg-type]
            assert node.args[2] == 0
            assert node.args[3:5] in ((0, 255), (-128, 127))
        for name, value in graph.named_buffers():
            if "_scale_" in name:
                assert (torch.frexp(value)[0] == 0.5).all()
            if "_zero_point_" in name:
                assert not value.any()


def test_signedness_follows_values() -> None:
    def signs(model: nn.Module, x: Tensor) -> list[bool]:
        network = lower(quantize(model, x))
        return [network.given[0].signed, *(layer.output.signed for layer in network.layers)]

    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    conv = nn.Conv2d(3, 3, 1)
    assert signs(nn.Sequential(conv, nn.ReLU()), x) == [False, False]
    assert signs(nn.Sequential(conv, nn.ReLU6()), x - 0.5) == [True, False]
    assert signs(nn.Sequential(conv, nn.Hardtanh()), x) == [False, True]
    assert signs(conv, x) == [False, True]
    assert signs(nn.AvgPool2d(2), x) == [False, False]
    assert signs(nn.AvgPool2d(2), x - 0.5) == [True, True]
    assert signs(nn.Sequential(conv, nn.MaxPool2d(2)), x) == [False, True, True]
    mixed = Cat(nn.Sequential(conv, nn.ReLU()), nn.Conv2d(3, 2, 1))
    assert signs(nn.Sequential(mixed, nn.Conv2d(5, 1, 1)), x) == [False, True, True, True]


def test_concatenated_tensors_share_one_scale() -> None:
    small, large = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
    with torch.no_grad():
        large.weight.mul_(100)
    both = Cat(nn.Sequential(small, nn.MaxPool2d(1)), nn.Sequential(large, nn.ReLU()))
    model = nn.Sequential(both, nn.Conv2d(8, 2, 1))
    graph = quantize(model, random_input(1, (3, 5, 5), 4))
    stored = calls(graph, "quantized_decomposed.quantize_per_tensor")[1:-1]
    assert len(stored) == 2
    assert len({node.args[1:5] for node in stored}) == 1
    assert lower(graph).layers[-1].sources[0].tensor.slices == [4, 4]


def test_masks_survive_training() -> None:
    """30 steps of Adam with weight decay regrow nothing, neither behind BatchNorm nor alone."""
    generator = torch.Generator().manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 16, 4),
    )
    masks = []
    for index in (0, 3, 6):
        masks.append((torch.rand(model[index].weight.shape, generator=generator) < 0.4).float())
        parametrize.register_parametrization(model[index], "weight", Mask(masks[-1]))
    x = torch.rand(16, 3, 8, 8, generator=generator)
    y = torch.randint(0, 4, (16,), generator=generator)
    start: list[Tensor] = []
    losses = []

    def train(prepared: GraphModule) -> None:
        prepared.train()
        start.extend(p.detach().clone() for p in prepared.parameters())
        optimiser = torch.optim.Adam(prepared.parameters(), lr=1e-2, weight_decay=0.1)
        for _ in range(30):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(prepared(x), y)
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        for before, after in zip(start, prepared.parameters(), strict=True):
            assert not torch.equal(before, after)

    network = lower(quantize(model.eval(), x, qat=train, seed=1))
    assert losses[-1] < losses[0]
    for mask, layer in zip(masks, network.layers, strict=True):
        weight = layer.sources[0].weight
        assert not weight[mask.numpy().reshape(weight.shape) == 0].any()
        assert weight.any()


def test_training_changes_no_activation_scale() -> None:
    model, shape = random_network(2)
    x = random_input(2, shape, 8)
    prepared = prepare(model, x, qat=True)
    scales = [int(m.exponent) for m in prepared.modules() if isinstance(m, ActivationFakeQuantize)]
    prepared(x * 100).sum().backward()
    after = [int(m.exponent) for m in prepared.modules() if isinstance(m, ActivationFakeQuantize)]
    assert scales == after


@pytest.mark.parametrize("qat", [False, True])
def test_torchaos_own_functions(qat: bool) -> None:
    """prepare_pt2e and prepare_qat_pt2e with the quantiser, calibrated by plain calls."""
    model, shape = random_network(4)
    x = random_input(4, shape, 8)
    graph = canonicalise(export(model, x))
    quantizer = SecateurQuantizer(unsigned=list(inputs_of(graph)), qat=qat)
    prepared: Any = (prepare_qat_pt2e if qat else prepare_pt2e)(graph, quantizer)
    for _ in range(3):
        prepared(x)
    graph = finalize(prepared)
    again, once = lower(graph), lower(quantize(model, x))
    assert [a.kind for a in again.layers] == [b.kind for b in once.layers]
    # Factors, and rounding by error, are those of quantize: without them it is near the model.
    with torch.no_grad():
        expected, found = model.eval()(x), graph(x)
    assert 100 * (found - expected).square().sum() < expected.square().sum()


def test_exported_program_with_a_fixed_batch() -> None:
    model, shape = random_network(9)
    x = random_input(9, shape, 9)
    program = torch.export.export(model, (x[:3],))
    graph = quantize(program, x)
    assert graph(x[:3]).shape[0] == 3
    dynamic = lower(quantize(model, x))
    for a, b in zip(lower(graph).layers, dynamic.layers, strict=True):
        np.testing.assert_array_equal(a.sources[0].weight, b.sources[0].weight)
        np.testing.assert_array_equal(a.bias, b.bias)


def test_the_callers_model_is_untouched() -> None:
    model, shape = random_network(6)
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    quantize(model, random_input(6, shape, 4), qat=lambda g: g(random_input(6, shape, 4)).sum())
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_calls_of_one_module_are_layers_of_their_own() -> None:
    shared = nn.Linear(6, 6)
    network = lower(
        quantize(Call(lambda x: shared(torch.relu(shared(x)))), random_input(1, (6,), 8))
    )
    assert [layer.kind for layer in network.layers] == ["linear", "linear"]
    assert len({layer.name for layer in network.layers}) == 2


@pytest.mark.parametrize("size", [0.1, 6.0])
@pytest.mark.parametrize("summed", ["with its input", "with itself"])
def test_calls_of_one_module_share_their_scales(summed: str, size: float) -> None:
    """One weight, several inputs, sums that ask for other exponents: one exponent fits them all."""
    first, shared = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    with torch.no_grad():
        shared.weight.mul_(size)

    def forward(x: Tensor) -> Tensor:
        x = torch.relu(first(x))
        if summed == "with its input":
            return torch.relu(shared(torch.relu(shared(x) + x)))
        return torch.relu(shared(torch.relu(shared(x))) + shared(x))

    model = Call(forward)
    model.first, model.shared = first, shared
    built = build(model, random_input(1, (3, 6, 6), 8))
    image = compile_for(built, target(4, 2))
    check_image(built, image, image.geometry)
    with torch.no_grad():
        expected, found = model(built.x), built.graph(built.x)
    assert float((found - expected).abs().max() / expected.abs().max()) < 0.06


class Sums(nn.Module):
    """Each is the sum of the two before it: as many ways lead back as the Fibonacci numbers say."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth, self.first = depth, nn.Conv2d(2, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        before, last = x, x + x
        for _ in range(self.depth):
            before, last = last, before + last
        return last


def test_signs_are_found_once_for_each_value_and_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def counting(node: torch.fx.Node) -> tuple[float, float]:
        nonlocal asked
        asked += 1
        return activation_bounds(node)

    monkeypatch.setattr(module, "activation_bounds", counting)
    prepared = prepare(Sums(8), torch.randn(4, 2, 3, 3))
    kinds = {m.quant_min for m in prepared.modules() if isinstance(m, ActivationFakeQuantize)}
    assert kinds == {0, -128}  # the sums are never negative, the input is
    assert asked == 2  # factors are chosen, then scales


def test_what_a_value_consists_of_is_found_however_deep_it_lies() -> None:
    graph = torch.fx.Graph()
    x = value = graph.placeholder("x")
    for _ in range(3000):
        value = graph.call_function(FLATTEN, (value,))
    for _ in range(60):
        value = graph.call_function(CAT, ([value, value],))
    assert stored_roots(value) == [x]
    y = graph.placeholder("y")
    assert stored_roots(graph.call_function(CAT, ([y, value, y],))) == [y, x]

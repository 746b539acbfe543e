"""Saliencies against loops over single weights, and what the criteria refuse."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.pruning import (
    Activation,
    BatchNormScale,
    Filter,
    Fisher,
    Gradient,
    GradualPruner,
    Hessian,
    Magnitude,
    Random,
    Taylor,
    criterion_of,
    distributions,
    plot,
    prune,
)
from secateur.pruning.units.blocks import prunable_layers

NAMES = ["l1", "l2", "random", "gradient", "taylor", "fisher", "hessian", "activation"]


class Net(nn.Module):
    """Dense, strided, padded, dilated and depthwise convolutions, batch norm and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2))
        self.norm = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, padding="same", groups=6, bias=False)
        self.linear = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.norm(self.conv(x)))
        return self.linear(torch.tanh(self.depthwise(x)).mean(dim=(2, 3)))


def net() -> Net:
    torch.manual_seed(5)
    model = Net().double()
    nn.init.normal_(model.norm.weight)
    nn.init.normal_(model.norm.running_mean)
    return model


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(5, 2, 5, 6, generator=generator, dtype=torch.float64)
    y = torch.tensor([0, 2, 1, 1, 0])
    return [(x[:3], y[:3]), (x[3:], y[3:])]


LOSS = nn.functional.cross_entropy


def backward(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Gradients by plain backward, in evaluation mode."""
    model.eval()
    model.zero_grad()
    LOSS(model(x), y).backward()
    return {name: m.weight.grad.clone() for name, m in prunable_layers(model).items()}


def test_magnitudes_by_hand() -> None:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -2.0], [0.0, 0.5]]))
    layers = {"a": layer}
    assert Magnitude(1)(layer, layers)["a"].tolist() == [[1.0, 2.0], [0.0, 0.5]]
    assert Magnitude(2)(layer, layers)["a"].tolist() == [[1.0, 4.0], [0.0, 0.25]]
    assert Magnitude()(layer, layers)["a"].dtype == torch.float64


@pytest.mark.parametrize("kind", ["gradient", "taylor", "fisher"])
def test_gradient_criteria_equal_plain_backward_passes(kind: str) -> None:
    model = net()
    data = batches()
    if kind == "fisher":
        data = [(x[i : i + 1], y[i : i + 1]) for x, y in data for i in range(len(x))]
    steps = [backward(model, x, y) for x, y in data]
    model.train()  # the criterion's own business: batch norms must use running statistics
    found = criterion_of(kind, batches=batches())(model, prunable_layers(model))
    for name, layer in prunable_layers(model).items():
        for index in np.ndindex(*layer.weight.shape):
            w = float(layer.weight.detach()[index])
            g = [float(step[name][index]) for step in steps]
            score = {
                "gradient": sum(abs(v) for v in g),
                "taylor": sum(abs(v * w) for v in g),
                "fisher": sum(v * v * w * w / 2 for v in g),
            }[kind] / len(g)
            assert math.isclose(float(found[name][index]), score, rel_tol=1e-9, abs_tol=1e-15)


def test_hessian_is_exact_where_it_is_diagonal() -> None:
    """Inputs are unit vectors, so every weight is alone in its square: H = 2 a^2 / samples."""
    layer = nn.Linear(4, 1, bias=False).double()
    scale = torch.tensor([1.0, 2.0, 3.0, 0.5], dtype=torch.float64)
    x, y = torch.diag(scale), torch.ones(4, 1, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -1.0, 2.0, 4.0]]))
    mean_squares = nn.functional.mse_loss
    found = Hessian([(x, y)], mean_squares, probes=1)(layer, {"a": layer})["a"]
    assert found.tolist() == [[0.25 * 1, 0.25 * 4, 0.25 * 9 * 4, 0.25 * 0.25 * 16]]


def test_hessian_estimates_the_diagonal() -> None:
    """Against torch.func.hessian; Hutchinson's error falls with the probes."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 2, bias=False).double()
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1, 0])

    def loss(weight: Tensor) -> Tensor:
        return LOSS(x @ weight.T, y)

    full = torch.func.hessian(loss)(layer.weight.detach()).reshape(6, 6)
    exact = torch.diag(full).reshape(2, 3) * layer.weight.detach() ** 2 / 2
    found = Hessian([(x, y)], LOSS, probes=4000, seed=1)(layer, {"a": layer})["a"]
    assert torch.allclose(found, exact.abs(), rtol=0.15)
    one = Hessian([(x, y)], LOSS, probes=1, seed=1)(layer, {"a": layer})["a"]
    assert not torch.allclose(one, exact.abs(), rtol=0.15)


def test_hessian_of_a_linear_loss_is_zero() -> None:
    layer = nn.Linear(3, 1)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return output.mean()

    found = Hessian([(torch.ones(2, 3), torch.ones(2))], loss)(layer, {"a": layer})
    assert found["a"].tolist() == [[0.0, 0.0, 0.0]]


def test_activation_norms_equal_im2col() -> None:
    """Every product of the convolution, one by one, from padded inputs."""
    model = net().eval()
    data = batches()
    found = Activation(data)(model, prunable_layers(model))
    conv = model.conv
    squares = torch.zeros(2, 3, 2, dtype=torch.float64)
    for x, _ in data:
        padded = nn.functional.pad(x, (1, 1, 1, 1))
        height, width = conv(x).shape[2:]
        for c, ky, kx in np.ndindex(2, 3, 2):
            for oy, ox in np.ndindex(height, width):
                squares[c, ky, kx] += (padded[:, c, 2 * oy + ky, ox + 2 * kx] ** 2).sum()
    assert torch.allclose(found["conv"], conv.weight.detach().abs() * squares.sqrt(), rtol=1e-12)

    hidden = [torch.tanh(model.norm(conv(x))) for x, _ in data]
    mean = [torch.tanh(model.depthwise(h)).mean(dim=(2, 3)) for h in hidden]
    norm = torch.cat(mean).square().sum(dim=0).sqrt()
    expected = model.linear.weight.abs() * norm
    assert torch.allclose(found["linear"], expected.detach(), rtol=1e-12)
    ones = torch.cat(hidden)
    centre = ones.square().sum(dim=(0, 2, 3)).sqrt() * model.depthwise.weight[:, 0, 1, 1].abs()
    assert torch.allclose(found["depthwise"][:, 0, 1, 1], centre.detach(), rtol=1e-12)


def test_batch_norm_scales_belong_to_filters() -> None:
    model = net()
    layers = {"conv": model.conv}
    example = batches()[0][0]
    found = BatchNormScale(example)(model, layers)["conv"]
    assert torch.allclose(found.sum(dim=(1, 2, 3)), model.norm.weight.detach().abs(), rtol=1e-12)
    assert bool((found == found[:, :1, :1, :1]).all())
    prune(
        model,
        density=0.5,
        criterion=BatchNormScale(example),
        granularity=Filter(),
        skip=["depthwise", "linear"],
    )
    kept = set(torch.topk(model.norm.weight.detach().abs(), 3).indices.tolist())
    assert {i for i in range(6) if bool(model.conv.weight[i].any())} == kept
    with pytest.raises(SecateurError, match="layer 'linear': no batch norm reads its output"):
        BatchNormScale(example)(model, {"linear": model.linear})


def test_random_repeats_from_its_seed() -> None:
    model = net()
    layers = prunable_layers(model)
    first, again, other = (Random(seed)(model, layers) for seed in (1, 1, 2))
    for name in layers:
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize("name", NAMES)
def test_criteria_leave_the_model_alone_and_rank_it(name: str) -> None:
    model = net()
    model.train()
    model.norm.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.linear.weight.grad = torch.full_like(model.linear.weight, 7.0)
    criterion = criterion_of(name, batches=batches())
    found = criterion(model, prunable_layers(model))
    assert all(bool((value >= 0).all()) for value in found.values())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training
    assert not model.norm.training
    assert bool((model.linear.weight.grad == 7.0).all())

    report = prune(model, density=0.5, n=2, criterion=criterion)
    for row in report.layers[:2]:
        sums = found[row.name].flatten(1).unflatten(0, (-1, 2)).sum(dim=1)
        weight = model.get_submodule(row.name).weight.detach()
        alive = (weight.flatten(1).unflatten(0, (-1, 2)) != 0).any(dim=1)
        assert float(sums[alive].min()) >= float(sums[~alive].max())
        assert int(alive.sum()) == row.kept


@pytest.mark.parametrize("name", ["taylor", "activation", "l1"])
def test_masked_weights_have_no_saliency(name: str) -> None:
    model = net()
    prune(model, density=0.5)
    layers = prunable_layers(model)
    found = criterion_of(name, batches=batches())(model, layers)
    for layer_name, layer in layers.items():
        zero = layer.weight.detach() == 0
        assert bool(zero.any())
        assert bool((found[layer_name][zero] == 0).all())
        assert bool((found[layer_name][~zero] > 0).any())


def test_gradual_pruning_asks_the_criterion_every_step() -> None:
    asked = []

    class Counting:
        def __call__(self, model: nn.Module, layers: dict[str, nn.Module]) -> dict[str, Tensor]:
            asked.append(len(layers))
            return Magnitude(1)(model, layers)

    pruner = GradualPruner(net(), density=0.5, steps=3, criterion=Counting())
    while not pruner.done:
        pruner.step()
    assert asked == [3, 3, 3, 3]


def test_distributions_count_every_weight_and_gradient() -> None:
    model = net()
    data = batches()
    steps = [backward(model, x, y) for x, y in data]
    found = distributions(model, data, bins=7)
    assert found.keys() == prunable_layers(model).keys()
    for name, layer in prunable_layers(model).items():
        mean = sum(step[name] for step in steps) / len(steps)
        for kind, values in (("weight", layer.weight.detach()), ("gradient", mean)):
            shown = found[name][kind]
            assert shown.counts.sum() == values.numel()
            assert math.isclose(shown.edges[0], float(values.min()), rel_tol=1e-12)
            assert math.isclose(shown.edges[-1], float(values.max()), rel_tol=1e-12)
            inside = (values >= shown.edges[2]) & (values < shown.edges[3])
            assert shown.counts[2] == int(inside.sum())
    assert found["conv"]["weight"].as_dict()["counts"] == found["conv"]["weight"].counts.tolist()
    assert distributions(model)["conv"].keys() == {"weight"}


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_distributions_are_drawn(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    plot(distributions(net(), bins=5), path)
    head = path.read_bytes()[:200]
    assert head.startswith(b"\x89PNG") if suffix == "png" else b"<?xml" in head
    with pytest.raises(SecateurError, match=r"a plot must be \.png, \.svg or \.pdf"):
        plot(distributions(net(), bins=5), tmp_path / "weights.gif")


class Wrong:
    """A criterion that returns what it is given."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def __call__(self, model: nn.Module, layers: dict[str, nn.Module]) -> dict[str, Tensor]:
        return dict.fromkeys(layers, self.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(3), "layer '': the criterion must give one saliency per weight, shape"),
        (torch.full((4, 4), math.nan), "saliencies must be finite"),
        (torch.full((4, 4), -1.0), "saliencies must be finite and at least 0"),
    ],
)
def test_bad_saliencies_are_refused(value: Tensor, message: str) -> None:
    layer = nn.Linear(4, 4)
    with pytest.raises(SecateurError, match=message):
        prune(layer, density=0.5, criterion=Wrong(value))
    assert not hasattr(layer, "parametrizations")


def test_criteria_refuse_in_one_line() -> None:
    model = net()
    layers = prunable_layers(model)
    data = batches()
    cases = [
        (lambda: criterion_of("hesse"), "criterion 'hesse' is unknown; choose one of l1, l2"),
        (lambda: criterion_of("taylor"), "needs data"),
        (lambda: criterion_of("taylor", batches=[]), "taylor: batches is empty"),
        (lambda: Taylor([], LOSS)(model, layers), "batches is empty"),
        (lambda: Fisher(iter(data), LOSS)(model, layers), "batches must be a list"),
        (lambda: Hessian(data, LOSS, probes=0)(model, layers), "probes must be at least 1"),
        (lambda: Magnitude(3), "p must be 1 or 2, not 3"),
        (lambda: Gradient(data, lambda o, t: o)(model, layers), "the loss must be one finite"),
        (lambda: distributions(nn.ReLU()), "the model has no Conv1d"),
        (lambda: distributions(model, bins=0), "bins must be at least 1"),
    ]
    for call, message in cases:
        with pytest.raises(SecateurError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    model.conv.weight.requires_grad_(False)
    with pytest.raises(SecateurError, match="layer 'conv': the weight is frozen"):
        Gradient(data, LOSS)(model, layers)

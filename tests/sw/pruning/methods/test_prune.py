"""Blocks, ranking and counts of one-shot pruning, against a loop over single weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import secateur
from secateur.errors import SecateurError
from secateur.pruning import density_of, prune


def naive_blocks(weight: torch.Tensor, n: int) -> list[list[tuple[int, ...]]]:
    """Index tuples of the weights of every block, in the order of groups and positions."""
    blocks: list[list[tuple[int, ...]]] = []
    rest = [range(size) for size in weight.shape[1:]]
    positions: list[tuple[int, ...]] = [()]
    for sizes in rest:
        positions = [(*head, index) for head in positions for index in sizes]
    for first in range(0, weight.shape[0], n):
        channels = range(first, min(first + n, weight.shape[0]))
        blocks += [[(channel, *position) for channel in channels] for position in positions]
    return blocks


def naive_scores(weight: torch.Tensor, n: int) -> list[float]:
    scores = []
    for block in naive_blocks(weight, n):
        total = 0.0
        for index in block:
            total += float(weight[index]) ** 2
        if len(block) < n:
            total *= n / len(block)
        scores.append(total)
    return scores


def naive_mask(weight: torch.Tensor, n: int, kept: set[int]) -> torch.Tensor:
    mask = torch.zeros_like(weight)
    for number, block in enumerate(naive_blocks(weight, n)):
        for index in block:
            mask[index] = 1.0 if number in kept else 0.0
    return mask


@st.composite
def layers(draw: st.DrawFn) -> nn.Module:
    """A convolution, depthwise convolution or dense layer; few weight values, so many ties."""
    kind = draw(st.sampled_from(["conv2d", "conv1d", "depthwise", "linear"]))
    outputs = draw(st.integers(1, 21))
    inputs = draw(st.integers(1, 5))
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    layer: nn.Module
    if kind == "conv2d":
        layer = nn.Conv2d(inputs, outputs, kernel)
    elif kind == "conv1d":
        layer = nn.Conv1d(inputs, outputs, kernel[0])
    elif kind == "depthwise":
        layer = nn.Conv2d(outputs, outputs, kernel, groups=outputs)
    else:
        layer = nn.Linear(inputs, outputs)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1 << 20)))
    with torch.no_grad():
        if draw(st.booleans()):
            layer.weight.copy_(torch.randint(-2, 3, layer.weight.shape, generator=generator))
        else:
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
    return layer


DENSITIES = st.floats(0.001, 1.0)
WIDTHS = st.sampled_from([1, 2, 4, 8, 16])


@settings(max_examples=150)
@given(layer=layers(), density=DENSITIES, n=WIDTHS)
def test_layer_scope_equals_a_naive_loop(layer: nn.Module, density: float, n: int) -> None:
    weight = layer.weight.detach().clone()
    model = nn.Sequential(layer)
    report = prune(model, density=density, n=n)

    scores = naive_scores(weight, n)
    count = max(1, round(density * len(scores)))
    order = sorted(range(len(scores)), key=lambda number: (-scores[number], number))
    expected = naive_mask(weight, n, set(order[:count]))
    assert torch.equal(layer.parametrizations.weight[0].mask, expected)
    assert torch.equal(layer.weight, weight * expected)
    assert (report.blocks, report.kept) == (len(scores), count)


@settings(max_examples=80)
@given(parts=st.lists(layers(), min_size=1, max_size=4), density=DENSITIES, n=WIDTHS)
def test_global_scope_equals_a_naive_loop(parts: list[nn.Module], density: float, n: int) -> None:
    weights = [layer.weight.detach().clone() for layer in parts]
    report = prune(nn.Sequential(*parts), density=density, n=n, scope="global")

    scores = {
        (part, number): score
        for part, weight in enumerate(weights)
        for number, score in enumerate(naive_scores(weight, n))
    }
    order = sorted(scores, key=lambda key: (-scores[key], key))
    kept = {next(key for key in order if key[0] == part) for part in range(len(parts))}
    count = max(len(parts), round(density * len(scores)))
    for key in order:
        if len(kept) < count:
            kept.add(key)
    assert report.kept == count
    for part, layer in enumerate(parts):
        mine = {number for where, number in kept if where == part}
        expected = naive_mask(weights[part], n, mine)
        assert torch.equal(layer.parametrizations.weight[0].mask, expected)


def small() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, groups=16),
        nn.Conv2d(16, 12, 1),
        nn.Flatten(),
        nn.Linear(48, 10),
    )


def test_counts_by_hand() -> None:
    """2 x 27, 2 x 9, 2 x 16 and 2 x 48 blocks at N = 8; 13.5 and 4.5 round to even."""
    report = prune(small(), density=0.25)
    assert [layer.blocks for layer in report.layers] == [54, 18, 32, 96]
    assert [layer.kept for layer in report.layers] == [14, 4, 8, 24]
    assert (report.blocks, report.kept, report.density) == (200, 50, 0.25)
    lines = str(report).splitlines()
    assert lines[1].split() == ["0", "16x3x3x3", "54", "14", "25.9", "%"]
    assert lines[-1].split() == ["total", "200", "50", "25.0", "%"]


def test_skip_and_overrides() -> None:
    model = small()
    before = model[0].weight.detach().clone()
    report = prune(model, density=0.25, skip=["0"], overrides={"5": 0.5})
    assert [(layer.name, layer.kept) for layer in report.layers] == [("2", 4), ("3", 8), ("5", 48)]
    assert torch.equal(model[0].weight, before)
    assert density_of(model).layers[0].kept == 54


def test_overrides_are_ranked_apart_from_a_global_ranking() -> None:
    report = prune(small(), density=0.1, scope="global", overrides={"5": 0.75})
    assert report.layers[3].kept == 72
    assert sum(layer.kept for layer in report.layers[:3]) == round(0.1 * 104)


def test_short_last_block_competes_by_its_mean_square() -> None:
    """Ten equal channels: the blocks of the two channels of the second group are not smaller."""
    layer = nn.Linear(4, 10)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(10, 4))
    prune(nn.Sequential(layer), density=0.5)
    assert torch.equal(layer.weight, torch.tensor([0.0, 0.0, 3.0, 4.0]).expand(10, 4))


def test_pruning_again_keeps_pruned_blocks_pruned() -> None:
    model = small()
    prune(model, density=0.5)
    first = model[5].parametrizations.weight[0].mask.clone()
    with torch.no_grad():
        model[5].parametrizations.weight.original.copy_(1e3 * (1 - first) + first)
    report = prune(model, density=0.25)
    second = model[5].parametrizations.weight[0].mask
    assert torch.equal(second * first, second)
    assert [layer.kept for layer in density_of(model).layers] == [14, 4, 8, 24]
    assert report.kept == 50


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_pruned_blocks_rank_below_zero_blocks(scope: str) -> None:
    layer = nn.Linear(4, 8)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(8, 4))
    model = nn.Sequential(layer)
    prune(model, density=0.5, scope=scope)
    with torch.no_grad():
        layer.parametrizations.weight.original.zero_()
    prune(model, density=0.5, scope=scope)
    expected = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(8, 4)
    assert torch.equal(layer.parametrizations.weight[0].mask, expected)


def test_refused_pruning_changes_nothing() -> None:
    model = small()
    prune(model, density=0.25)
    before = copy.deepcopy(model.state_dict())
    for scope in ("layer", "global"):
        with pytest.raises(SecateurError, match=r"only \d+ are left; pruned blocks do not"):
            prune(model, density=0.1, overrides={"5": 0.9}, scope=scope)
        with pytest.raises(SecateurError, match=r"only (50|14) are left"):
            prune(model, density=0.5, scope=scope)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_density_of_counts_blocks_with_any_weight() -> None:
    layer = nn.Conv2d(2, 8, 1)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[5, 1] = -1e-30
    assert [(row.blocks, row.kept) for row in density_of(nn.Sequential(layer), 4).layers] == [
        (4, 1)
    ]
    assert [(row.blocks, row.kept) for row in density_of(nn.Sequential(layer), 8).layers] == [
        (2, 1)
    ]


def _nan() -> nn.Module:
    layer = nn.Linear(4, 4)
    with torch.no_grad():
        layer.weight[0, 0] = math.nan
    return layer


def _hooked() -> nn.Module:
    layer = nn.Linear(4, 4)
    weight = layer.weight
    del layer.weight
    layer.own = weight

    def compute(layer: nn.Module, args: object) -> None:
        layer.weight = layer.own * 2

    layer.register_forward_pre_hook(compute)
    compute(layer, None)
    return layer


def _tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (small(), {"density": 0}, "density must be above 0 and at most 1, not 0"),
        (small(), {"density": 1.5}, "density must be above 0 and at most 1, not 1.5"),
        (small(), {"density": math.nan}, "density must be above 0 and at most 1, not nan"),
        (small(), {"density": True}, "density must be above 0"),
        (small(), {"n": 0}, r"n must be a positive integer \(channels of a block\), not 0"),
        (small(), {"n": 8.0}, "n must be a positive integer"),
        (small(), {"scope": "model"}, "scope must be 'layer' or 'global', not 'model'"),
        (small(), {"skip": "0"}, "skip must be a list of layer names, not the string '0'"),
        (small(), {"skip": ["conv"]}, "skip: the model has no prunable layer 'conv'; it has '0'"),
        (small(), {"overrides": {"1": 0.5}}, "overrides: the model has no prunable layer '1'"),
        (small(), {"overrides": {"5": 2}}, r"overrides\['5'\] must be above 0 and at most 1"),
        (small(), {"skip": ["5"], "overrides": {"5": 0.5}}, "layer '5' is in skip and in over"),
        (small(), {"skip": ["0", "2", "3", "5"]}, "nothing to prune: the model needs a Conv1d"),
        (nn.ReLU(), {}, "nothing to prune"),
        (nn.Sequential(nn.Conv2d(4, 8, 1, groups=2)), {}, "layer '0': blocks .* not for groups"),
        (nn.Sequential(nn.Conv2d(4, 8, 1, groups=4)), {}, "layer '0': blocks .* not for groups"),
        (nn.Sequential(nn.LazyLinear(4)), {}, "layer '0': the weight has no shape yet"),
        (nn.Sequential(_nan()), {}, "layer '0': weights must be finite"),
        (nn.Sequential(_hooked()), {}, "layer '0': the weight is not a parameter of the layer"),
        (_tied(), {}, "layers '0' and '1' share one weight"),
    ],
)
def test_errors_are_one_clear_line(
    model: nn.Module, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(SecateurError, match=message) as caught:
        prune(model, **{"density": 0.5, **arguments})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_wrapped_models_are_pruned_by_the_names_within(wrap: Callable[..., nn.Module]) -> None:
    plain, model = small(), small()
    report = prune(wrap(model), density=0.5, skip=["0"], overrides={"5": 0.25})
    assert report == prune(plain, density=0.5, skip=["0"], overrides={"5": 0.25})
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    assert density_of(wrap(model)) == density_of(plain)


def test_density_of_refuses_what_has_no_blocks() -> None:
    with pytest.raises(SecateurError, match="the model has no layer with blocks"):
        density_of(nn.ReLU())
    with pytest.raises(SecateurError, match="n must be a positive integer"):
        density_of(small(), 0)


def test_the_function_is_not_hidden_by_a_module() -> None:
    """A sub-package of that name would replace the function on its first import."""
    assert secateur.prune is prune

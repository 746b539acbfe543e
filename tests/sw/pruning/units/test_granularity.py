"""Units against loops over single weights; real removal of channels."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from secateur.errors import SecateurError
from secateur.pruning import (
    Block,
    Element,
    Filter,
    GradualPruner,
    Granularity,
    InputChannel,
    Kernel,
    NOfM,
    density_of,
    granularity_of,
    prune,
)

Key = tuple[int, ...]

#: The unit of weight (o, i, y, x) in a layer of so many outputs and inputs a group.
UNIT_OF: dict[str, Callable[[Key, int, int], Key]] = {
    "element": lambda at, outputs, inputs: at,
    "block": lambda at, outputs, inputs: (at[0] // 4, *at[1:]),
    "kernel": lambda at, outputs, inputs: at[:2],
    "filter": lambda at, outputs, inputs: at[:1],
    "input": lambda at, outputs, inputs: (at[0] // outputs * inputs + at[1],),
}


@st.composite
def layers(draw: st.DrawFn) -> nn.Module:
    """Convolutions (dense, grouped, depthwise) and dense layers; some with tied weights."""
    kind = draw(st.sampled_from(["conv2d", "grouped", "depthwise", "conv1d", "linear"]))
    outputs, inputs = draw(st.integers(1, 9)), draw(st.integers(1, 6))
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 2)))
    layer: nn.Module
    if kind == "conv2d":
        layer = nn.Conv2d(inputs, outputs, kernel)
    elif kind == "grouped":
        layer = nn.Conv2d(2 * inputs, 2 * outputs, kernel, groups=2)
    elif kind == "depthwise":
        layer = nn.Conv2d(outputs, outputs, kernel, groups=outputs)
    elif kind == "conv1d":
        layer = nn.Conv1d(inputs, outputs, kernel[0])
    else:
        layer = nn.Linear(inputs, outputs)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1 << 20)))
    with torch.no_grad():
        if draw(st.booleans()):
            layer.weight.copy_(torch.randint(-2, 3, layer.weight.shape, generator=generator))
        else:
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
    return layer


def naive_units(layer: nn.Module, name: str) -> dict[Key, list[Key]]:
    """Index tuples of the weights of every unit, units in the order of their first weight."""
    outputs = len(layer.weight) // getattr(layer, "groups", 1)
    found: dict[Key, list[Key]] = defaultdict(list)
    for at in product(*(range(size) for size in layer.weight.shape)):
        found[UNIT_OF[name](at, outputs, layer.weight.shape[1])].append(at)
    return dict(sorted(found.items()))


def blockless(layer: nn.Module, name: str) -> bool:
    groups = getattr(layer, "groups", 1)
    depthwise = groups == getattr(layer, "in_channels", 0) == getattr(layer, "out_channels", 0)
    return name == "block" and groups > 1 and not depthwise


@settings(max_examples=200)
@given(
    layer=layers(),
    name=st.sampled_from(sorted(UNIT_OF)),
    density=st.floats(0.01, 1),
    threshold=st.none() | st.floats(0, 8) | st.integers(0, 12),
)
def test_every_granularity_equals_a_naive_loop(
    layer: nn.Module, name: str, density: float, threshold: float | None
) -> None:
    weight = layer.weight.detach().clone()
    granularity = granularity_of(name, 4)
    model = nn.Sequential(layer)
    if blockless(layer, name):
        with pytest.raises(SecateurError, match="not for groups = 2"):
            prune(model, density=density, granularity=granularity)
        return
    units = list(naive_units(layer, name).values())
    full = 4 if name == "block" else len(units[0])
    scores = []
    for unit in units:
        total = 0.0
        for at in unit:
            total += float(weight[at]) ** 2
        scores.append(total * (full / len(unit)))
    order = sorted(range(len(units)), key=lambda number: (-scores[number], number))
    if threshold is None:
        kept = set(order[: max(1, round(density * len(units)))])
        report = prune(model, density=density, granularity=granularity)
    else:
        kept = {u for u in order if scores[u] >= threshold} | {order[0]}
        report = prune(model, threshold=threshold, granularity=granularity)
    mask = torch.zeros_like(weight)
    for number in kept:
        for at in units[number]:
            mask[at] = 1.0
    assert torch.equal(layer.parametrizations.weight[0].mask, mask)
    assert (report.blocks, report.kept) == (len(units), len(kept))
    assert report.noun == granularity.noun
    alive = sum(any(float(weight[at] * mask[at]) for at in unit) for unit in units)
    assert density_of(model, granularity=granularity).kept == alive


@settings(max_examples=100)
@given(layer=layers(), m=st.integers(1, 5), data=st.data())
def test_n_of_m_equals_a_naive_loop(layer: nn.Module, m: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, m))
    weight = layer.weight.detach().clone()
    prune(nn.Sequential(layer), granularity=NOfM(n, m))
    groups: dict[Key, list[Key]] = defaultdict(list)
    for at in product(*(range(size) for size in weight.shape)):
        groups[(at[0], at[1] // m, *at[2:])].append(at)
    mask = torch.zeros_like(weight)
    for group in groups.values():
        for at in sorted(group, key=lambda at: (-abs(float(weight[at])), at))[:n]:
            mask[at] = 1.0
    assert torch.equal(layer.parametrizations.weight[0].mask, mask)


def test_n_of_m_again_never_brings_weights_back() -> None:
    layer = nn.Linear(8, 4)
    prune(layer, granularity=NOfM(1, 4))
    first = layer.parametrizations.weight[0].mask.clone()
    with torch.no_grad():
        layer.parametrizations.weight.original.copy_(1 - first)
    report = prune(layer, granularity=NOfM(2, 4))
    assert torch.equal(layer.parametrizations.weight[0].mask, first)
    assert report.kept == 8


def test_blocks_follow_an_order_of_channels() -> None:
    """Channels 0, 2, 4 and 1, 3 are large at different inputs; neighbours are not alike."""
    layer = nn.Linear(2, 5)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 1], [1, 3], [3, 1], [1, 3], [3, 1]]))
    model = nn.Sequential(layer)
    report = prune(model, density=0.5, granularity=Block(3, {"0": (4, 2, 0, 3, 1)}))
    assert torch.equal(layer.weight != 0, torch.tensor([[1, 0], [0, 1]] * 2 + [[1, 0]]) == 1)
    assert (report.n, report.blocks, report.kept) == (3, 4, 2)
    assert density_of(model, 3).kept == 4
    with pytest.raises(SecateurError, match="layer '0': the order must be a permutation of its 5"):
        prune(nn.Sequential(nn.Linear(2, 5)), density=0.5, granularity=Block(3, {"0": (0, 1, 2)}))


def test_global_ranking_and_gradual_pruning_take_any_units() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 1))
    pruner = GradualPruner(model, density=0.25, steps=3, granularity=Kernel(), scope="global")
    while not pruner.done:
        pruner.step()
    assert (pruner.report.blocks, pruner.report.kept, pruner.report.noun) == (72, 18, "kernels")
    assert "kernels" in str(pruner.report).splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either density or threshold"),
        ({"density": 0.5, "threshold": 1.0}, "give either density or threshold"),
        ({"threshold": -1.0}, "threshold must be a number of at least 0, not -1.0"),
        ({"threshold": math.nan}, "threshold must be a number of at least 0, not nan"),
        ({"threshold": 1.0, "overrides": {"0": 0.5}}, "overrides are densities"),
        ({"density": 0.5, "granularity": NOfM()}, "N:M sets the density itself"),
    ],
)
def test_amounts_are_refused(arguments: dict[str, object], message: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(SecateurError, match=message):
        prune(model, **arguments)
    assert not hasattr(model[0], "parametrizations")


def test_granularities_have_names() -> None:
    expected: dict[str, Granularity] = {
        "element": Element(),
        "block": Block(16),
        "kernel": Kernel(),
        "input": InputChannel(),
        "filter": Filter(),
        "1:4": NOfM(1, 4),
    }
    assert {text: granularity_of(text, 16) for text in expected} == expected
    for text in ("row", "2:", "a:b"):
        with pytest.raises(SecateurError, match="granularity must be one of 'block', 'element'"):
            granularity_of(text)
    with pytest.raises(SecateurError, match="N:M needs 1 <= N <= M, not 5:4"):
        granularity_of("5:4")
    with pytest.raises(SecateurError, match="N:M has one density"):
        GradualPruner(nn.Linear(4, 4), density=0.5, steps=2, granularity=NOfM())

"""Units against loops over single weights; real removal of channels."""

from __future__ import annotations

import copy
import math
import re
from collections import defaultdict
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import ResNet8
from tangle import Tangle
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.pruning import (
    Block,
    Element,
    Filter,
    GradualPruner,
    Granularity,
    InputChannel,
    Kernel,
    Magnitude,
    NOfM,
    density_of,
    granularity_of,
    permute,
    prune,
    prune_multiscale,
    remove_channels,
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


@settings(max_examples=200, deadline=None)
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


@settings(max_examples=100, deadline=None)
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


def whole(model: nn.Module, seed: int = 0) -> nn.Module:
    """Small whole numbers for weights, float64: sums are exact in any order."""
    generator = torch.Generator().manual_seed(seed)
    model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(1, 3, parameter.shape, generator=generator))
    return model


#: Tied layers with what zeroes a channel of them, and the channels to go.
TIED = {("a", "norm", "b", "depthwise"): [0, 3, 4, 5, 9, 10, 12, 15], ("d",): [1, 2, 6, 7, 8, 11]}


def test_removal_equals_the_model_with_zeroed_channels() -> None:
    """Through the residual, the depthwise layer, the concatenation and the flattening."""
    model = whole(Tangle())
    with torch.no_grad():
        for names, channels in TIED.items():
            for name in names:
                layer = model.get_submodule(name)
                layer.weight[channels] = 0
                if layer.bias is not None:
                    layer.bias[channels] = 0
    x = torch.randint(0, 3, (2, 2, 6, 6)).double()
    expected = model(x)
    before = copy.deepcopy(model.state_dict())
    report = remove_channels(model, x, density=0.5, round_to=2, overrides={"d": 0.6, "c": 1.0})
    assert torch.equal(model(x), expected)
    widths = {row.name: (row.before, row.after) for row in report.layers}
    tied = dict.fromkeys(["a", "b", "depthwise"], (16, 8))
    assert widths == tied | {"c": (8, 8), "d": (16, 10), "linear": (3, 3)}
    kept = [c for c in range(16) if c not in TIED["a", "norm", "b", "depthwise"]]
    assert torch.equal(model.b.weight, before["b.weight"][kept][:, kept])
    assert torch.equal(model.depthwise.weight, before["depthwise.weight"][kept])
    inputs = [*range(8), *(8 + c for c in kept)]
    rows = [c for c in range(16) if c not in TIED[("d",)]]
    assert torch.equal(model.d.weight, before["d.weight"][rows][:, inputs])
    assert model.depthwise.groups == 8
    assert report.parameters_before == sum(value.numel() for value in [
        before[name] for name in before if "running" not in name and "num_b" not in name
    ])  # fmt: skip
    assert report.parameters_after == sum(p.numel() for p in model.parameters())
    assert str(report.parameters_after) in str(report).splitlines()[-1]


def test_channels_go_by_the_sum_over_tied_filters() -> None:
    """a keeps all channels alike; b decides, and c, which is not tied, does not."""
    model = whole(Tangle())
    with torch.no_grad():
        for name in ("a", "depthwise"):
            model.get_submodule(name).weight.fill_(1.0)
        model.b.weight.fill_(1.0)
        model.b.weight[[2, 5, 11]] = 3.0
    before = model.a.bias.detach().clone()
    with torch.no_grad():
        model.a.bias.copy_(torch.arange(16.0))
    remove_channels(model, torch.ones(1, 2, 6, 6).double(), density=3 / 16, round_to=1)
    assert model.a.bias.tolist() == [2.0, 5.0, 11.0]
    assert len(before) == 16


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return ResNet8()


def test_resnet_widths_are_multiples_of_the_lanes() -> None:
    model, x = resnet(), torch.randn(2, 3, 32, 32)
    report = remove_channels(model, x, density=0.6)
    after = [row.after for row in report.layers]
    assert after == [8, 8, 8, 16, 16, 16, 40, 40, 40, 10]  # 9.6, 19.2 and 38.4 to 8, 16, 40
    assert model(x).shape == (2, 10)
    assert model.training
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(x).sum().backward()
    optimiser.step()


def test_skipped_layers_keep_their_channels_with_those_tied_to_them() -> None:
    report = remove_channels(resnet(), torch.randn(1, 3, 32, 32), density=0.5, skip=["c.4"])
    widths = [row.after for row in report.layers]
    assert widths == [8, 8, 8, 16, 32, 32, 32, 32, 32, 10]


def test_global_scope_takes_from_the_weaker_sets() -> None:
    """All channels of the first layer are alike, if small; two of the second's are all it has."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight.fill_(0.01)
        model[2].weight.fill_(0.1)
        model[2].weight[:2] = 5.0
    report = remove_channels(model, torch.ones(1, 4), density=10 / 16, scope="global", round_to=1)
    assert [row.after for row in report.layers] == [8, 2, 2]


def test_constants_replace_removed_channels() -> None:
    """Channels of relu(bias), zero weights; the readers, dense and strided, have no padding."""
    model = whole(
        nn.Sequential(
            nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 2, bias=False), nn.ReLU(),
            nn.Flatten(), nn.Linear(16, 2),
        )
    )  # fmt: skip
    with torch.no_grad():
        model[0].weight[[0, 2]] = 0
        model[2].weight[1] = 0
        model[2].weight[3] = 0
    x = torch.randint(0, 4, (3, 1, 3, 3)).double()
    plain, expected = copy.deepcopy(model), model(x)
    report = remove_channels(model, x, density=0.5, round_to=1, compensate=[x[:1], x[1:]])
    assert [row.after for row in report.layers] == [2, 2, 2]
    assert torch.equal(model(x), expected)
    assert model[2].bias is not None
    remove_channels(plain, x, density=0.5, round_to=1)
    assert not torch.equal(plain(x), expected)


def test_multiscale_is_channels_then_blocks() -> None:
    model, x = resnet(), torch.randn(1, 3, 32, 32)
    by_hand = copy.deepcopy(model)
    seen = []
    widths, blocks = prune_multiscale(
        model, x, channels=0.5, density=0.25, skip=["fc"], recover=lambda m: seen.append(m)
    )
    remove_channels(by_hand, x, density=0.5, skip=["fc"])
    report = prune(by_hand, density=0.25, skip=["fc"])
    assert seen == [model]
    assert blocks == report
    assert torch.equal(model.eval()(x), by_hand.eval()(x))
    assert [row.after for row in widths.layers][:4] == [8, 8, 8, 16]


def test_multiscale_may_choose_blocks_for_an_order_to_come() -> None:
    model, x = resnet(), torch.randn(1, 3, 32, 32)
    by_hand = copy.deepcopy(model)
    both: dict[str, Any] = {
        "density": 0.25, "n": 4, "criterion": Magnitude(1), "skip": ["c.0"],
    }  # fmt: skip
    _, blocks = prune_multiscale(
        model, x, channels=0.7, overrides={"fc": 0.5}, reorder=True, seed=3, **both
    )
    remove_channels(by_hand, x, density=0.7, criterion=Magnitude(1), round_to=4, skip=["c.0"])
    found = permute(by_hand, x, overrides={"fc": 0.5}, seed=3, **both)
    report = prune(by_hand, overrides={"fc": 0.5}, granularity=found.granularity, **both)
    assert blocks == report
    assert torch.equal(model.eval()(x), by_hand.eval()(x))
    assert found.orders["c.2"] != tuple(range(len(found.orders["c.2"])))


def test_removal_refuses_in_one_line() -> None:
    x = torch.randn(1, 3, 32, 32)
    masked = resnet()
    prune(masked, density=0.5)
    frozen = resnet()
    frozen.c[0].weight.requires_grad_(False)
    cases: list[tuple[nn.Module, dict[str, object], str]] = [
        (resnet(), {"density": 0}, "density must be above 0"),
        (resnet(), {"scope": "set"}, "scope must be 'layer' or 'global', not 'set'"),
        (resnet(), {"round_to": 0}, "round_to must be a positive integer, not 0"),
        (resnet(), {"skip": "fc"}, "skip must be a list of layer names, not the string"),
        (resnet(), {"skip": ["x"]}, "the model has no layer 'x' with channels; it has 'c.0'"),
        (resnet(), {"overrides": {"c.1": 2}}, r"overrides\['c.1'\] must be above 0"),
        (resnet(), {"overrides": {"c.0": 0.5, "c.2": 1.0}}, "share their channels; give them one"),
        (resnet(), {"compensate": x}, "compensate must be a list of batches"),
        (resnet(), {"compensate": []}, "compensate must be a list of batches"),
        (resnet(), {"compensate": [x / 0]}, "compensate: on these inputs, values are infinite"),
        (masked, {}, "layer 'c.0' has a mask: channels come first, then blocks"),
        (frozen, {}, "parameter 'c.0.weight' is frozen"),
    ]
    for model, arguments, message in cases:
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(SecateurError, match=message) as caught:
            remove_channels(model, x, **{"density": 0.5, "criterion": Magnitude(1), **arguments})
        assert "\n" not in str(caught.value)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Fixed(nn.Module):
    """What a forward that counts on its widths does with them."""

    def __init__(self, forward: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)
        self.c, self.halved, self.does = nn.Conv2d(16, 4, 1), nn.Conv2d(8, 16, 1), forward

    def forward(self, x: Tensor) -> Any:
        return self.does(self, x)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (
            lambda m, x: m.c(m.b(m.a(x)).view(-1, 16, 4, 4)),
            "^the model does not run with fewer channels of 'b': .*; name them in skip$",
        ),
        (
            lambda m, x: m.c(m.b(torch.relu(m.a(x)) + x)),
            "^the model does not run with fewer channels of 'a': .*; name them in skip$",
        ),
        (
            lambda m, x: m.c(m.halved(torch.mul(*m.a(x).chunk(2, 1)))),
            "^layer 'a' would keep . channels, not 8: the model splits",
        ),
        (lambda m, x: (m.c(m.b(m.a(x))), x), "must return one tensor, not tuple"),
    ],
)
def test_models_that_count_on_their_widths(
    forward: Callable[[Tensor, Tensor], Any], message: str
) -> None:
    torch.manual_seed(0)
    model, x = Fixed(forward), torch.randn(2, 16, 4, 4)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(SecateurError, match=message) as caught:
        remove_channels(model, x, density=0.5)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    named = re.match(".*of '(.)'|layer '(.)'", str(caught.value))
    if named:  # the advice helps
        remove_channels(model, x, density=0.5, skip=[named.group(1) or named.group(2)])


def test_grouped_convolutions_and_outputs_keep_their_channels() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 8, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
    )
    report = remove_channels(model, torch.ones(1, 2, 4, 4), density=0.5, round_to=1)
    assert [row.after for row in report.layers] == [8, 8, 4, 8]

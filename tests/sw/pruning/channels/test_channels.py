"""Real removal of channels: against zeroed channels, tied layers, refusals; then blocks."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.pruning import Magnitude, permute, prune, prune_multiscale, remove_channels
from tests.support.networks import ResNet8
from tests.sw.compiler.tangle import Tangle


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
        (lambda m, x: [m.c(m.b(m.a(x))).shape], "must return tensors, not list"),
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


def test_channels_of_padded_shortcuts_stay() -> None:
    """Nothing stands for the channels of zeros, so the sum cannot get narrower."""
    torch.manual_seed(0)

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = torch.relu(m.first(x))
        result: Tensor = m.c(torch.relu(m.halved(h) + F.pad(h, [0, 0, 0, 0, 0, 8])))
        return result

    model = Fixed(forward)
    model.first = nn.Conv2d(16, 8, 1)
    report = remove_channels(model, torch.randn(2, 16, 4, 4), density=0.5)
    widths = {row.name: row.after for row in report.layers}
    assert (widths["first"], widths["halved"]) == (8, 16)


def test_channels_of_exchanged_halves_stay() -> None:
    torch.manual_seed(0)
    model = Fixed(lambda m, x: m.c(m.b(torch.cat(m.a(x).chunk(2, 1)[::-1], 1))))
    report = remove_channels(model, torch.randn(2, 16, 4, 4), density=0.5)
    widths = {row.name: row.after for row in report.layers}
    assert (widths["a"], widths["b"]) == (16, 8)


def test_grouped_convolutions_and_outputs_keep_their_channels() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 8, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
    )
    report = remove_channels(model, torch.ones(1, 2, 4, 4), density=0.5, round_to=1)
    assert [row.after for row in report.layers] == [8, 8, 4, 8]

"""Masks through training, export and files; the gradual schedule."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from secateur.errors import SecateurError
from secateur.pruning import GradualPruner, cubic_density, density_of, prune, remove


class Net(nn.Module):
    """3 x 8 x 8 -> 10, with a depthwise layer and channels that are no multiple of 8."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.pointwise = nn.Conv2d(16, 12, 1)
        self.linear = nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        x = torch.relu(self.pointwise(torch.relu(self.depthwise(x))))
        return self.linear(x.mean(dim=(2, 3)))


def batch(count: int = 16) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def masks(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: b.clone() for name, b in model.named_buffers() if name.endswith(".mask")}


LAYERS = ["conv", "depthwise", "pointwise", "linear"]
OPTIMISERS = {
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
}


def train(model: nn.Module, optimiser: torch.optim.Optimizer, steps: int) -> None:
    labels = torch.arange(16) % 10
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(batch()), labels).backward()
        optimiser.step()


@pytest.mark.parametrize("kind", OPTIMISERS)
@pytest.mark.parametrize("made", ["before", "after"])
def test_pruned_weights_do_not_grow_back(kind: str, made: str) -> None:
    """The optimiser has momentum on the pruned weights already when it is made before."""
    model = Net()
    optimiser = OPTIMISERS[kind](model.parameters())
    if made == "before":
        train(model, optimiser, 5)
    prune(model, density=0.25)
    if made == "after":
        optimiser = OPTIMISERS[kind](model.parameters())
    zero = {name: getattr(model, name).weight.detach() == 0 for name in LAYERS}
    before = {name: getattr(model, name).weight.detach().clone() for name in LAYERS}
    kept = masks(model)
    train(model, optimiser, 20)
    assert all(torch.equal(mask, kept[name]) for name, mask in masks(model).items())
    for name in LAYERS:
        weight = getattr(model, name).weight.detach()
        assert torch.equal(weight == 0, zero[name])
        assert not torch.equal(weight, before[name])


def test_remove_leaves_the_outputs_and_the_zeros() -> None:
    model = Net()
    parameters = {name: id(p) for name, p in Net.named_parameters(model)}
    report = prune(model, density=0.3)
    model.eval()
    expected = model(batch())
    remove(model)
    assert torch.equal(model(batch()), expected)
    assert [row.kept for row in density_of(model).layers] == [row.kept for row in report.layers]
    assert {name: id(p) for name, p in model.named_parameters()} == parameters
    assert not masks(model)
    remove(model)
    assert torch.equal(model(batch()), expected)


def test_export_multiplies_by_the_mask() -> None:
    model = Net().eval()
    report = prune(model, density=0.25)
    exported = torch.export.export(model, (batch(),), strict=False)
    products = [n for n in exported.graph.nodes if n.target is torch.ops.aten.mul.Tensor]
    buffers = exported.graph_signature.inputs_to_buffers
    masked = [n for n in products if any("mask" in buffers.get(a.name, "") for a in n.args)]
    assert len(masked) == len(LAYERS) == len(products)
    module = exported.module()
    assert torch.equal(module(batch()), model(batch()))
    state = dict(module.named_buffers()) | dict(module.named_parameters())
    for row in report.layers:
        stem = f"{row.name}.parametrizations.weight"
        weight = state[f"{stem}.original"] * state[f"{stem}.0.mask"]
        baked = nn.Sequential(nn.Linear(weight[0].numel(), len(weight)))
        with torch.no_grad():
            baked[0].weight.copy_(weight.flatten(1))
        assert density_of(baked).kept == row.kept


def test_zeros_survive_training_of_the_exported_graph() -> None:
    model = Net()
    prune(model, density=0.25)
    zero = {name: getattr(model, name).weight.detach() == 0 for name in LAYERS}
    module = torch.export.export(model, (batch(),), strict=False).module()
    optimiser = torch.optim.Adam(module.parameters(), lr=0.01, weight_decay=0.1)
    train(module, optimiser, 20)
    state = dict(module.named_buffers()) | dict(module.named_parameters())
    for name in LAYERS:
        stem = f"{name}.parametrizations.weight"
        weight = state[f"{stem}.original"] * state[f"{stem}.0.mask"]
        assert torch.equal(weight == 0, zero[name])


def test_state_dict_round_trip_through_safetensors(tmp_path: Path) -> None:
    model = Net(seed=0)
    prune(model, density=0.25)
    train(model, torch.optim.Adam(model.parameters()), 3)
    save_file(model.state_dict(), tmp_path / "net.safetensors")

    other = Net(seed=1)
    prune(other, density=1.0)
    other.load_state_dict(load_file(tmp_path / "net.safetensors"))
    assert torch.equal(other.eval()(batch()), model.eval()(batch()))
    assert masks(other).keys() == masks(model).keys()
    assert all(torch.equal(mask, masks(model)[name]) for name, mask in masks(other).items())
    assert density_of(other) == density_of(model)


def test_cubic_density_by_hand() -> None:
    """s_t = s_f + (s_i - s_f) (1 - t/n)^3 with s_i = 0, s_f = 0.75: halfway s = 0.65625."""
    assert [cubic_density(t, 4, 1.0, 0.25) for t in range(5)] == [
        1.0,
        0.25 + 0.75 * 27 / 64,
        0.34375,
        0.25 + 0.75 / 64,
        0.25,
    ]
    assert cubic_density(0, 10, 0.5, 0.5) == 0.5


def test_gradual_pruning_follows_the_schedule() -> None:
    """Blocks of the convolution: 54. Masks only lose blocks, and stop at the target."""
    model = Net()
    pruner = GradualPruner(
        model, density=0.25, steps=4, begin_density=0.5, overrides={"linear": 0.75, "conv": 0.5}
    )
    assert [row.kept for row in pruner.report.layers] == [27, 9, 16, 18]
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    kept = []
    before = masks(model)
    for _ in range(6):
        train(model, optimiser, 2)
        kept.append([row.kept for row in pruner.step().layers])
        after = masks(model)
        assert all(torch.equal(after[name] * before[name], after[name]) for name in after)
        before = after
    # 0.25 + 0.25 * (27, 8, 1, 0) / 64
    # of 18 blocks: 6.398, 5.06, 4.57, 4.5; of 32: 11.375, 9, 8.125, 8
    assert [row[1] for row in kept] == [6, 5, 5, 4, 4, 4]
    assert [row[2] for row in kept] == [11, 9, 8, 8, 8, 8]
    assert {(row[0], row[3]) for row in kept} == {(27, 18)}
    assert pruner.done
    assert pruner.progress == 1.0
    assert pruner.density == 0.25


def test_gradual_global_pruning_ends_at_the_target() -> None:
    model = Net()
    pruner = GradualPruner(model, density=0.2, steps=5, scope="global", skip=("depthwise",))
    while not pruner.done:
        pruner.step()
    assert pruner.report.kept == round(0.2 * (54 + 32 + 24))
    assert pruner.report.density == pruner.report.kept / 110


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be a positive integer, not 0"),
        ({"steps": 2.0}, "steps must be a positive integer, not 2.0"),
        ({"begin_density": 0.2}, "begin_density must be at least density 0.25, not 0.2"),
        ({"begin_density": 1.1}, "begin_density must be above 0 and at most 1, not 1.1"),
        ({"density": -1}, "density must be above 0 and at most 1, not -1"),
    ],
)
def test_gradual_pruner_refuses(arguments: dict[str, object], message: str) -> None:
    model = Net()
    with pytest.raises(SecateurError, match=message):
        GradualPruner(model, **{"density": 0.25, "steps": 4, **arguments})
    assert not masks(model)

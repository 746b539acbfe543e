"""Models of several inputs and outputs: channels and criteria."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from secateur.errors import SecateurError
from secateur.pruning import criterion_of, remove_channels
from secateur.pruning.channels.reorder import reorder
from secateur.pruning.criteria.criteria import Activation
from secateur.pruning.criteria.loss_criteria import Fisher, Taylor
from secateur.pruning.units.blocks import prunable_layers
from tests.support.port_models import Heads, Siamese


def pictures(channels: int, count: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (2, count, channels, 8, 8)
    left, right = torch.randn(*shape, generator=generator)
    return left, right


class Both(nn.Module):
    """Two inputs, the second by name alone; two results in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(2, 16, 3), nn.Conv2d(2, 16, 3)
        self.a, self.b = nn.Conv2d(16, 8, 1), nn.Conv2d(16, 4, 1)

    def forward(self, left: Tensor, *, right: Tensor) -> dict[str, Any]:
        joined = torch.relu(self.first(left)) + torch.relu(self.second(right))
        return {"a": self.a(joined), "b": [self.b(joined), None]}


def loss(outputs: dict[str, Any], wanted: Tensor) -> Tensor:
    return outputs["a"].square().mean() + (outputs["b"][0].mean((2, 3)) - wanted).abs().mean()


def named() -> dict[str, Tensor]:
    return dict(zip(("left", "right"), pictures(2), strict=True))


def test_channels_of_several_inputs_and_outputs_go_together() -> None:
    model, x = Both(), named()
    shapes = [found.shape for found in tree_leaves(model(**x)) if found is not None]
    report = remove_channels(model, x, density=0.5)
    widths = {row.name: (row.before, row.after) for row in report.layers}
    assert widths == {"first": (16, 8), "second": (16, 8), "a": (8, 8), "b": (4, 4)}
    assert [f.shape for f in tree_leaves(model(**x)) if f is not None] == shapes


def test_the_heads_of_a_detector_keep_their_channels() -> None:
    torch.manual_seed(0)
    model, x = Heads(), torch.randn(2, 3, 8, 8)
    report = remove_channels(model, x, density=0.5, round_to=4)
    assert {row.name: row.after for row in report.layers} == {
        "stem": 4, "down": 8, "boxes": 4, "classes": 5, "fine": 6,
    }  # fmt: skip


def test_reordered_filters_change_no_output() -> None:
    model, x = Both(), named()
    before, old = model(**x), model.first.weight.clone()
    order = list(reversed(range(16)))
    reorder(model, x, {"first": order})
    assert torch.equal(model.first.weight, old.flip(0))
    for found, wanted in zip(tree_leaves(model(**x)), tree_leaves(before), strict=True):
        assert found is wanted is None or torch.allclose(found, wanted, atol=1e-6)


def test_a_loss_takes_all_outputs() -> None:
    model, x, wanted = Both(), named(), torch.randn(3, 4)
    layers = prunable_layers(model)
    found = Taylor([(x, wanted)], loss)(model, layers)
    loss(model(**x), wanted).backward()
    for name, layer in layers.items():
        assert torch.allclose(found[name], (layer.weight.grad * layer.weight).abs().double())


def test_a_sample_is_a_part_of_every_input_and_target() -> None:
    model, x, wanted = Both(), named(), torch.randn(3, 4)
    layers = prunable_layers(model)
    found = Fisher([(x, wanted)], loss)(model, layers)
    ones = [({k: v[i : i + 1] for k, v in x.items()}, wanted[i : i + 1]) for i in range(3)]
    apart = [Fisher([one], loss)(model, layers) for one in ones]
    for name in layers:
        assert torch.allclose(found[name], sum(part[name] for part in apart) / 3)


def test_a_trunk_sees_both_inputs() -> None:
    """As much as if they were one batch."""
    torch.manual_seed(0)
    model, (left, right) = Siamese(), pictures(2)
    layers = {"conv": model.trunk[0]}
    found = Activation([((left, right), None)])(model, layers)
    whole = Activation([torch.cat([left, right])])(model.trunk, layers)
    assert torch.allclose(found["conv"], whole["conv"])


def test_a_criterion_by_name_takes_them_too() -> None:
    model, x, wanted = Both(), named(), torch.randn(3, 4)
    criterion = criterion_of("taylor", batches=[(x, wanted)], loss=loss)
    report = remove_channels(model, x, density=0.5, criterion=criterion, compensate=[x])
    assert [row.after for row in report.layers] == [8, 8, 8, 4]


def test_a_result_without_tensors_is_refused() -> None:
    class Nothing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 16)

        def forward(self, x: Tensor) -> None:
            self.layer(x)

    with pytest.raises(SecateurError, match="must return tensors, not NoneType"):
        remove_channels(Nothing(), torch.randn(2, 4), density=0.5)

"""Cuts at one density for all layers, against what the budgets and the libraries say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from secateur.errors import SecateurError
from secateur.pruning import Magnitude, remove_channels
from secateur.pruning.budget.baselines import elements, fit_channels, keep_all, uniform
from secateur.pruning.budget.costing import CostModel
from secateur.pruning.budget.search import Budgets
from secateur.pruning.criteria.saliency import block_saliency
from secateur.pruning.units.blocks import weight_of
from secateur.target import Target
from tests import parts

TARGET = Target.load("8x8")
BUDGETS = Budgets(cycles=1600)


@pytest.fixture
def net() -> nn.Module:
    return parts.model(0).eval()


def model(net: nn.Module) -> CostModel:
    return CostModel(net, parts.data(0)["train_x"][:32], TARGET)


def test_uniform_keeps_the_same_share_of_the_best_blocks(net: nn.Module) -> None:
    costs, saliency = model(net), block_saliency(net, 8)
    found = uniform(costs, saliency, BUDGETS)
    assert 0.9 * 1600 <= found.cost.cycles <= 1600
    shares = {name: mask.double().mean().item() for name, mask in found.masks.items()}
    share = shares["second"]
    assert 0 < share < 1
    for name, mask in found.masks.items():
        assert shares[name] == pytest.approx(share, abs=1 / mask.numel())
        if not mask.all():
            assert saliency[name][mask].min() >= saliency[name][~mask].max()
    found.apply(net)
    assert model(net).cost({}).cycles == found.cost.cycles


def test_uniform_counts_what_is_left(net: nn.Module) -> None:
    """Blocks that are gone are not kept, however salient; the share is of all blocks."""
    costs, saliency = model(net), block_saliency(net, 8)
    gone = saliency["second"] > saliency["second"].median()
    costs.alive["second"] &= ~gone.numpy()
    found = uniform(costs, saliency, Budgets(blocks=sum(s.numel() for s in saliency.values()) // 4))
    kept = found.masks["second"]
    assert not (kept & gone).any()
    assert int(kept.sum()) in (kept.numel() // 4, kept.numel() // 4 - 1)


def test_elements_are_the_largest_weights_and_blocks_stay_for_one_of_them(net: nn.Module) -> None:
    costs = model(net)
    before = {name: layer.weight.detach().abs() for name, layer in net.named_modules()
              if isinstance(layer, nn.Conv2d | nn.Linear)}  # fmt: skip
    found = elements(costs, net, before, BUDGETS)
    assert found.cost.cycles <= 1600
    for name, weight in before.items():
        kept = weight_of(net.get_submodule(name)) != 0
        assert weight[kept].min() >= weight[~kept].max() if not kept.all() else True
        alive = torch.stack([part.flatten(1).any(0) for part in kept.split(8)])
        assert torch.equal(found.masks[name], alive)
    # Blocks of eight survive eight times as easily as weights.
    kept = weight_of(net.get_submodule("second")) != 0
    assert found.masks["second"].double().mean() > 2 * kept.double().mean()
    # Weights that are kept may still be 0 in int8.
    assert model(net).cost({}).cycles <= found.cost.cycles


def test_channels_are_as_many_as_fit(net: nn.Module) -> None:
    x = parts.data(0)["train_x"][:32]
    density = fit_channels(net, x, TARGET, BUDGETS, criterion=Magnitude(2))

    def cycles(share: float) -> int:
        narrow = parts.model(0).eval()
        remove_channels(narrow, x[:1], density=share, criterion=Magnitude(2))
        return model(narrow).cost({}).cycles

    assert cycles(density) <= 1600 < cycles(density + 1 / 1024)


def test_nothing_goes_where_nothing_must(net: nn.Module) -> None:
    costs, saliency = model(net), block_saliency(net, 8)
    assert all(
        mask.all() for mask in keep_all(costs, saliency, Budgets(cycles=10**6)).masks.values()
    )
    with pytest.raises(SecateurError, match="bytes as it is, more than the budget"):
        keep_all(costs, saliency, BUDGETS)


def test_one_density_may_not_reach_the_budget(net: nn.Module) -> None:
    with pytest.raises(SecateurError, match="one density for all layers"):
        uniform(model(net), block_saliency(net, 8), Budgets(cycles=100))

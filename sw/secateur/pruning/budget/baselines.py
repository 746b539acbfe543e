"""Baselines that meet the budgets without knowing what a block costs.

Each has one density for all layers, the largest at which the image meets the budgets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune
from torch.utils._pytree import tree_map

from secateur.errors import SecateurError
from secateur.fx.computed import copied
from secateur.pruning.budget.budget import Allocation
from secateur.pruning.budget.costing import Cost, CostModel, Kept
from secateur.pruning.budget.search import NAMED, Budgets
from secateur.pruning.channels.remove import ChannelReport, remove_channels
from secateur.pruning.criteria.criteria import Criterion
from secateur.pruning.criteria.probe import Inputs
from secateur.pruning.units.blocks import nonzero_blocks, prunable_layers, weight_of
from secateur.pruning.units.mask import mask_of, set_mask
from secateur.target import Target

#: Densities that are tried are multiples of one over this.
GRID = 1024


def keep_all(costs: CostModel, layers: Mapping[str, Tensor], budgets: Budgets) -> Allocation:
    """Keep all blocks of a network that meets the budgets as it is.

    Parameters
    ----------
    costs : of the network
    layers : by name, of which the blocks are counted
    budgets : limits

    Raises
    ------
    SecateurError : it does not meet them
    """
    kept = {name: costs.alive[name] for name in layers}
    cost = costs.cost(kept)
    if not _fits(cost, kept, budgets):
        raise SecateurError(
            f"the network takes {cost.cycles:,} cycles and {cost.rom_bytes:,} bytes as it is, more "
            f"than the budget, and the method 'none' prunes no blocks: give a smaller network or a "
            f"larger budget"
        )
    return _allocation(costs, kept, cost, budgets)


def uniform(costs: CostModel, saliency: Mapping[str, Tensor], budgets: Budgets) -> Allocation:
    """The same share of the blocks of every layer, the most salient first.

    Parameters
    ----------
    costs : of the network
    saliency : (channel groups, positions) by name of layer
    budgets : limits

    Raises
    ------
    SecateurError : no share meets the budgets
    """

    def kept_at(density: float) -> Kept:
        kept = {}
        for name, scores in saliency.items():
            # Pruned blocks come last, whatever their saliency.
            alive = costs.alive[name].ravel()
            order = np.lexsort((-scores.double().numpy().ravel(), ~alive))
            chosen = np.zeros(alive.size, bool)
            chosen[order[: max(1, round(density * alive.size))]] = True
            kept[name] = (chosen & alive).reshape(costs.alive[name].shape)
        return kept

    density = _largest(lambda d: _priced(costs, kept_at(d)), budgets)
    kept = kept_at(density)
    return _allocation(costs, kept, costs.cost(kept), budgets)


def elements(
    costs: CostModel, model: nn.Module, layers: Iterable[str], budgets: Budgets
) -> Allocation:
    """Single weights by magnitude, as torch.nn.utils.prune chooses them; puts the masks on.

    A block takes its cycle as long as one of its weights is not zero.

    Parameters
    ----------
    costs : of the network
    model : that the costs are of; it gets the masks
    layers : names of those to prune
    budgets : limits

    Raises
    ------
    SecateurError : no density meets the budgets
    """
    modules = prunable_layers(model)
    weights = {name: weight_of(modules[name]).cpu().contiguous() for name in layers}
    present = {}
    for name, weight in weights.items():
        existing = mask_of(modules[name])
        present[name] = torch.ones_like(weight) if existing is None else existing.mask.cpu()

    def masks_at(density: float) -> dict[str, Tensor]:
        masks = {}
        for name, weight in weights.items():
            removed = weight.numel() - max(1, round(density * weight.numel()))
            method = torch_prune.L1Unstructured(amount=removed)
            whole = torch.ones_like(weight)
            masks[name] = method.compute_mask(weight, whole) * present[name]
        return masks

    def kept_at(density: float) -> Kept:
        masks = masks_at(density).items()
        return {
            name: nonzero_blocks(mask, costs.n).numpy() & costs.alive[name] for name, mask in masks
        }

    density = _largest(lambda d: _priced(costs, kept_at(d)), budgets)
    kept = kept_at(density)
    for name, mask in masks_at(density).items():
        set_mask(modules[name], mask)
    return _allocation(costs, kept, costs.cost(kept), budgets)


def fit_channels(
    model: nn.Module,
    example: Inputs,
    target: Target,
    budgets: Budgets,
    *,
    criterion: Criterion | None = None,
    skip: Iterable[str] = (),
) -> float:
    """The largest density of `remove_channels` at which the narrower network meets the budgets.

    Parameters
    ----------
    model : float, without masks; left as it is
    example : inputs, samples first
    target : of the image
    budgets : limits
    criterion, skip : as for `remove_channels`

    Raises
    ------
    SecateurError : none does
    """
    skipped, first = list(skip), tree_map(lambda x: x[:1], example)
    known: dict[tuple[tuple[str, int], ...], tuple[Cost, Kept]] = {}

    def priced(density: float) -> tuple[Cost, Kept]:
        trial = copied(model)
        report = remove_channels(
            trial, first, density=density, criterion=criterion, skip=skipped,
            round_to=target.geometry.n,
        )  # fmt: skip
        widths = _widths(report)
        if widths not in known:
            costs = CostModel(trial, example, target)
            known[widths] = costs.cost({}), costs.alive
        return known[widths]

    return _largest(priced, budgets)


def _widths(report: ChannelReport) -> tuple[tuple[str, int], ...]:
    return tuple((row.name, row.after) for row in report.layers)


def _priced(costs: CostModel, kept: Kept) -> tuple[Cost, Kept]:
    return costs.cost(kept), kept


def _largest(priced: Callable[[float], tuple[Cost, Kept]], budgets: Budgets) -> float:
    """The largest multiple of 1 / GRID, at most 1, that fits; fitting is monotone but for steps."""

    def fits(density: float) -> bool:
        return _fits(*priced(density), budgets)

    low, high = 0, GRID
    if fits(1.0):
        return 1.0
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle / GRID):
            low = middle
        else:
            high = middle
    if low == 0:
        cost, _ = priced(1 / GRID)
        layers = sorted(cost.layer_cycles.items(), key=lambda item: -item[1])
        held = ", ".join(f"{name} ({took:,})" for name, took in layers[:NAMED])
        raise SecateurError(
            f"the budget cannot be met with one density for all layers: {cost.cycles:,} cycles and "
            f"{cost.rom_bytes:,} bytes are the least; cycles are mostly in {held}; give a larger "
            f"budget, or a smaller network"
        )
    return low / GRID


def _fits(cost: Cost, kept: Kept, budgets: Budgets) -> bool:
    return bool((budgets.spent(cost, kept) <= budgets.limits()).all())


def _allocation(costs: CostModel, kept: Kept, cost: Cost, budgets: Budgets) -> Allocation:
    return Allocation(
        n=costs.n,
        masks={name: torch.from_numpy(mask.copy()) for name, mask in kept.items()},
        shapes={name: costs.shapes[name] for name in kept},
        cost=cost,
        dense=costs.cost(costs.alive),
        budgets=budgets,
        saliency=None,
    )

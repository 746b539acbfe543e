"""What the stages ``channels`` and ``prune`` of a recipe remove, and when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from secateur.fx.computed import copied
from secateur.pruning.budget import baselines
from secateur.pruning.budget.budget import Allocation, allocate, make_budgets
from secateur.pruning.budget.costing import CostModel
from secateur.pruning.budget.pruner import Cuts, due
from secateur.pruning.budget.search import Budgets
from secateur.pruning.channels.permute import Permutation, permute
from secateur.pruning.channels.remove import ChannelReport, remove_channels
from secateur.pruning.channels.reorder import reorder
from secateur.pruning.criteria.criteria import Criterion, criterion_of
from secateur.pruning.criteria.probe import Inputs
from secateur.pruning.criteria.saliency import block_saliency
from secateur.pruning.methods.refit import reconstruct
from secateur.pruning.methods.rewind import rewind, unmasked_state
from secateur.pruning.recipes.data.part import Part
from secateur.pruning.recipes.data.trees import Batch, taken
from secateur.pruning.recipes.tables import Recipe
from secateur.pruning.recipes.task.task import Task
from secateur.pruning.recipes.training import Augment
from secateur.target import Target

#: Swaps of channels that are tried in each set with ``prune.reorder``; it takes seconds for 64
#: channels.
SWAPS = 20_000


def batches_of(recipe: Recipe, part: Part) -> list[Batch]:
    """``prune.samples`` training samples of a recipe, in batches."""
    return part.split(part.some(recipe.prune.samples, recipe.seed), recipe.training.batch)


def with_copies(recipe: Recipe, part: Part, augment: Augment | None) -> list[Batch]:
    """`batches_of`, and behind them ``prune.copies`` augmented copies of each.

    Parameters
    ----------
    recipe, part : as for `batches_of`
    augment : (inputs, generator) -> inputs; None: there are no copies
    """
    batches = batches_of(recipe, part)
    if augment is None:
        return batches
    generator = torch.Generator().manual_seed(recipe.seed)
    copies = [
        (augment(tree_map(torch.clone, x), generator), y)
        for _ in range(recipe.prune.copies)
        for x, y in batches
    ]
    return batches + copies


def criterion_for(
    name: str,
    recipe: Recipe,
    part: Part,
    task: Task,
    n: int,
    batches: Sequence[Batch] | None = None,
) -> Criterion:
    """A criterion of a recipe.

    Parameters
    ----------
    name : as in `secateur.pruning.criterion_of`
    recipe : has samples, batch and seed
    part : the recipe's training samples
    task : has the loss
    n : output channels of a block
    batches : of these samples; None: `batches_of`
    """
    batches = batches_of(recipe, part) if batches is None else batches
    if name == "fisher":  # which goes sample by sample, whatever the targets are
        batches = [sample for batch in batches for sample in part.split(batch, 1)]
    return criterion_of(name, batches=batches, loss=task.objective, seed=recipe.seed, n=n)


def narrow(
    model: nn.Module,
    recipe: Recipe,
    target: Target,
    example: Inputs,
    criterion: Criterion,
    density: float | None,
) -> tuple[float, ChannelReport]:
    """Remove channels, in place; of equal models the same.

    Parameters
    ----------
    model : float, without masks
    recipe : has the budget and the layers to skip
    target : of the image
    example : inputs, samples first
    criterion : ranks the channels
    density : share of channels that stays; None: the largest that meets the budget

    Returns
    -------
    density : that was used
    report : widths per layer
    """
    skip = recipe.channels.skip
    if density is None:
        limits = vars(recipe.budget) | {"density": None}  # of blocks, which go later
        budgets = make_budgets(target, 0, **limits)
        density = baselines.fit_channels(
            model, example, target, budgets, criterion=criterion, skip=skip
        )
    report = remove_channels(
        model, taken(example, slice(1)), density=density, criterion=criterion, skip=skip,
        round_to=target.geometry.n,
    )  # fmt: skip
    return density, report


class BlockCuts:
    """The prunings of one stage: `before_batch` is called before each batch of its training.

    Parameters
    ----------
    model : as at the beginning of the stage; changed in place
    recipe : has budget, method and schedule
    target : of the image
    part : the recipe's training samples
    task : has the loss
    example : inputs, samples first, to calibrate with
    early : has the weights that are restored after every cut (schedule "rewind"), or None
    augment : (inputs, generator) -> inputs, for ``prune.copies``
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        target: Target,
        part: Part,
        task: Task,
        example: Inputs,
        early: nn.Module | None,
        augment: Augment | None = None,
    ) -> None:
        self.model, self.recipe, self.part, self.task = model, recipe, part, task
        self.augment = augment
        self.last: dict[str, Any] = {}
        """The latest cut, JSON."""
        self.order: Permutation | None = None
        """The order of the filters, with ``prune.reorder``."""
        self.cuts = self._cuts(CostModel(model, example, target))
        if recipe.prune.reorder:
            first = taken(example, slice(1))
            self.order = self._order(first)
            for each in (model, early):
                if each is not None:
                    reorder(each, first, self.order.orders)
            self.cuts.costs = CostModel(model, example, target)
        self.early = None if early is None else unmasked_state(early)
        self.dense = copied(model) if recipe.prune.reconstruct else None

    def _cuts(self, costs: CostModel) -> Cuts:
        prune = self.recipe.prune
        return Cuts(
            self.model,
            costs,
            self._choose,
            cuts=1 if prune.schedule == "one-shot" else prune.steps,
            skip=prune.skip,
            budget=vars(self.recipe.budget),
        )

    def _order(self, example: Inputs) -> Permutation:
        """For the densities that the budget leaves the layers in the order they are in."""
        recipe = self.recipe
        kept = self._choose(self.model, self.cuts.costs, self.cuts.end).report.layers
        return permute(
            self.model, example,
            density=1.0,
            n=self.cuts.costs.n,
            criterion=self._criterion(),
            skip=recipe.prune.skip,
            overrides={row.name: row.density for row in kept},
            seed=recipe.seed,
            swaps=SWAPS,
        )  # fmt: skip

    def _criterion(self) -> Criterion:
        name = self.recipe.prune.criterion
        batches = self._batches() if name == "reconstruction" else None
        return criterion_for(name, self.recipe, self.part, self.task, self.cuts.costs.n, batches)

    def _batches(self) -> list[Batch]:
        """What needs no targets sees."""
        return with_copies(self.recipe, self.part, self.augment)

    def before_batch(self, done: int, total: int) -> None:
        """Make the cuts that are due: gradual ones come within the first half of the batches."""
        span = total if self.early is not None else total // 2
        allocation = self.cuts.cut_to(due(done, span, self.cuts.count))
        if allocation is None:
            return
        self.last = {
            "kept": allocation.kept,
            "blocks": {row.name: row.blocks for row in allocation.report.layers},
            "cycles": allocation.cost.cycles,
            "rom_bytes": allocation.cost.rom_bytes,
            "used": allocation.used,
        }
        if self.dense is not None and self.cuts.done == self.cuts.count:
            reconstruct(self.model, self.dense, self._batches())
        if self.early is not None:
            rewind(self.model, self.early)

    def _choose(self, model: nn.Module, costs: CostModel, budgets: Budgets) -> Allocation:
        prune = self.recipe.prune
        saliency = block_saliency(model, costs.n, self._criterion(), prune.skip)
        if prune.method == "budget":
            normalize: Any = prune.normalize
            return allocate(costs, saliency, budgets, normalize=normalize)
        if prune.method == "uniform":
            return baselines.uniform(costs, saliency, budgets)
        if prune.method == "element":
            return baselines.elements(costs, model, saliency, budgets)
        return baselines.keep_all(costs, saliency, budgets)

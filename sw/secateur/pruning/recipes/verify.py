"""The effect of pruning: agreement, sensitivity per layer, and a gate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.fx.computed import copied
from secateur.progress import Progress, silent
from secateur.pruning.methods.plan import check_density
from secateur.pruning.recipes.task.task import ACCURACY, Metric, Score
from secateur.pruning.units.blocks import prunable_layers, to_mask, weight_of
from secateur.pruning.units.mask import mask_of, set_mask
from secateur.pruning.units.select import kept_count


class GateError(SecateurError):
    """The pruned model is worse by more than is allowed."""


def agreement(a: Tensor, b: Tensor) -> float:
    """Share of samples on which two models give the same answer, right or wrong."""
    return float((a.argmax(dim=1) == b.argmax(dim=1)).double().mean())


def gate(dense: Score, pruned: Score, max_drop: float, metric: Metric = ACCURACY) -> None:
    """Refuse a model that has become too much worse.

    Parameters
    ----------
    dense, pruned : scores to compare
    max_drop : points (hundredths) of accuracy that may be lost; by how much another metric may be
        worse
    metric : of the scores

    Raises
    ------
    GateError : more is lost, with both values
    SecateurError : a limit that is not a number, or below 0
    """
    if not max_drop >= 0:
        raise SecateurError(f"max_drop must be points, 0 or more, not {max_drop!r}")
    lost = metric.lost(dense.value, pruned.value)
    moved = "fell" if metric.direction == "max" else "rose"
    if metric is ACCURACY:
        lost *= 100
        text = f"{lost:.2f} points, from {dense.value:.2%} to {pruned.value:.2%}"
    else:
        text = f"{lost:.4g}, from {dense.value:.4g} to {pruned.value:.4g}"
    if lost > max_drop + 1e-9:
        raise GateError(
            f"{metric.name} {moved} by {text}; --max-drop allows {max_drop:g}: use a larger "
            f"budget, or train longer after pruning"
        )


@dataclass(frozen=True)
class Sensitivity:
    """One layer pruned, all others as they were.

    Attributes
    ----------
    layer : its name
    density : share of its blocks that stays
    figures : of the model, by name
    """

    layer: str
    density: float
    figures: Mapping[str, float]


def sensitivity(
    model: nn.Module,
    judge: Callable[[nn.Module], Mapping[str, float]],
    saliency: Mapping[str, Tensor],
    n: int,
    densities: Iterable[float] = (0.75, 0.5, 0.25, 0.1),
    *,
    progress: Progress = silent,
) -> list[Sensitivity]:
    """Prune one layer at a time, one-shot and without recovery, and judge the model.

    Parameters
    ----------
    model : trained, left as it is; masks that it has stay
    judge : figures of a model, by name; not on the test split, if the result is used to tune
    saliency : (channel groups, positions) by module name
    n : output channels of a block
    densities : shares of the blocks to keep
    progress : called after every layer, with its name as the note

    Raises
    ------
    SecateurError : an unknown layer, or a density that is not above 0 and at most 1

    References
    ----------
    Li et al., "Pruning filters for efficient ConvNets", ICLR 2017, section 3.2, with blocks for
    filters.
    """
    densities = list(densities)
    for density in densities:
        check_density("densities", density)
    trial = copied(model)
    layers = prunable_layers(trial)
    rows = []
    for done, (name, scores) in enumerate(saliency.items()):
        if name not in layers:
            raise SecateurError(f"saliency: the model has no layer {name!r}")
        layer = layers[name]
        before = mask_of(layer)
        base = torch.ones_like(weight_of(layer)) if before is None else before.mask.clone()
        order = torch.sort(scores.flatten(), descending=True, stable=True).indices
        for density in densities:
            kept = torch.zeros(scores.numel(), dtype=torch.bool)
            kept[order[: kept_count(density, scores.numel())]] = True
            mask = to_mask(kept.reshape(scores.shape), base, n)
            set_mask(layer, mask * base)
            rows.append(Sensitivity(name, density, judge(trial)))
        set_mask(layer, base)
        progress("sensitivity", done + 1, len(saliency), name)
    return rows

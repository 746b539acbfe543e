"""The effect of pruning: accuracy, loss, agreement, sensitivity per layer, and a gate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur import api
from secateur.errors import SecateurError
from secateur.fx.computed import copied
from secateur.image.image import Image
from secateur.progress import Progress, silent
from secateur.pruning.criteria.probe import evaluating
from secateur.pruning.methods.plan import check_density
from secateur.pruning.units.blocks import prunable_layers, to_mask, weight_of
from secateur.pruning.units.mask import mask_of, set_mask
from secateur.pruning.units.select import kept_count

#: A batch of inputs to logits (batch, classes).
Predict = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
BATCH = 256


@dataclass(frozen=True)
class Score:
    """Result on held-out data.

    Attributes
    ----------
    accuracy : share of right answers, 0 to 1
    loss : mean
    """

    accuracy: float
    loss: float


class GateError(SecateurError):
    """The pruned model lost more accuracy than allowed."""


def logits(predict: Predict, x: Tensor, batch: int = BATCH) -> Tensor:
    """Outputs for all inputs, without gradient.

    Parameters
    ----------
    predict : a module, which then runs in evaluation mode, or any function of a batch
    x : inputs, samples first
    batch : samples per call
    """
    mode = evaluating(predict) if isinstance(predict, nn.Module) else nullcontext()
    with mode, torch.no_grad(), torch.backends.nnpack.flags(enabled=False):
        return torch.cat([predict(part) for part in x.split(batch)])


def image_logits(image: Image, x: Tensor) -> Tensor:
    """Outputs of the golden interpreter: the array's, bit for bit."""
    return torch.from_numpy(api.run(image, np.asarray(x)).values)


def score(outputs: Tensor, y: Tensor, loss: Loss = F.cross_entropy) -> Score:
    """Score of outputs.

    Parameters
    ----------
    outputs : logits (count, classes)
    y : labels (count,)
    loss : (outputs, targets) -> scalar
    """
    right = (outputs.argmax(dim=1) == y).double().mean()
    return Score(float(right), float(loss(outputs, y)))


def agreement(a: Tensor, b: Tensor) -> float:
    """Share of samples on which two models give the same answer, right or wrong."""
    return float((a.argmax(dim=1) == b.argmax(dim=1)).double().mean())


def gate(dense: Score, pruned: Score, max_drop: float) -> None:
    """Refuse too large a loss of accuracy.

    Parameters
    ----------
    dense, pruned : scores to compare
    max_drop : points (hundredths) of accuracy that may be lost

    Raises
    ------
    GateError : more is lost, with both accuracies
    SecateurError : a limit that is not a number, or below 0
    """
    if not max_drop >= 0:
        raise SecateurError(f"max_drop must be points, 0 or more, not {max_drop!r}")
    drop = 100 * (dense.accuracy - pruned.accuracy)
    if drop > max_drop + 1e-9:
        raise GateError(
            f"accuracy fell by {drop:.2f} points, from {dense.accuracy:.2%} to "
            f"{pruned.accuracy:.2%}; --max-drop allows {max_drop:g}: use a larger budget, or "
            f"train longer after pruning"
        )


@dataclass(frozen=True)
class Sensitivity:
    """One layer pruned, all others as they were.

    Attributes
    ----------
    layer : its name
    density : share of its blocks that stays
    score : of the model
    """

    layer: str
    density: float
    score: Score


def sensitivity(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    saliency: Mapping[str, Tensor],
    n: int,
    densities: Iterable[float] = (0.75, 0.5, 0.25, 0.1),
    *,
    loss: Loss = F.cross_entropy,
    progress: Progress = silent,
) -> list[Sensitivity]:
    """Prune one layer at a time, one-shot and without recovery, and score the model.

    Parameters
    ----------
    model : trained, left as it is; masks that it has stay
    x, y : inputs and labels to score on; not the test split, if the result is used to tune
    saliency : (channel groups, positions) by module name
    n : output channels of a block
    densities : shares of the blocks to keep
    loss : (outputs, targets) -> scalar
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
            rows.append(Sensitivity(name, density, score(logits(trial, x), y, loss)))
        set_mask(layer, base)
        progress("sensitivity", done + 1, len(saliency), name)
    return rows

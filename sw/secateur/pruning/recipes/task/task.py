"""The loss and the metric of a recipe. Those of classification are the default."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.callables import function
from secateur.errors import SecateurError
from secateur.pruning.criteria.probe import ModelLoss, called, evaluating
from secateur.pruning.recipes.data.trees import Batch, leaves_of
from secateur.pruning.recipes.tables import Training


class Batches(Protocol):
    """What a metric goes through: a `secateur.pruning.recipes.data.part.Loader`, or a list."""

    def __len__(self) -> int:
        """Batches in it."""

    def __iter__(self) -> Iterator[Batch]:
        """Inputs and targets, on the device of the model."""


@dataclass(frozen=True)
class Metric:
    """How well a model does.

    Attributes
    ----------
    name : key of its values in records
    of : (model, loader) -> number
    direction : "max" if more is better, else "min"
    """

    name: str
    of: Callable[[nn.Module, Batches], float]
    direction: str = "max"

    def lost(self, before: float, after: float) -> float:
        """By how much the second value is worse; negative: better."""
        return before - after if self.direction == "max" else after - before


@dataclass(frozen=True)
class Score:
    """Result on held-out data.

    Attributes
    ----------
    value : of the metric; accuracy is a share, 0 to 1
    loss : mean over the samples; None with a metric of the recipe's own
    """

    value: float
    loss: float | None = None


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Of the outputs (samples, classes) of a model and class numbers (samples,)."""
    x, y = batch
    return F.cross_entropy(called(model, x), y)


def accuracy(model: nn.Module, loader: Batches) -> float:
    """Share of the samples whose largest output is that of their class number."""
    found = [(called(model, x).argmax(dim=1) == y).double() for x, y in loader]
    return float(torch.cat(found).mean())


ACCURACY = Metric("accuracy", accuracy)


@dataclass(frozen=True)
class Task:
    """What a recipe trains for.

    Attributes
    ----------
    loss : (model, batch) -> scalar, the mean over the batch
    metric : how well a model does
    distillation : "kl" or "mse", how outputs compare with those of the dense model
    """

    loss: Callable[[nn.Module, Batch], Tensor] = cross_entropy
    metric: Metric = ACCURACY
    distillation: str = "kl"

    @classmethod
    def of(cls, training: Training) -> Task:
        """That of a recipe.

        Raises
        ------
        SecateurError : a callable cannot be imported
        """
        loss: Any = cross_entropy
        if training.loss is not None:
            loss = function("training.loss", training.loss)
        metric = ACCURACY
        if training.metric is not None:
            found = function("training.metric", training.metric)
            metric = Metric(training.metric, found, training.direction)
        default = "kl" if training.loss is None else "mse"
        return cls(loss, metric, training.distillation or default)

    @property
    def classifies(self) -> bool:
        """Whether its metric is accuracy."""
        return self.metric is ACCURACY

    @property
    def objective(self) -> ModelLoss:
        """The loss, for criteria and attacks."""
        return ModelLoss(self.loss)


def evaluate(model: nn.Module, loader: Batches, task: Task) -> tuple[Score, Tensor | None]:
    """Score of a model, and of a classifier its outputs (samples, classes), on the processor.

    Parameters
    ----------
    model : runs in evaluation mode, without gradient
    loader : samples
    task : has loss and metric

    Raises
    ------
    SecateurError : the metric is not a finite number
    """
    with evaluating(model), torch.no_grad(), torch.backends.nnpack.flags(enabled=False):
        if not task.classifies:
            return Score(number(task.metric, task.metric.of(model, loader))), None
        total, right, parts = 0.0, 0, []
        for x, y in loader:
            outputs = called(model, x)
            right += int((outputs.argmax(dim=1) == y).sum())
            own = task.loss is not cross_entropy
            loss = task.loss(model, (x, y)) if own else F.cross_entropy(outputs, y)
            total += float(loss) * len(outputs)
            parts.append(outputs.cpu())
    whole = torch.cat(parts)
    return Score(right / len(whole), total / len(whole)), whole


def mean_loss(model: nn.Module, loader: Batches, task: Task) -> float:
    """The mean over all samples of the loss of a task.

    Parameters
    ----------
    model : runs in evaluation mode, without gradient
    loader : samples
    task : has the loss
    """
    total, count = 0.0, 0
    with evaluating(model), torch.no_grad(), torch.backends.nnpack.flags(enabled=False):
        for batch in loader:
            samples = len(leaves_of(batch[0])[0])
            total += float(task.loss(model, batch)) * samples
            count += samples
    return total / count


def number(metric: Metric, found: Any) -> float:
    """What a metric has returned.

    Raises
    ------
    SecateurError : not one finite number
    """
    try:
        value = float(found)
    except (TypeError, ValueError):
        value = float("nan")
    if not torch.tensor(value).isfinite():
        raise SecateurError(
            f"training.metric = {metric.name!r} must return one finite number, not {found!r}"
        )
    return value

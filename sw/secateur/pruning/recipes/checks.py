"""What a recipe names, tried before any training: model, data, augmentations, loss, criteria."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.errors import SecateurError
from secateur.pruning.criteria.probe import called, evaluating
from secateur.pruning.criteria.saliency import block_saliency
from secateur.pruning.recipes.cutting import criterion_for
from secateur.pruning.recipes.data.part import on
from secateur.pruning.recipes.data.trees import Batch, leaves_of
from secateur.pruning.recipes.state import RunState
from secateur.pruning.recipes.tables import PHASES
from secateur.pruning.recipes.task.seen import Seen
from secateur.pruning.recipes.task.task import cross_entropy
from secateur.text import first_line


def check_range(run: RunState) -> None:
    """Refuse attacks and corruptions that do not suit the samples.

    Raises
    ------
    SecateurError : attacks on several inputs, corruptions of what is not images, or samples outside
        of the given range
    """
    verify, facts = run.recipe.verify, run.data.test.facts
    wanted = [name for name in ("fgsm", "pgd", "corruptions") if getattr(verify, name)]
    if not wanted:
        return
    if not isinstance(run.data.test.some(1, 0)[0], Tensor):
        raise SecateurError(
            f"verify.{wanted[0]} changes inputs that are one tensor, not the {len(facts.shapes)} "
            f"of this model; omit it"
        )
    if verify.corruptions and len(facts.shapes[0]) != 3:
        raise SecateurError(
            f"verify.corruptions take images (C, H, W), not samples of {facts.shapes[0]}; omit it"
        )
    low, high = run.input_range
    if facts.low < low or facts.high > high:
        raise SecateurError(
            f"verify.low and verify.high are {low:g} and {high:g}, the held-out samples "
            f"range from {facts.low:g} to {facts.high:g}; omit both, or give the true range"
        )


def check_parts(run: RunState, model: nn.Module) -> None:
    """Refuse what the model cannot be trained with, on one batch.

    Raises
    ------
    SecateurError : data, augmentations, a loss, a metric or criteria that do not suit the model
    """
    recipe, train = run.recipe, run.data.train
    batch = next(train.epoch(recipe.training.batch, seed=0))
    outputs = _outputs(run, model, batch[0])
    if run.task.loss is cross_entropy or run.task.classifies:
        _check_classes(run, outputs, len(leaves_of(batch[0])[0]))
    _check_augments(run, batch[0])
    _check_loss(run, model, on(batch, run.device))
    _check_distillation(run, outputs)
    _check_metric(run, model)
    for name in ("prune", *["channels"] * recipe.channels.wanted):
        part, n = getattr(recipe, name), run.target.geometry.n
        criterion = criterion_for(part.criterion, recipe, train, run.task, n, [batch])
        try:
            block_saliency(model, n, criterion, part.skip)
        except SecateurError as error:
            raise SecateurError(f"[{name}] {error}") from None


def _outputs(run: RunState, model: nn.Module, x: Any) -> Any:
    """What the model returns of one batch."""
    try:
        return called(model, x)
    except Exception as error:
        shapes = run.data.train.facts.shapes
        raise SecateurError(
            f"model.build = {run.recipe.model.build!r} does not take the samples of data.load, of "
            f"shape {shapes[0] if len(shapes) == 1 else shapes}: {first_line(error)}"
        ) from None


def _check_classes(run: RunState, outputs: Any, count: int) -> None:
    """Refuse outputs and labels that cross-entropy and accuracy cannot take."""
    own = "; or give training.loss, training.metric and training.direction"
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or len(outputs) != count:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise SecateurError(
            f"model.build = {run.recipe.model.build!r}: its module must return a tensor (samples, "
            f"classes), not {shape}{own}"
        )
    for part in (run.data.train, run.data.test):
        labels, classes = part.facts.labels, outputs.shape[1]
        if labels is None or not 0 <= labels[0] <= labels[1] < classes:
            raise SecateurError(
                f"{part.where}: {part.targets} must be class numbers below {classes}, as many as "
                f"the model has outputs{own}"
            )


def _check_augments(run: RunState, x: Any) -> None:
    kinds = [(leaf.dtype, tuple(leaf.shape)) for leaf in leaves_of(x)]
    for key, augment in run.augments.items():
        given = pytree.tree_map(torch.clone, x)
        found: Any = augment(given, torch.Generator().manual_seed(run.recipe.seed))
        leaves = leaves_of(found)
        if [(getattr(v, "dtype", None), tuple(getattr(v, "shape", ()))) for v in leaves] != kinds:
            shown = [
                f"{v.dtype} {tuple(v.shape)}" if isinstance(v, Tensor) else type(v).__name__
                for v in leaves
            ]
            expected = ", ".join(f"{shape} in {dtype}" for dtype, shape in kinds)
            raise SecateurError(
                f"{key}.augment must return a batch of the shape and type that it is given, "
                f"{expected}, not {', '.join(shown)}"
            )


def _check_loss(run: RunState, model: nn.Module, batch: Batch) -> None:
    loss: Any = run.task.loss(Seen(model), batch)
    if not isinstance(loss, Tensor) or loss.dim() != 0 or not loss.requires_grad:
        raise SecateurError(
            f"training.loss = {run.recipe.training.loss!r} must return one number, a tensor with "
            f"gradient: the mean over the batch"
        )


def _check_distillation(run: RunState, outputs: Any) -> None:
    """Refuse to compare what are no classes as classes."""
    wanted = [name for name in PHASES if getattr(run.recipe, name).distil]
    tensors = [leaf for leaf in leaves_of(outputs) if isinstance(leaf, Tensor)]
    if not wanted or run.task.distillation != "kl":
        return
    for leaf in tensors:
        if leaf.dim() < 2 or leaf.shape[1] < 2:
            raise SecateurError(
                f"{wanted[0]}.distil compares classes, (samples, classes, ...), not outputs "
                f"{tuple(leaf.shape)}; give training.distillation = 'mse'"
            )


def _check_metric(run: RunState, model: nn.Module) -> None:
    """Refuse a metric that does not work; its value, of a model without training, is nothing."""
    if run.task.classifies:
        return
    with evaluating(model), torch.no_grad():
        found: Any = run.task.metric.of(Seen(model), run.held_out)
    try:
        float(found)
    except (TypeError, ValueError):
        raise SecateurError(
            f"training.metric = {run.task.metric.name!r} must return one number, not {found!r}"
        ) from None

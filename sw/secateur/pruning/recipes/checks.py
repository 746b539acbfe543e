"""What a recipe names, tried before any training: model, data, augmentations, loss, criteria."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.pruning.criteria.criteria import criterion_of
from secateur.pruning.criteria.saliency import block_saliency
from secateur.pruning.recipes.state import RunState
from secateur.pruning.recipes.tables import Training


def check_range(run: RunState) -> None:
    """Refuse attacks and corruptions that do not suit the samples.

    Raises
    ------
    SecateurError : corruptions of what is not images, or samples outside of the given range
    """
    verify, x = run.recipe.verify, run.split.test_x
    if verify.corruptions and x.dim() != 4:
        raise SecateurError(
            f"verify.corruptions take images (C, H, W), not samples of {tuple(x.shape[1:])}; "
            f"omit it"
        )
    if verify.fgsm or verify.pgd or verify.corruptions:
        low, high = run.input_range
        least, most = float(x.min()), float(x.max())
        if least < low or most > high:
            raise SecateurError(
                f"verify.low and verify.high are {low:g} and {high:g}, the held-out samples "
                f"range from {least:g} to {most:g}; omit both, or give the true range"
            )


def check_parts(run: RunState, model: nn.Module) -> None:
    """Refuse what the model cannot be trained with, on one batch.

    Raises
    ------
    SecateurError : data, augmentations, a loss or criteria that do not suit the model
    """
    recipe, split = run.recipe, run.split
    x, y = (part[: recipe.training.batch] for part in (split.train_x, split.train_y))
    outputs = _outputs(run, model, x)
    _check_labels(run, outputs.shape[1])
    _check_augments(run, x)
    loss: Any = run.loss(outputs, y)
    if not isinstance(loss, Tensor) or loss.dim() != 0 or not loss.requires_grad:
        raise SecateurError(
            f"training.loss = {recipe.training.loss!r} must return one number, a tensor with "
            f"gradient: the mean over the batch"
        )
    for name in ("prune", *["channels"] * recipe.channels.wanted):
        part = getattr(recipe, name)
        criterion = criterion_of(part.criterion, batches=[(x, y)], loss=run.loss)
        try:
            block_saliency(model, run.target.geometry.n, criterion, part.skip)
        except SecateurError as error:
            raise SecateurError(f"[{name}] {error}") from None


def _outputs(run: RunState, model: nn.Module, x: Tensor) -> Tensor:
    """The model's outputs (samples, classes) for one batch."""
    name = run.recipe.model.build
    try:
        outputs = model(x)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise SecateurError(
            f"model.build = {name!r} does not take the samples of data.load, of "
            f"shape {tuple(x.shape[1:])}: {lines[0]}"
        ) from None
    if not isinstance(outputs, Tensor) or outputs.dim() < 2 or len(outputs) != len(x):
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise SecateurError(
            f"model.build = {name!r}: its module must return a tensor (samples, "
            f"classes), not {shape}"
        )
    return outputs


def _check_augments(run: RunState, x: Tensor) -> None:
    for key, augment in run.augments.items():
        found: Any = augment(x.clone(), torch.Generator().manual_seed(run.recipe.seed))
        if not isinstance(found, Tensor) or (found.shape, found.dtype) != (x.shape, x.dtype):
            kind = type(found).__name__
            what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else kind
            raise SecateurError(
                f"{key}.augment must return a batch of the shape and type that it is given, "
                f"{tuple(x.shape)} in {x.dtype}, not {what}"
            )


def _check_labels(run: RunState, classes: int) -> None:
    """Refuse labels that cross-entropy cannot take."""
    if run.recipe.training.loss != Training().loss:
        return
    for name in ("train_y", "test_y"):
        labels = getattr(run.split, name)
        if labels.is_floating_point() or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise SecateurError(
                f"data.load = {run.recipe.data.load!r}: {name} must be class numbers below "
                f"{classes}, as many as the model has outputs"
            )

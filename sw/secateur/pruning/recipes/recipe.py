"""Recipes: a TOML file that names model, data and every stage of a pruning run."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from secateur.disk.toml import parse, read_toml
from secateur.errors import SecateurError, SecateurWarning
from secateur.pruning.budget.budget import Normalize
from secateur.pruning.criteria.criteria import CRITERIA
from secateur.pruning.recipes.tables import PHASES, Recipe
from secateur.pruning.recipes.task.device import DEVICES

#: Recipes and studies that come with Secateur.
OWN = Path(__file__).resolve().parents[2] / "recipes"


def find_file(path: Path) -> Path:
    """The file of a recipe or study: itself, or by the name of one that comes with Secateur."""
    own = {file.stem: file for file in OWN.glob("*.toml")}
    return own[str(path)] if str(path) in own and not path.exists() else path


def load_recipe(
    path: Path,
    *,
    budget: Mapping[str, Any] | None = None,
    max_drop: float | None = None,
    training: bool = True,
) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    path : TOML file, or the name of a recipe that comes with Secateur
    budget : keys of `Budget`; those that are not None override the recipe's
    max_drop : overrides ``verify.max_drop`` unless it is None
    training : False: no stage trains; see `without_training`

    Raises
    ------
    SecateurError : no such file, not TOML, an unknown key, a missing one, or one of a wrong type
    """
    path = find_file(path)
    table = read_toml(path)
    table.setdefault("budget", {})
    for name, options in (("budget", budget or {}), ("verify", {"max_drop": max_drop})):
        given = {key: value for key, value in options.items() if value is not None}
        if given and isinstance(table.setdefault(name, {}), dict):  # else parse refuses it
            table[name] |= given
    recipe = parse_recipe(table, path, path.parent)
    return recipe if training else without_training(recipe)


def without_training(recipe: Recipe) -> Recipe:
    """The recipe with no epoch: one cut, by what the other weights make up for, and a fit."""
    if recipe.train.epochs and recipe.model.weights is None:
        warnings.warn(
            "[train] is skipped: model.build must return a trained model, or model.weights name "
            "its weights",
            SecateurWarning,
            stacklevel=3,
        )
    cut = {"schedule": "one-shot", "method": "budget", "criterion": "reconstruction"}
    phases = {name: dataclasses.replace(getattr(recipe, name), epochs=0) for name in PHASES}
    phases["prune"] = dataclasses.replace(
        phases["prune"], normalize="none", reconstruct=True, **cut
    )
    return dataclasses.replace(recipe, **phases)


def parse_recipe(table: dict[str, Any], path: Path | str, folder: Path) -> Recipe:
    """A recipe from its tables.

    Parameters
    ----------
    table : as ``tomllib`` reads it
    path : name of the recipe in errors
    folder : that the recipe's paths are relative to

    Raises
    ------
    SecateurError : an unknown key, a missing one, or one of a wrong type or value
    """
    recipe: Recipe = parse(Recipe, table, str(path), "")
    try:
        for check in (_check_choices, _check_values, _check_criteria, _check_channels, _check_cuts):
            check(recipe)
    except SecateurError as error:
        raise SecateurError(f"{path}: {error}") from None
    return dataclasses.replace(recipe, folder=folder)


def _check_choices(recipe: Recipe) -> None:
    for key, value, allowed in (
        ("prune.method", recipe.prune.method, ("budget", "uniform", "element", "none")),
        ("prune.schedule", recipe.prune.schedule, ("gradual", "one-shot", "rewind")),
        ("prune.normalize", recipe.prune.normalize, get_args(Normalize)),
        ("training.optimizer", recipe.training.optimizer, ("adamw", "sgd")),
        ("training.precision", recipe.training.precision, ("float32", "bfloat16")),
        ("training.direction", recipe.training.direction, ("max", "min")),
        ("training.distillation", recipe.training.distillation or "kl", ("kl", "mse")),
        ("device", recipe.device, DEVICES),
    ):
        if value not in allowed:
            options = " or ".join(map(repr, allowed))
            raise SecateurError(f"{key} must be {options}, not {value!r}")


def _check_values(recipe: Recipe) -> None:
    verify = recipe.verify
    phases = {name: getattr(recipe, name) for name in PHASES}
    kept = 1.0 if recipe.channels.density is None else recipe.channels.density
    changed = recipe.prune.augment is not None or recipe.data.augment is not None
    ordered = verify.low is None or verify.high is None or verify.low < verify.high
    for key, fine, wanted in (
        ("training.batch", recipe.training.batch >= 1, "at least 1"),
        ("prune.samples", recipe.prune.samples >= 1, "at least 1"),
        ("quantize.samples", recipe.quantize.samples >= 1, "at least 1"),
        ("verify.samples", verify.samples >= 1, "at least 1"),
        ("channels.density", 0 < kept <= 1, "a share above 0, to 1"),
        ("verify.sensitivity", all(0 < d <= 1 for d in verify.sensitivity), "densities to 1"),
        ("verify.corruptions", all(1 <= c <= 5 for c in verify.corruptions), "severities 1 to 5"),
        ("verify.low", ordered, "below verify.high"),
        ("verify.pgd_steps", verify.pgd_steps >= 1, "at least 1"),
        ("train.distil", recipe.train.distil == 0, "0: there is no dense model yet"),
        ("qat.lasso", recipe.qat.lasso == 0, "0: give it to prune or recover"),
        *((f"{name}.distil", 0 <= p.distil <= 1, "a share, 0 to 1") for name, p in phases.items()),
        *((f"{name}.temperature", p.temperature > 0, "above 0") for name, p in phases.items()),
        (
            "prune.copies",
            not recipe.prune.copies or changed,
            "0 without prune.augment or data.augment",
        ),
        ("prune.steps", recipe.prune.steps >= 1, "at least 1"),
    ):
        if not fine:
            raise SecateurError(f"{key} must be {wanted}")


def _check_criteria(recipe: Recipe) -> None:
    for key, name in (("prune", recipe.prune.criterion), ("channels", recipe.channels.criterion)):
        if name not in CRITERIA:
            names = ", ".join(CRITERIA)
            raise SecateurError(f"{key}.criterion must be one of {names}, not {name!r}")


def _check_channels(recipe: Recipe) -> None:
    if not recipe.channels.fit:
        return
    if recipe.channels.density is not None:
        raise SecateurError("channels.fit finds the density; omit channels.density")
    if all(limit is None for key, limit in vars(recipe.budget).items() if key != "density"):
        raise SecateurError(
            "channels.fit finds the widths for cycles, a latency or bytes, not for "
            "budget.density, which counts blocks; give one of those, or channels.density"
        )


def _check_cuts(recipe: Recipe) -> None:
    prune = recipe.prune
    if prune.schedule != "one-shot" and prune.epochs < 1:
        raise SecateurError(f"a {prune.schedule} schedule needs prune.epochs, at least 1")
    if prune.schedule != "rewind":
        return
    if prune.epochs % prune.steps:
        raise SecateurError("to rewind, prune.epochs must be a multiple of prune.steps")
    if not 1 <= prune.rewind_to <= recipe.train.epochs:
        raise SecateurError("prune.rewind_to must be an epoch of train")
    if recipe.channels.wanted:
        raise SecateurError("weights cannot be rewound over removed channels")

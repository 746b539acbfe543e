"""Recipes: a TOML file that names model, data and every stage of a pruning run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from secateur.disk.toml import Signed, parse, read_toml
from secateur.errors import SecateurError
from secateur.pruning.budget.budget import Normalise
from secateur.pruning.criteria.criteria import CRITERIA


@dataclass(frozen=True, kw_only=True)
class Model:
    """``build``: (seed) -> module in float. ``weights``: safetensors of its state dict, or none;
    the path is relative to the recipe."""

    build: str
    weights: str | None = None


@dataclass(frozen=True, kw_only=True)
class Data:
    """``load``: (seed) -> object or mapping with train_x, train_y, test_x, test_y.
    ``augment``: (batch, generator) -> batch, in training, or none."""

    load: str
    augment: str | None = None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """See ``secateur.pruning.budget.budget.allocate_budget``."""

    cycles: int | None = None
    latency_ms: float | None = None
    clock_mhz: float | None = None
    rom_bytes: int | None = None
    density: float | None = None


@dataclass(frozen=True, kw_only=True)
class Training:
    """What all training stages share. ``loss``: (outputs, targets) -> scalar. ``precision``: of the
    networks in all stages but ``qat``, float32, or bfloat16 by torch's autocast."""

    batch: int = 64
    optimiser: str = "adamw"
    weight_decay: float = 1e-3
    momentum: float = 0.9
    loss: str = "torch.nn.functional:cross_entropy"
    precision: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One training stage: a tenth of it warms up, then the rate falls to 0 on a cosine.
    ``distil``: share of the loss that asks for the outputs of the dense float model, 0 to 1;
    ``temperature``: of that share, see `secateur.pruning.distillation_loss`.
    ``lasso``: strength of a group lasso on the N:1 blocks, by proximal steps; 0: none.
    ``augment``: in place of that of the data."""

    epochs: int = 0
    learning_rate: float = 1e-3
    distil: float = 0.0
    temperature: float = 4.0
    lasso: float = 0.0
    augment: str | None = None


@dataclass(frozen=True, kw_only=True)
class Channels(Phase):
    """Removes whole channels before the blocks, then trains. ``density``: share of the channels
    of every layer that stays; ``fit``: the largest that meets the budget; neither: none goes.
    ``criterion``, ``skip``: as for ``Prune``."""

    density: float | None = None
    fit: bool = False
    criterion: str = "l2"
    skip: list[str] = field(default_factory=list)

    @property
    def wanted(self) -> bool:
        """Whether channels go at all."""
        return self.fit or self.density is not None


@dataclass(frozen=True, kw_only=True)
class Prune(Phase):
    """``method`` "budget": the blocks with the most saliency per cycle saved; or a baseline at the
    same budget: "uniform", one density of blocks for all layers; "element", one density of single
    weights by magnitude; "none", nothing goes. ``schedule`` "gradual": ``steps`` prunings, spread
    evenly over the first half of the epochs, with budgets that fall on a cubic; "one-shot": one,
    before them; "rewind": ``steps`` prunings, and after each the weights that ``train`` had after
    epoch ``rewind_to``, and an equal share of the epochs with a learning rate from its
    beginning. ``criterion``: a name as in ``secateur.pruning.criterion_of``; ``samples``:
    training samples that it sees. ``reorder``: first move filters of alike saliency into common
    blocks, see `secateur.pruning.channels.permute`."""

    method: str = "budget"
    schedule: str = "gradual"
    steps: int = 8
    rewind_to: int = 1
    criterion: str = "l2"
    normalise: str = "share"
    samples: int = 256
    reorder: bool = False
    skip: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Qat(Phase):
    """``scale_rate``: learning rate of the scales' logarithms (TQT); 0: scales are chosen."""

    scale_rate: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Quantise:
    """``samples``: training samples to calibrate with."""

    samples: int = 256


@dataclass(frozen=True, kw_only=True)
class Verify:
    """``max_drop``: points of accuracy, int8 against dense int8. ``sensitivity``: densities to scan
    each layer at, on training samples. ``fgsm``, ``pgd``: epsilons in the model's units.
    ``corruptions``: severities, of images. ``low``, ``high``: range of the inputs; None: what the
    data have. ``samples``: at most so many for these scans."""

    max_drop: float | None = None
    sensitivity: list[float] = field(default_factory=list)
    fgsm: list[float] = field(default_factory=list)
    pgd: list[float] = field(default_factory=list)
    pgd_steps: int = 10
    corruptions: list[int] = field(default_factory=list)
    low: Signed | None = None
    high: Signed | None = None
    samples: int = 500


#: The tables of stages that train.
PHASES = ("train", "channels", "prune", "recover", "qat")
#: What the stages before the first cut read.
DENSE_KEYS = {"model", "data", "target", "seed", "training", "train", "qat", "quantise"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A checked recipe. ``folder`` is that of the file."""

    model: Model
    data: Data
    target: str
    budget: Budget
    seed: int = 0
    training: Training = Training()
    train: Phase = Phase()
    channels: Channels = Channels()
    prune: Prune = Prune()
    recover: Phase = Phase()
    qat: Qat = Qat()
    quantise: Quantise = Quantise()
    verify: Verify = Verify()
    folder: Path = Path()

    @property
    def content(self) -> dict[str, Any]:
        """Everything but the folder, as JSON has it."""
        values = dataclasses.asdict(self)
        values.pop("folder")
        return values

    @property
    def digest(self) -> str:
        """SHA-256 of all that the image depends on: the content but for ``verify``."""
        return self._digest(self.content.keys() - {"verify"})

    @property
    def dense_digest(self) -> str:
        """SHA-256 of all that the trained dense network, its image and early weights depend on."""
        early = self.prune.rewind_to if self.prune.schedule == "rewind" else None
        return self._digest(self.content.keys() & DENSE_KEYS, early)

    def _digest(self, keys: Set[str], early: int | None = None) -> str:
        content = {key: value for key, value in self.content.items() if key in keys}
        content |= {} if early is None else {"early": early}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load_recipe(
    path: Path, *, budget: Mapping[str, Any] | None = None, max_drop: float | None = None
) -> Recipe:
    """Read a recipe; ``budget`` and ``max_drop`` take the place of what it says.

    Raises
    ------
    SecateurError : no such file, not TOML, an unknown key, a missing one, or one of a wrong type
    """
    table = read_toml(path)
    table.setdefault("budget", {})
    for name, options in (("budget", budget or {}), ("verify", {"max_drop": max_drop})):
        given = {key: value for key, value in options.items() if value is not None}
        if given and isinstance(table.setdefault(name, {}), dict):  # else parse refuses it
            table[name] |= given
    return parse_recipe(table, path, path.parent)


def parse_recipe(table: dict[str, Any], path: Path | str, folder: Path) -> Recipe:
    """A recipe from its tables.

    Parameters
    ----------
    path : what errors name
    folder : that the recipe's paths are relative to

    Raises
    ------
    SecateurError : an unknown key, a missing one, or one of a wrong type
    """
    recipe: Recipe = parse(Recipe, table, str(path), "")
    for key, value, allowed in (
        ("prune.method", recipe.prune.method, ("budget", "uniform", "element", "none")),
        ("prune.schedule", recipe.prune.schedule, ("gradual", "one-shot", "rewind")),
        ("prune.normalise", recipe.prune.normalise, get_args(Normalise)),
        ("training.optimiser", recipe.training.optimiser, ("adamw", "sgd")),
        ("training.precision", recipe.training.precision, ("float32", "bfloat16")),
    ):
        if value not in allowed:
            options = " or ".join(map(repr, allowed))
            raise SecateurError(f"{path}: {key} must be {options}, not {value!r}")
    verify, prune = recipe.verify, recipe.prune
    kept = 1.0 if recipe.channels.density is None else recipe.channels.density
    for key, fine, wanted in (
        ("training.batch", recipe.training.batch >= 1, "at least 1"),
        ("prune.samples", prune.samples >= 1, "at least 1"),
        ("quantise.samples", recipe.quantise.samples >= 1, "at least 1"),
        ("verify.samples", verify.samples >= 1, "at least 1"),
        ("channels.density", 0 < kept <= 1, "a share above 0, to 1"),
        ("verify.sensitivity", all(0 < d <= 1 for d in verify.sensitivity), "densities to 1"),
        ("verify.corruptions", all(1 <= c <= 5 for c in verify.corruptions), "severities 1 to 5"),
        (
            "verify.low",
            verify.low is None or verify.high is None or verify.low < verify.high,
            "below verify.high",
        ),
        ("verify.pgd_steps", verify.pgd_steps >= 1, "at least 1"),
        ("train.distil", recipe.train.distil == 0, "0: there is no dense model yet"),
        ("qat.lasso", recipe.qat.lasso == 0, "0: give it to prune or recover"),
        *(
            (f"{name}.distil", 0 <= getattr(recipe, name).distil <= 1, "a share, 0 to 1")
            for name in PHASES
        ),
        *(
            (f"{name}.temperature", getattr(recipe, name).temperature > 0, "above 0")
            for name in PHASES
        ),
    ):
        if not fine:
            raise SecateurError(f"{path}: {key} must be {wanted}")
    for key, name in (("prune", prune.criterion), ("channels", recipe.channels.criterion)):
        if name not in CRITERIA:
            names = ", ".join(CRITERIA)
            raise SecateurError(f"{path}: {key}.criterion must be one of {names}, not {name!r}")
    if recipe.channels.fit and recipe.channels.density is not None:
        raise SecateurError(f"{path}: channels.fit finds the density; leave channels.density out")
    limits = vars(recipe.budget)
    if recipe.channels.fit and all(v is None for k, v in limits.items() if k != "density"):
        raise SecateurError(
            f"{path}: channels.fit finds the widths for cycles, a latency or bytes, not for "
            f"budget.density, which counts blocks; give one of those, or channels.density"
        )
    if prune.steps < 1:
        raise SecateurError(f"{path}: prune.steps must be at least 1")
    if prune.schedule != "one-shot" and prune.epochs < 1:
        raise SecateurError(f"{path}: a {prune.schedule} schedule needs prune.epochs, at least 1")
    if prune.schedule == "rewind":
        if prune.epochs % prune.steps:
            raise SecateurError(
                f"{path}: to rewind, prune.epochs must be a multiple of prune.steps"
            )
        if not 1 <= prune.rewind_to <= recipe.train.epochs:
            raise SecateurError(f"{path}: prune.rewind_to must be an epoch of train")
        if recipe.channels.wanted:
            raise SecateurError(f"{path}: weights cannot be rewound over removed channels")
    return dataclasses.replace(recipe, folder=folder)

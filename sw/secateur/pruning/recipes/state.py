"""What the stages of a run share: recipe, data, folder, checkpoints, and where the run stands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from secateur.callables import function
from secateur.capture.recurrent import decompose
from secateur.disk.weights import read_weights
from secateur.errors import SecateurError
from secateur.image.image import Image, load
from secateur.progress import Progress
from secateur.pruning.channels.remove import ChannelReport
from secateur.pruning.recipes import checkpoint
from secateur.pruning.recipes.cutting import criterion_for, narrow
from secateur.pruning.recipes.data.data import Data
from secateur.pruning.recipes.data.part import Loader
from secateur.pruning.recipes.tables import PHASES, Phase, Recipe
from secateur.pruning.recipes.task.device import device_of
from secateur.pruning.recipes.task.task import Score, Task, evaluate
from secateur.pruning.recipes.training import Augment, Trainer
from secateur.sources import build
from secateur.target import Target

#: Called with the name of a model and its metric on the held-out data; what it raises ends the run,
#: which then resumes before that model was scored.
Watch = Callable[[str, float], None]
#: Checkpoints from here on have the channels that are left.
NARROWED = ("narrowed", "pruned", "recovered")


def unwatched(name: str, value: float) -> None:
    """Take a score, and do nothing."""


def digest(tensor: Tensor) -> str:
    """SHA-256 of the bytes of a tensor."""
    return hashlib.sha256(tensor.contiguous().cpu().numpy().tobytes()).hexdigest()


class RunState:
    """What the stages of one run share.

    Parameters
    ----------
    recipe : from `secateur.pruning.recipes.recipe.load_recipe`
    folder : of checkpoints and images
    progress : called after every epoch and stage
    watch : called whenever a model is scored

    Attributes
    ----------
    target : the recipe's
    device : of models, while they are float
    data : the recipe's
    augments : augmentations by table of the recipe
    task : loss and metric of the recipe
    inputs : SHA-256 of what the recipe only names: data, weights, target
    results : what each stage measured, JSON
    stage : number of stages that are done

    Raises
    ------
    SecateurError : target, device, data, an augmentation, the loss or the metric cannot be had
    """

    def __init__(
        self, recipe: Recipe, folder: Path, progress: Progress, watch: Watch = unwatched
    ) -> None:
        self.recipe, self.folder, self.progress, self.watch = recipe, folder, progress, watch
        self.target = Target.load(recipe.target)
        self.device = device_of(recipe.device)
        self.task = Task.of(recipe.training)
        where = f"data.load = {recipe.data.load!r}"
        self.data = Data.of(function("data.load", recipe.data.load)(recipe.seed), where)
        # Wrong ones are refused at once, not when they are needed.
        self.augments: dict[str, Augment] = {
            name: function(f"{name}.augment", getattr(recipe, name).augment)
            for name in ("data", *PHASES)
            if getattr(recipe, name).augment is not None
        }
        self.results: dict[str, Any] = {}
        self.inputs = self._inputs()
        self.stage = 0
        self._partial: checkpoint.State | None = None

    def _inputs(self) -> dict[str, str]:
        recipe = self.recipe
        found = {"train": self.data.train.facts.digest, "test": self.data.test.facts.digest}
        target = json.dumps(asdict(self.target), sort_keys=True)
        found["target"] = hashlib.sha256(target.encode()).hexdigest()
        if recipe.model.weights is not None:
            weights = read_weights(recipe.folder / recipe.model.weights)
            parts = {name: digest(value) for name, value in sorted(weights.items())}
            found["weights"] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return found

    def resume(self) -> None:
        """Resume from the checkpoint in the folder, if there is one.

        Raises
        ------
        SecateurError : the checkpoint is of another recipe, data, weights or target, or damaged
        """
        path = self.folder / "running.json"
        if not path.exists():
            return
        tensors, data = checkpoint.read(path)
        if data["recipe"] != self.recipe.digest:
            raise SecateurError(
                f"{self.folder}: holds a run of another recipe or budget; choose another folder, "
                f"or delete it"
            )
        for name, found in self.inputs.items():
            if data.get("inputs", {}).get(name) != found:
                raise SecateurError(
                    f"{self.folder}: holds a run with another {name}; restore the old one, or "
                    f"choose another folder"
                )
        self.stage, self.results = data["stage"], data["results"]
        if tensors:
            self._partial = tensors, data["trainer"]

    def finish_stage(self) -> None:
        """Count one more stage as done, and write the checkpoint."""
        self.stage += 1
        self._partial = None
        self._save({}, {})

    def _save(self, tensors: dict[str, Tensor], trainer: dict[str, Any]) -> None:
        data = {
            "recipe": self.recipe.digest,
            "inputs": self.inputs,
            "stage": self.stage,
            "results": self.results,
            "trainer": trainer,
        }
        checkpoint.write(self.folder / "running.json", tensors, data)

    def build(self, name: str | None = None) -> nn.Module:
        """The model, with the weights of the checkpoint ``name``; None: as the recipe gives it."""
        recipe = self.recipe
        if name in NARROWED and recipe.channels.wanted:
            model = self.build("float")
            self.narrow(model)
            checkpoint.load_model_state(model, checkpoint.read(self.folder / f"{name}.json")[0])
            return model.eval()
        model = decompose(build("model.build", recipe.model.build, recipe.seed)).to(self.device)
        if name is not None:
            checkpoint.load_model_state(model, checkpoint.read(self.folder / f"{name}.json")[0])
        elif recipe.model.weights is not None:
            file = recipe.folder / recipe.model.weights
            weights = read_weights(file)
            checkpoint.load_model_state(model, {f"model.{k}": v for k, v in weights.items()})
        return model.eval()

    def narrow(self, model: nn.Module) -> ChannelReport:
        """Remove the recipe's share of channels from a model, in place; note the density."""
        recipe = self.recipe
        criterion = criterion_for(
            recipe.channels.criterion, recipe, self.data.train, self.task, self.target.geometry.n
        )
        found, report = narrow(
            model, recipe, self.target, self.calibration(), criterion,
            self.results.get("channel_density", recipe.channels.density),
        )  # fmt: skip
        self.results["channel_density"] = found
        return report

    def calibration(self) -> Any:
        """Inputs to calibrate with."""
        return self.data.train.some(self.recipe.quantize.samples, self.recipe.seed)[0]

    def augment_of(self, table: str) -> Augment | None:
        """The augmentation of a table of `PHASES`: its own, or that of the data."""
        return self.augments.get(table, self.augments.get("data"))

    @property
    def held_out(self) -> Loader:
        """The held-out samples."""
        return Loader(self.data.test, self.device)

    def figures(self, found: Score) -> dict[str, float]:
        """A score as results have it."""
        loss = {} if found.loss is None else {"loss": found.loss}
        return {self.task.metric.name: found.value, **loss}

    def shown(self, found: Score) -> str:
        """A score as progress has it."""
        if self.task.classifies:
            return f"accuracy {found.value:.2%}"
        return f"{self.task.metric.name.partition(':')[2]} {found.value:.4g}"

    def fit(
        self,
        table: str,
        model: nn.Module,
        *,
        name: str | None = None,
        before_batch: Callable[[int, int], None] | None = None,
    ) -> None:
        """Train a model in place, with a checkpoint after every epoch; resume from one.

        Parameters
        ----------
        table : of the recipe, one of `PHASES`, with the settings
        model : to train
        name : of the training, for progress and seeds; None: the table's
        before_batch : called with batches done and to do, before every batch
        """
        recipe, name = self.recipe, name or table
        phase: Phase = getattr(recipe, table)
        trainer = Trainer(
            name, model, self.data.train, phase, recipe.training, seed=recipe.seed, task=self.task,
            augment=self.augment_of(table),
            before_batch=before_batch, n=self.target.geometry.n,
            teacher=self.build("float") if phase.distil else None, skip=recipe.prune.skip,
        )  # fmt: skip
        if self._partial is not None:
            trainer.restore(*self._partial)
        while not trainer.done:
            loss = trainer.run_epoch()
            self.results.setdefault("losses", {}).setdefault(name, []).append(loss)
            rewinds = recipe.prune.schedule == "rewind"
            if rewinds and table == "train" and trainer.epoch == recipe.prune.rewind_to:
                checkpoint.write(self.folder / "early.json", checkpoint.model_state(model), {})
            self._save(*trainer.state())
            self.progress(name, trainer.epoch, phase.epochs, f"loss {loss:.4f}")

    def keep(self, name: str, model: nn.Module) -> None:
        """Score a float model on the held-out data, and write it as the checkpoint ``name``."""
        found, outputs = evaluate(model, self.held_out, self.task)
        self.results[name] = self.figures(found)
        self.watch(name, found.value)
        tensors = checkpoint.model_state(model)
        tensors |= {} if outputs is None else {"outputs": outputs}
        checkpoint.write(self.folder / f"{name}.json", tensors, {})
        self.progress(name, 1, 1, f"{self.shown(found)}, float")

    def outputs(self, name: str) -> Tensor | None:
        """Outputs of a classifier on the held-out data that stage ``name`` left."""
        return checkpoint.read(self.folder / f"{name}.json")[0].get("outputs")

    def image(self, name: str) -> Image:
        """The image ``dense`` or ``model``."""
        return load(self.folder / f"{name}.sec")

    @property
    def input_range(self) -> tuple[float, float]:
        """Least and largest value of an input: as the recipe says, or of all samples."""
        verify, parts = self.recipe.verify, (self.data.train.facts, self.data.test.facts)
        low = min(facts.low for facts in parts) if verify.low is None else verify.low
        high = max(facts.high for facts in parts) if verify.high is None else verify.high
        return low, high

"""The stages of a recipe, from training to the image; each can be interrupted and resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.agreement import check_image, some_inputs
from secateur.callables import function
from secateur.capture.recurrent import decompose
from secateur.compiler.compiler import compile_network
from secateur.disk.weights import read_weights
from secateur.errors import SecateurError
from secateur.fx.computed import copied
from secateur.image.image import Image, load
from secateur.lowering.lower import lower
from secateur.pruning.budget.baselines import keep_all
from secateur.pruning.budget.budget import allocate, make_budgets
from secateur.pruning.budget.costing import CostModel
from secateur.pruning.budget.search import Budgets
from secateur.pruning.channels.remove import ChannelReport
from secateur.pruning.criteria.criteria import criterion_of
from secateur.pruning.criteria.saliency import block_saliency
from secateur.pruning.recipes import checkpoint
from secateur.pruning.recipes.check_image import check_masks
from secateur.pruning.recipes.cutting import BlockCuts, criterion_for, narrow
from secateur.pruning.recipes.recipe import PHASES, Phase, Recipe, Training
from secateur.pruning.recipes.training import Augment, Loss, Split, Trainer
from secateur.pruning.recipes.verify import image_logits, logits, score
from secateur.quantisation.prepare import finalise, prepare
from secateur.sources import build
from secateur.target import Target

#: Called with stage, steps done, steps to do, and what is known so far.
Progress = Callable[[str, int, int, str], None]
STAGES = ("train", "dense", "channels", "prune", "recover", "int8")
#: Stages from here on have the channels that are left.
NARROWED = ("narrowed", "pruned", "recovered")
#: Weight memory of the target on which the dense network is compiled, which may not fit the real.
ROOM = 1 << 20


def digest(tensor: Tensor) -> str:
    """SHA-256 of the bytes of a tensor."""
    return hashlib.sha256(tensor.contiguous().cpu().numpy().tobytes()).hexdigest()


class Stages:
    """What the stages of one run share: recipe, data, folder, and where the run stands.

    Members
    -------
    results : what each stage measured, JSON
    stage : stages that are done
    """

    def __init__(self, recipe: Recipe, folder: Path, progress: Progress) -> None:
        self.recipe, self.folder, self.progress = recipe, folder, progress
        self.target = Target.load(recipe.target)
        where = f"data.load = {recipe.data.load!r}"
        self.split = Split.of(function("data.load", recipe.data.load)(recipe.seed), where)
        # Wrong ones are refused at once, not when they are needed.
        self.augments: dict[str, Augment] = {
            name: function(f"{name}.augment", getattr(recipe, name).augment)
            for name in ("data", *PHASES)
            if getattr(recipe, name).augment is not None
        }
        self.loss: Loss = function("training.loss", recipe.training.loss)
        self.results: dict[str, Any] = {}
        self.inputs = self._inputs()
        """SHA-256 of what the recipe only names: data, weights, target."""
        self.stage = 0
        self._partial: checkpoint.State | None = None

    def resume(self) -> None:
        """Go on where the checkpoint in the folder was written, if there is one.

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
                    f"{self.folder}: holds a run with another {name}; bring back what it had, or "
                    f"choose another folder"
                )
        self.stage, self.results = data["stage"], data["results"]
        if tensors:
            self._partial = tensors, data["trainer"]

    def run(self) -> None:
        """The stages that are left.

        Raises
        ------
        SecateurError : the recipe does not work out, at once where that can be known
        """
        self._check_range()
        for name in STAGES[self.stage :]:
            getattr(self, f"_{name}")()
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

    def _inputs(self) -> dict[str, str]:
        recipe = self.recipe
        names = self.split.__dataclass_fields__
        found = {name: digest(getattr(self.split, name)) for name in names}
        target = json.dumps(asdict(self.target), sort_keys=True)
        found["target"] = hashlib.sha256(target.encode()).hexdigest()
        if recipe.model.weights is not None:
            weights = read_weights(recipe.folder / recipe.model.weights)
            parts = {name: digest(value) for name, value in sorted(weights.items())}
            found["weights"] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return found

    def build(self, name: str | None = None) -> nn.Module:
        """The model, with the weights of the stage's checkpoint ``name``."""
        recipe = self.recipe
        if name in NARROWED and recipe.channels.wanted:
            model = self.build("float")
            self._narrow(model)
            checkpoint.load_model_state(model, checkpoint.read(self.folder / f"{name}.json")[0])
            return model.eval()
        model = decompose(build("model.build", recipe.model.build, recipe.seed))
        if name is not None:
            checkpoint.load_model_state(model, checkpoint.read(self.folder / f"{name}.json")[0])
        elif recipe.model.weights is not None:
            file = recipe.folder / recipe.model.weights
            weights = read_weights(file)
            checkpoint.load_model_state(model, {f"model.{k}": v for k, v in weights.items()})
        return model.eval()

    def _keep(self, name: str, model: nn.Module) -> None:
        outputs = logits(model, self.split.test_x)
        found = score(outputs, self.split.test_y, self.loss)
        self.results[name] = {"accuracy": found.accuracy, "loss": found.loss}
        tensors = checkpoint.model_state(model)
        checkpoint.write(self.folder / f"{name}.json", tensors | {"outputs": outputs}, {})
        self.progress(name, 1, 1, f"accuracy {found.accuracy:.2%}, float")

    def outputs(self, name: str) -> Tensor:
        """Outputs on the held-out data that stage ``name`` left."""
        return checkpoint.read(self.folder / f"{name}.json")[0]["outputs"]

    def _fit(
        self,
        name: str,
        model: nn.Module,
        phase: Phase,
        before_batch: Callable[[int, int], None] | None = None,
    ) -> None:
        recipe = self.recipe
        trainer = Trainer(
            name, model, self.split, phase, recipe.training, seed=recipe.seed, loss=self.loss,
            augment=self._augment(phase), before_batch=before_batch, n=self.target.geometry.n,
            teacher=self.build("float") if phase.distil else None, skip=recipe.prune.skip,
        )  # fmt: skip
        if self._partial is not None:
            trainer.restore(*self._partial)
        while not trainer.done:
            loss = trainer.run_epoch()
            rewinds = recipe.prune.schedule == "rewind"
            if rewinds and name == "train" and trainer.epoch == recipe.prune.rewind_to:
                checkpoint.write(self.folder / "early.json", checkpoint.model_state(model), {})
            self._save(*trainer.state())
            self.progress(name, trainer.epoch, phase.epochs, f"loss {loss:.4f}")

    def _augment(self, phase: Phase) -> Augment | None:
        own = next(name for name in PHASES if getattr(self.recipe, name) is phase)
        return self.augments.get(own, self.augments.get("data"))

    def _train(self) -> None:
        model = self.build()
        self._check_parts(model)
        # At once, so that a budget out of reach is refused before any training.
        trial = copied(model)
        if self.recipe.channels.wanted:
            self._narrow(trial)
            self.results.pop("channel_density")  # the trained model has its own
        costs, layers = self._costs(trial)
        if self.recipe.prune.method != "none":
            found = allocate(costs, layers, self._budgets(costs, layers))
            self.progress("budget", 1, 1, f"in reach: {found.cost.cycles:,} cycles")
        elif not self.recipe.train.lasso:  # of which blocks may vanish
            keep_all(costs, layers, self._budgets(costs, layers))
        self._fit("train", model, self.recipe.train)
        self._keep("float", model)

    def _check_parts(self, model: nn.Module) -> None:
        """Refuse data, augmentations, a loss and criteria that the model cannot be trained with, on
        one batch."""
        recipe, split = self.recipe, self.split
        x, y = (part[: recipe.training.batch] for part in (split.train_x, split.train_y))
        try:
            outputs = model(x)
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise SecateurError(
                f"model.build = {recipe.model.build!r} does not take the samples of data.load, of "
                f"shape {tuple(x.shape[1:])}: {lines[0]}"
            ) from None
        if not isinstance(outputs, Tensor) or outputs.dim() < 2 or len(outputs) != len(x):
            shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise SecateurError(
                f"model.build = {recipe.model.build!r}: its module must return a tensor (samples, "
                f"classes), not {shape}"
            )
        self._check_labels(outputs.shape[1])
        for key, augment in self.augments.items():
            found: Any = augment(x.clone(), torch.Generator().manual_seed(recipe.seed))
            if not isinstance(found, Tensor) or (found.shape, found.dtype) != (x.shape, x.dtype):
                kind = type(found).__name__
                what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else kind
                raise SecateurError(
                    f"{key}.augment must return a batch as it is given one, {tuple(x.shape)} in "
                    f"{x.dtype}, not {what}"
                )
        loss: Any = self.loss(outputs, y)
        if not isinstance(loss, Tensor) or loss.dim() != 0 or not loss.requires_grad:
            raise SecateurError(
                f"training.loss = {recipe.training.loss!r} must return one number, a tensor with "
                f"gradient: the mean over the batch"
            )
        for name in ("prune", *["channels"] * recipe.channels.wanted):
            part = getattr(recipe, name)
            criterion = criterion_of(part.criterion, batches=[(x, y)], loss=self.loss)
            try:
                block_saliency(model, self.target.geometry.n, criterion, part.skip)
            except SecateurError as error:
                raise SecateurError(f"[{name}] {error}") from None

    def _check_range(self) -> None:
        """Refuse attacks and corruptions that the samples cannot be put to."""
        verify, x = self.recipe.verify, self.split.test_x
        if verify.corruptions and x.dim() != 4:
            raise SecateurError(
                f"verify.corruptions take images (C, H, W), not samples of {tuple(x.shape[1:])}; "
                f"leave it out"
            )
        if verify.fgsm or verify.pgd or verify.corruptions:
            low, high = self.input_range
            least, most = float(x.min()), float(x.max())
            if least < low or most > high:
                raise SecateurError(
                    f"verify.low and verify.high are {low:g} and {high:g}, the held-out samples "
                    f"reach from {least:g} to {most:g}; leave both out, or give the true range"
                )

    @property
    def input_range(self) -> tuple[float, float]:
        """Least and largest value of an input: as the recipe says, or of all samples."""
        verify, parts = self.recipe.verify, (self.split.train_x, self.split.test_x)
        low = min(float(x.min()) for x in parts) if verify.low is None else verify.low
        high = max(float(x.max()) for x in parts) if verify.high is None else verify.high
        return low, high

    def _check_labels(self, classes: int) -> None:
        """Refuse labels that cross-entropy cannot take."""
        if self.recipe.training.loss != Training().loss:
            return
        for name in ("train_y", "test_y"):
            labels = getattr(self.split, name)
            if (
                labels.is_floating_point()
                or not 0 <= int(labels.min()) <= int(labels.max()) < classes
            ):
                raise SecateurError(
                    f"data.load = {self.recipe.data.load!r}: {name} must be class numbers below "
                    f"{classes}, as many as the model has outputs"
                )

    def _costs(self, model: nn.Module) -> tuple[CostModel, dict[str, Tensor]]:
        costs = CostModel(model, self._calibration(), self.target)
        return costs, block_saliency(model, costs.n, skip=self.recipe.prune.skip)

    def _budgets(self, costs: CostModel, layers: dict[str, Tensor]) -> Budgets:
        count = sum(saliency.numel() for saliency in layers.values())
        return make_budgets(costs.target, count, **vars(self.recipe.budget))

    def _dense(self) -> None:
        roomy = replace(self.target, geometry=replace(self.target.geometry, weight_words=ROOM))
        self._int8("dense", self.build("float"), roomy)

    def _channels(self) -> None:
        if not self.recipe.channels.wanted:
            return
        model = self.build("float")
        report = self._narrow(model)
        self._fit("channels", model, self.recipe.channels)
        self.results["widths"] = {row.name: [row.before, row.after] for row in report.layers}
        self._keep("narrowed", model)

    def _narrow(self, model: nn.Module) -> ChannelReport:
        recipe = self.recipe
        criterion = criterion_for(recipe.channels.criterion, recipe, self.split, self.loss)
        found, report = narrow(
            model, recipe, self.target, self._calibration(), criterion,
            self.results.get("channel_density", recipe.channels.density),
        )  # fmt: skip
        self.results["channel_density"] = found
        return report

    def _prune(self) -> None:
        recipe = self.recipe
        model = self.build("narrowed" if recipe.channels.wanted else "float")
        early = self.build("early") if recipe.prune.schedule == "rewind" else None
        cuts = BlockCuts(
            model, recipe, self.target, self.split, self.loss, self._calibration(), early
        )
        if cuts.order is not None:
            self.results["order"] = {row.name: vars(row) for row in cuts.order.layers}

        def before_batch(done: int, total: int) -> None:
            cuts.before_batch(done, total)
            self.results["allocation"] = cuts.last or self.results["allocation"]

        if recipe.prune.epochs:
            self._fit("prune", model, recipe.prune, before_batch)
        else:
            before_batch(0, cuts.steps)
        self._keep("pruned", model)

    def _recover(self) -> None:
        model = self.build("pruned")
        self._fit("recover", model, self.recipe.recover)
        self._keep("recovered", model)

    def _calibration(self) -> Tensor:
        return self.split.some("train", self.recipe.quantise.samples, self.recipe.seed)[0]

    def _int8(
        self, name: str = "model", model: nn.Module | None = None, target: Target | None = None
    ) -> None:
        model = self.build("recovered") if model is None else model
        trained = self.recipe.qat.scale_rate > 0
        prepared = prepare(model, self._calibration(), qat=True, train_scales=trained)
        self._fit(f"qat {name}", prepared, self.recipe.qat)
        prepared.eval()
        graph = finalise(prepared)
        network = lower(graph)
        image = compile_network(network, target or self.target)
        check_image(image, graph, some_inputs(graph, network, self._calibration()), network)
        check = check_masks(image, graph, model)
        image.save(self.folder / f"{name}.sec")
        outputs = image_logits(image, self.split.test_x)
        found = score(outputs, self.split.test_y, self.loss)
        checkpoint.write(self.folder / f"{name}.int8.json", {"outputs": outputs}, {})
        self.results[f"{name} int8"] = {
            "accuracy": found.accuracy,
            "loss": found.loss,
            "masked_weights": check.masked_weights,
            "image_sha256": hashlib.sha256(image.stream).hexdigest(),
        }
        note = f"accuracy {found.accuracy:.2%}, {image.metadata['cycles']:,} cycles"
        self.progress(f"{name} int8", 1, 1, note)

    def image(self, name: str) -> Image:
        """The image ``dense`` or ``model``."""
        return load(self.folder / f"{name}.sec")

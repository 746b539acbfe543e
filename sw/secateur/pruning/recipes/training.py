"""Training that can be interrupted after any epoch, and resumed to the very same weights."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from secateur.errors import SecateurError
from secateur.fx.computed import copied
from secateur.pruning.criteria.probe import called, evaluating
from secateur.pruning.methods.regularise import GroupLasso, softened
from secateur.pruning.recipes import checkpoint
from secateur.pruning.recipes.data.part import Part, on
from secateur.pruning.recipes.data.trees import Batch, leaves_of
from secateur.pruning.recipes.tables import Phase, Prune, Qat, Training
from secateur.pruning.recipes.task.device import random_state, set_random_state
from secateur.pruning.recipes.task.seen import Seen
from secateur.pruning.recipes.task.task import Task

Augment = Callable[[Any, torch.Generator], Any]
WARM_UP = 0.1


def rate(step: int, steps: int, highest: float) -> float:
    """Learning rate of a batch: linear warm-up, then a cosine down to 0.

    Parameters
    ----------
    step : of the batch, from 0
    steps : in all
    highest : after the warm-up

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017,
    equation 5, without restarts.
    """
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return highest * (step + 1) / warm
    return highest * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def multiplies_bfloat16() -> bool:
    """Whether torch has kernels for bfloat16 on this processor that are not an emulation."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _format(model: nn.Module, x: Any) -> torch.memory_format:
    """Channels-last, if samples are images and the model runs on such images."""
    if not any(leaf.dim() == 4 for leaf in leaves_of(x)):
        return torch.preserve_format
    trial = copied(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        with evaluating(trial), torch.no_grad():
            called(Seen(trial, format=torch.channels_last), on(x, device_in(trial)))
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last


def device_in(model: nn.Module) -> torch.device:
    """The device of a model's parameters."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


class Trainer:
    """Trains a module in place, on its device, epoch by epoch; its state in between can be saved.

    Convolutions run in channels-last memory, in about two thirds of the time, unless the model
    depends on the memory layout of its maps. In bfloat16 only the networks run; weights, losses and
    all of quantisation-aware training stay in float32.

    Parameters
    ----------
    name : of the stage; with ``seed`` it seeds order, augmentation and torch's global generator
    model : in training mode while an epoch runs, in evaluation mode otherwise
    part : samples
    phase : settings of the stage
    training : settings of all stages
    seed : see ``name``
    task : has the loss
    augment : (inputs, generator) -> inputs, or None
    teacher : the dense model, for ``phase.distil``
    before_batch : called with batches done and to do, before every batch
    n : output channels of a block, for ``phase.lasso``
    skip : layers without a lasso

    Raises
    ------
    SecateurError : ``phase.distil`` without a teacher
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        part: Part,
        phase: Phase,
        training: Training,
        *,
        seed: int,
        task: Task,
        augment: Augment | None = None,
        teacher: nn.Module | None = None,
        before_batch: Callable[[int, int], None] | None = None,
        n: int = 8,
        skip: Iterable[str] = (),
    ) -> None:
        self.format = _format(model, part.some(2, 0)[0])
        self.model = self._formatted(model)
        self.part, self.phase, self.training, self.task = part, phase, training, task
        self.device = device_in(model)
        narrow = training.precision == "bfloat16" and not isinstance(phase, Qat)
        self.seen = Seen(self.model, narrow, self.format)
        self.teacher: Seen | None = None
        if phase.distil:
            if teacher is None:
                raise SecateurError(f"{name}.distil needs a dense model before this stage")
            self.teacher = Seen(self._formatted(teacher), narrow)
            teacher.eval()
        self.augment, self.before_batch = augment, before_batch
        self.mark = f"{seed} {name}"
        self.epoch = 0
        mixed = zlib.crc32(self.mark.encode())
        self.generator = torch.Generator().manual_seed(mixed)
        torch.manual_seed(mixed)
        self.optimizer = self._optimizer()
        self.lasso = GroupLasso(self.model, phase.lasso, n=n, skip=skip) if phase.lasso else None
        rewinds = isinstance(phase, Prune) and phase.schedule == "rewind"
        self.rounds = phase.steps if isinstance(phase, Prune) and rewinds else 1

    def _formatted(self, model: Any) -> nn.Module:
        formatted: nn.Module = model.to(memory_format=self.format)
        return formatted

    def _optimizer(self) -> torch.optim.Optimizer:
        named = dict(self.model.named_parameters())
        trained = isinstance(self.phase, Qat) and self.phase.scale_rate > 0
        scales = [v for name, v in named.items() if trained and name.endswith("logarithm")]
        known = {id(scale) for scale in scales}
        others = [value for value in named.values() if id(value) not in known]
        groups: list[dict[str, Any]] = [{"params": others, "highest": self.phase.learning_rate}]
        if isinstance(self.phase, Qat) and trained:
            groups.append({"params": scales, "highest": self.phase.scale_rate, "weight_decay": 0.0})
        momentum, decay = self.training.momentum, self.training.weight_decay
        if self.training.optimizer == "sgd":
            return torch.optim.SGD(
                groups, lr=self.phase.learning_rate, momentum=momentum, weight_decay=decay,
                nesterov=momentum > 0,
            )  # fmt: skip
        return torch.optim.AdamW(groups, lr=self.phase.learning_rate, weight_decay=decay)

    @property
    def done(self) -> bool:
        """Whether all epochs have run."""
        return self.epoch >= self.phase.epochs

    def run_epoch(self) -> float:
        """Run one epoch; returns the mean loss.

        Raises
        ------
        SecateurError : the loss, or an augmented sample, is not finite
        """
        order = None
        if self.training.shuffle and not self.part.ordered:
            order = torch.randperm(self.part.count, generator=self.generator)
        batches = self.part.batches(self.training.batch)
        total = batches * self.phase.epochs
        span = total // self.rounds
        if self.rounds > 1 and self.epoch * batches % span == 0:
            self.optimizer = self._optimizer()
        self.model.train()
        summed, index = 0.0, -1
        seed = zlib.crc32(f"{self.mark} {self.epoch}".encode())
        given = self.part.epoch(self.training.batch, seed=seed, order=order)
        for index, batch in enumerate(given):
            done = self.epoch * batches + index
            if self.before_batch is not None:
                self.before_batch(done, total)
            for group in self.optimizer.param_groups:
                group["lr"] = rate(done % span, span, group["highest"])
            summed += self._step(batch)
        self.model.eval()
        self.epoch += 1
        if index + 1 != batches:
            raise SecateurError(
                f"{self.part.where}: {index + 1} batches in epoch {self.epoch}, but {batches} in "
                f"the first pass; give as many in each"
            )
        return summed / batches

    def _step(self, batch: Batch) -> float:
        """One step of the optimiser; returns the loss."""
        x, y = batch
        if self.augment is not None:  # which may write to what it is given
            x = self.augment(tree_map(torch.clone, x), self.generator)
        loss = self._loss(on((x, y), self.device))
        if not bool(torch.isfinite(loss)):
            if not all(bool(torch.isfinite(leaf).all()) for leaf in leaves_of(x)):
                raise SecateurError(
                    f"augment gives infinite or NaN samples in epoch {self.epoch + 1}"
                )
            raise SecateurError(
                f"the loss is {loss.item()} in epoch {self.epoch + 1}: lower the learning rate"
            )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.lasso is not None:
            self.lasso.step(self.optimizer.param_groups[0]["lr"])
        return loss.item()

    def _loss(self, batch: Batch) -> Tensor:
        """That of the recipe, and the share that asks for the outputs of the dense model."""
        self.seen.calls.clear()
        share = self.phase.distil
        if self.teacher is None:
            return self.task.loss(self.seen, batch)
        if share == 1:  # targets may be of samples that augmentation has blended
            called(self.seen, batch[0])
            return self._asked(self.teacher)
        loss = self.task.loss(self.seen, batch)
        return self._asked(self.teacher) + (1 - share) * loss

    def _asked(self, teacher: Seen) -> Tensor:
        """``phase.distil`` times the distance from the dense model, over all calls of the model."""
        found, (share, temperature) = [], (self.phase.distil, self.phase.temperature)
        for args, kwargs, outputs in self.seen.calls:
            with torch.no_grad():
                expected = teacher(*args, **kwargs)
            teacher.calls.clear()
            pairs = zip(leaves_of(outputs), leaves_of(expected), strict=True)
            for a, b in [pair for pair in pairs if isinstance(pair[0], Tensor)]:
                if self.task.distillation == "kl":
                    found.append(share * temperature**2 * softened(a, b, temperature))
                else:
                    found.append(share * F.mse_loss(a, b))
        return torch.stack(found).mean()

    def state(self) -> checkpoint.State:
        """Everything that the next epoch depends on."""
        tensors, data = checkpoint.optimizer_state(self.optimizer)
        tensors |= checkpoint.model_state(self.model)
        tensors["random.order"] = self.generator.get_state()
        tensors |= {f"random.{k}": v for k, v in random_state(self.device).items()}
        return tensors, {"epoch": self.epoch, "optimizer": data}

    def restore(self, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
        """Resume from the state of a trainer with the same arguments."""
        checkpoint.load_model_state(self.model, tensors)
        checkpoint.load_optimizer_state(self.optimizer, tensors, data["optimizer"])
        self.generator.set_state(tensors["random.order"])
        states = {key: tensors[f"random.{key}"] for key in random_state(self.device)}
        set_random_state(self.device, states)
        self.epoch = data["epoch"]


def shifted(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Augmentation: images (batch, C, H, W) shifted together by up to two pixels each way."""
    dy, dx = (int(v) for v in torch.randint(0, 5, (2,), generator=generator))
    height, width = batch.shape[2:]
    return F.pad(batch, (2, 2, 2, 2))[:, :, dy : dy + height, dx : dx + width]

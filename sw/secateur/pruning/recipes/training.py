"""Training that can be interrupted after any epoch, and resumed to the very same weights."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.fx.computed import copied
from secateur.pruning.criteria.probe import evaluating
from secateur.pruning.methods.regularise import GroupLasso, distil
from secateur.pruning.recipes import checkpoint
from secateur.pruning.recipes.tables import Phase, Prune, Qat, Training

Augment = Callable[[Tensor, torch.Generator], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
WARM_UP = 0.1


@dataclass(frozen=True)
class Split:
    """Training and held-out samples.

    Attributes
    ----------
    train_x, test_x : inputs (count, ...) float32
    train_y, test_y : labels (count,) int64
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor

    @classmethod
    def of(cls, found: Any, where: str) -> Split:
        """From an object with these attributes, or a mapping.

        Parameters
        ----------
        found : the object
        where : key and value of the recipe, for messages

        Raises
        ------
        SecateurError : one is missing, is not a tensor, or counts differ
        """
        names = ("train_x", "train_y", "test_x", "test_y")
        get = found.get if isinstance(found, Mapping) else lambda name: getattr(found, name, None)
        parts: dict[str, Any] = {name: get(name) for name in names}
        for name, value in parts.items():
            if not isinstance(value, Tensor) or len(value) == 0:
                raise SecateurError(f"{where}: {name} must be a tensor with samples first")
        for x, y in (("train_x", "train_y"), ("test_x", "test_y")):
            if len(parts[x]) != len(parts[y]):
                raise SecateurError(f"{where}: {len(parts[x])} {x}, but {len(parts[y])} {y}")
            if parts[x].dtype != torch.float32:
                raise SecateurError(f"{where}: {x} is {parts[x].dtype}; give float32, {x}.float()")
            if not bool(torch.isfinite(parts[x]).all()):
                raise SecateurError(f"{where}: {x} must hold finite floats")
        if parts["train_x"].shape[1:] != parts["test_x"].shape[1:]:
            shapes = [tuple(parts[x].shape[1:]) for x in ("train_x", "test_x")]
            raise SecateurError(f"{where}: samples of {shapes[0]} to train, of {shapes[1]} to test")
        return cls(**parts)

    def some(self, part: str, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Random samples, or all if there are fewer.

        Data sets are often sorted by class: the first samples do not stand for all.

        Parameters
        ----------
        part : "train" or "test"
        count : samples
        seed : of the choice

        Returns
        -------
        x, y : inputs and labels
        """
        x, y = (self.train_x, self.train_y) if part == "train" else (self.test_x, self.test_y)
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(y), generator=generator)[:count]
        return x[chosen], y[chosen]


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


def _format(model: nn.Module, x: Tensor) -> torch.memory_format:
    """Channels-last, if the samples are images and the model runs on such images."""
    if x.dim() != 4:
        return torch.preserve_format
    trial = copied(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        with evaluating(trial), torch.no_grad():
            trial(x.contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last


class Trainer:
    """Trains a module in place, epoch by epoch; its state between epochs can be saved.

    Convolutions run in channels-last memory, in about two thirds of the time, unless the model
    depends on the memory layout of its maps. A last batch of one sample, on which batch norms fail,
    joins the one before. In bfloat16 only the networks run; weights, losses and all of
    quantisation-aware training stay in float32.

    Parameters
    ----------
    name : of the stage; with ``seed`` it seeds order, augmentation and torch's global generator
    model : in training mode while an epoch runs, in evaluation mode otherwise
    split : data
    phase : settings of the stage
    training : settings of all stages
    seed : see ``name``
    loss : (outputs, targets) -> scalar
    augment : (batch, generator) -> batch, or None
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
        split: Split,
        phase: Phase,
        training: Training,
        *,
        seed: int,
        loss: Loss,
        augment: Augment | None = None,
        teacher: nn.Module | None = None,
        before_batch: Callable[[int, int], None] | None = None,
        n: int = 8,
        skip: Iterable[str] = (),
    ) -> None:
        self.format = _format(model, split.train_x[:2])
        self.model = self._formatted(model)
        self.split, self.phase, self.training = split, phase, training
        self.distil: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
        if phase.distil:
            if teacher is None:
                raise SecateurError(f"{name}.distil needs a dense model before this stage")
            self.distil = distil(
                self._formatted(teacher), share=phase.distil, temperature=phase.temperature,
                loss=loss,
            )  # fmt: skip
        self.loss, self.augment, self.before_batch = loss, augment, before_batch
        self.narrow = training.precision == "bfloat16" and not isinstance(phase, Qat)
        self.epoch = 0
        mixed = zlib.crc32(f"{seed} {name}".encode())
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
        order = torch.randperm(len(self.split.train_y), generator=self.generator)
        parts = list(order.split(self.training.batch))
        if len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [torch.cat(parts[-2:])]
        batches = len(parts)
        total = batches * self.phase.epochs
        span = total // self.rounds
        if self.rounds > 1 and self.epoch * batches % span == 0:
            self.optimizer = self._optimizer()
        self.model.train()
        summed = 0.0
        for index, chosen in enumerate(parts):
            done = self.epoch * batches + index
            if self.before_batch is not None:
                self.before_batch(done, total)
            for group in self.optimizer.param_groups:
                group["lr"] = rate(done % span, span, group["highest"])
            x = self.split.train_x[chosen]
            x = x if self.augment is None else self.augment(x, self.generator)
            loss = self._loss(x.contiguous(memory_format=self.format), self.split.train_y[chosen])
            if not bool(torch.isfinite(loss)):
                if not bool(torch.isfinite(x).all()):
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
            summed += loss.item()
        self.model.eval()
        self.epoch += 1
        return summed / batches

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.narrow):
            outputs = self.model(x).float()
            if self.distil is not None:
                return self.distil(x, outputs, y)
        return self.loss(outputs, y)

    def state(self) -> checkpoint.State:
        """Everything that the next epoch depends on."""
        tensors, data = checkpoint.optimizer_state(self.optimizer)
        tensors |= checkpoint.model_state(self.model)
        tensors["random.order"] = self.generator.get_state()
        tensors["random.global"] = torch.get_rng_state()
        return tensors, {"epoch": self.epoch, "optimizer": data}

    def restore(self, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
        """Resume from the state of a trainer with the same arguments."""
        checkpoint.load_model_state(self.model, tensors)
        checkpoint.load_optimizer_state(self.optimizer, tensors, data["optimizer"])
        self.generator.set_state(tensors["random.order"])
        torch.set_rng_state(tensors["random.global"])
        self.epoch = data["epoch"]


def shifted(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Augmentation: images (batch, C, H, W) shifted together by up to two pixels each way."""
    dy, dx = (int(v) for v in torch.randint(0, 5, (2,), generator=generator))
    height, width = batch.shape[2:]
    return F.pad(batch, (2, 2, 2, 2))[:, :, dy : dy + height, dx : dx + width]

"""A callback for Lightning; it needs the extra ``lightning``."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from secateur.pruning.budget.pruner import Pruner


class PrunerCallback(pl.Callback):
    """Prunes blocks of a model to a budget while a ``Trainer`` trains it: a `Pruner` of its own.

    It is made before the optimizers and before DistributedDataParallel, counts the optimizer's
    steps, also with accumulated gradients, and makes the cuts that are left when the training ends.
    Its state is in Lightning's checkpoints, and the masks are in that of the model.

    Parameters
    ----------
    arguments, options : of `Pruner`; the model is the module that is trained, or a part of it

    Attributes
    ----------
    pruner : None before ``fit``
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._arguments, self._options = arguments, options
        self._steps = 0
        self.pruner: Pruner | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the pruner, and its first cut.

        Parameters
        ----------
        trainer, pl_module : Lightning's
        stage : "fit" for a training
        """
        if stage == "fit" and self.pruner is None:
            self.pruner = Pruner(*self._arguments, **self._options)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count from where the training stands."""
        self._steps = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, *batch: Any) -> None:
        """Make the cuts that are due, if the optimizer has made a step."""
        if self.pruner is not None and trainer.global_step > self._steps:
            self._steps = trainer.global_step
            self.pruner.step()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the cuts that are left."""
        if self.pruner is not None:
            self.pruner.finish()

    def state_dict(self) -> dict[str, Any]:
        """That of the pruner."""
        return {} if self.pruner is None else self.pruner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the state of a pruner, which `setup` has made."""
        if self.pruner is not None:
            self.pruner.load_state_dict(state_dict)

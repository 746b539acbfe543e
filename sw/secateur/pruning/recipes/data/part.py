"""One part of the data, for training or held out, as batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.errors import SecateurError
from secateur.pruning.recipes.data.facts import Facts, facts_of
from secateur.pruning.recipes.data.trees import Batch, split

#: Samples of a batch where nothing is trained.
BATCH = 256


class Part(ABC):
    """Samples as batches (inputs, targets): for the same seed the same, in every pass.

    Parameters
    ----------
    where : what messages begin with
    inputs, targets : what messages call them

    Attributes
    ----------
    ordered : whether the order is its own, so that nobody else shuffles it
    """

    ordered: bool

    def __init__(self, where: str, inputs: str, targets: str) -> None:
        self.where, self.inputs, self.targets = where, inputs, targets

    def epoch(self, size: int, *, seed: int, order: Tensor | None = None) -> Iterator[Batch]:
        """All samples. A last batch of one, on which batch norms fail, joins the one before.

        Parameters
        ----------
        size : of a batch, unless the batches are its own
        seed : of what is drawn at random
        order : of the samples; None: their own
        """
        return self._epoch(size, seed, order)

    @abstractmethod
    def _epoch(self, size: int, seed: int, order: Tensor | None) -> Iterator[Batch]:
        """See `epoch`."""

    @abstractmethod
    def batches(self, size: int) -> int:
        """Batches of an epoch."""

    @abstractmethod
    def _picked(self, index: Tensor) -> Batch:
        """See `picked`."""

    def _pair(self, batch: Any) -> Batch:
        """A batch with tensors for arrays.

        Raises
        ------
        SecateurError : it is no pair
        """
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            several = isinstance(batch, tuple | list)
            what = f"{len(batch)} values" if several else type(batch).__name__
            raise SecateurError(
                f"{self.where}: {self.inputs} must come in pairs (input, target), not {what}"
            )
        x, y = pytree.tree_map(
            lambda v: torch.from_numpy(v) if isinstance(v, np.ndarray) else v, tuple(batch)
        )
        return x, y

    @cached_property
    def facts(self) -> Facts:
        """What a pass through all samples shows.

        Raises
        ------
        SecateurError : samples that no recipe can use
        """
        try:
            return facts_of(self.epoch(BATCH, seed=0), self.inputs, self.targets)
        except SecateurError as error:
            raise SecateurError(f"{self.where}: {error}") from None

    @property
    def count(self) -> int:
        """Samples."""
        return sum(self.facts.sizes)

    def some(self, count: int, seed: int) -> Batch:
        """Random samples, or all if there are fewer.

        Data sets are often sorted by class: the first samples do not stand for all.

        Parameters
        ----------
        count : samples
        seed : of the choice
        """
        generator = torch.Generator().manual_seed(seed)
        return self._picked(torch.randperm(self.count, generator=generator)[:count])

    def picked(self, index: Tensor) -> Batch:
        """Samples by their numbers in the order of a pass with seed 0; those that there are."""
        return self._picked(index[index < self.count])

    def split(self, batch: Batch, size: int) -> list[Batch]:
        """Samples of this part, in smaller batches; the last has what is left."""
        x, y = batch
        return list(zip(split(x, size), split(y, size, self.facts.stacked), strict=True))


@dataclass(frozen=True)
class Loader:
    """Batches in their order, on a device, as often as they are asked for.

    Attributes
    ----------
    part : has the samples
    device : of all tensors
    """

    part: Part
    device: torch.device

    def __len__(self) -> int:
        return self.part.batches(BATCH)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.part.epoch(BATCH, seed=0):
            yield on(batch, self.device)


def on(tree: Any, device: torch.device) -> Any:
    """The tensors of a tree, on a device."""
    return pytree.tree_map(lambda v: v.to(device) if isinstance(v, Tensor) else v, tree)

"""What a pass through samples shows: how many, of what shape, in which range, and their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from secateur.errors import SecateurError
from secateur.pruning.recipes.data.trees import Batch, leaves_of, stacks


@dataclass(frozen=True)
class Facts:
    """Of all samples of one part of the data.

    Attributes
    ----------
    sizes : samples of each batch
    shapes : of the inputs of one sample
    stacked : whether targets are tensors with samples first, else a list with one for each
    digest : SHA-256 of inputs and targets
    low, high : least and largest value of an input
    labels : least and largest class number; None: the targets are no class numbers
    """

    sizes: list[int]
    shapes: list[tuple[int, ...]]
    stacked: bool
    digest: str
    low: float
    high: float
    labels: tuple[int, int] | None


class _Reading:
    """Facts in the making."""

    def __init__(self, inputs: str, targets: str) -> None:
        self.inputs, self.targets = inputs, targets
        self.sizes: list[int] = []
        self.shapes: list[tuple[int, ...]] = []
        self.stacked = True
        self.hash = hashlib.sha256()
        self.lows: list[float] = []
        self.highs: list[float] = []
        self.labels: list[int] | None = []

    def add(self, batch: Batch) -> None:
        x, y = batch
        self._add_inputs(leaves_of(x))
        self._add_targets(y)
        for leaf in leaves_of(batch):
            self.hash.update(_bytes(leaf))

    def _add_inputs(self, leaves: list[Any]) -> None:
        name = self.inputs
        for leaf in leaves:
            if not isinstance(leaf, Tensor) or leaf.dim() == 0 or len(leaf) == 0:
                raise SecateurError(f"{name} must be a tensor with samples first")
            if leaf.dtype != torch.float32:
                raise SecateurError(f"{name} is {leaf.dtype}; give float32, {name}.float()")
            if not bool(torch.isfinite(leaf).all()):
                raise SecateurError(f"{name} must hold finite floats")
            self.lows.append(float(leaf.min()))
            self.highs.append(float(leaf.max()))
        if not leaves or len({len(leaf) for leaf in leaves}) > 1:
            counts = [len(leaf) for leaf in leaves]
            raise SecateurError(f"{name} must have equally many samples each, not {counts}")
        shapes = [tuple(leaf.shape[1:]) for leaf in leaves]
        if self.shapes and shapes != self.shapes:
            raise SecateurError(
                f"{name} must have one shape, not samples of {self.shapes} and of {shapes}"
            )
        self.shapes = shapes
        self.sizes.append(len(leaves[0]))

    def _add_targets(self, y: Any) -> None:
        count = self.sizes[-1]
        listed = isinstance(y, list | tuple) and len(y) == count
        self.stacked &= stacks(y, count)
        if not self.stacked and not listed:
            raise SecateurError(
                f"{self.targets} must be tensors with as many samples first as there are inputs, "
                f"{count}, or a list with a target for each"
            )
        numbers = isinstance(y, Tensor) and y.dim() == 1 and not y.is_floating_point()
        if not numbers:
            self.labels = None
        elif self.labels is not None:
            self.labels += [int(y.min()), int(y.max())]


def _bytes(leaf: Any) -> bytes:
    if isinstance(leaf, Tensor):
        return leaf.detach().cpu().contiguous().numpy().tobytes()
    if leaf is None or isinstance(leaf, bool | int | float | str | bytes):
        return repr(leaf).encode()
    return type(leaf).__name__.encode()


def facts_of(batches: Iterable[Batch], inputs: str, targets: str) -> Facts:
    """Facts of batches.

    Parameters
    ----------
    batches : all of them
    inputs, targets : what messages call them

    Raises
    ------
    SecateurError : inputs that are not finite float32 tensors of one shape, or targets that are
        not as many
    """
    reading = _Reading(inputs, targets)
    for batch in batches:
        reading.add(batch)
    if not reading.sizes:
        raise SecateurError(f"{inputs} must be a tensor with samples first, at least one")
    labels = reading.labels
    return Facts(
        reading.sizes,
        reading.shapes,
        reading.stacked,
        reading.hash.hexdigest(),
        min(reading.lows),
        max(reading.highs),
        (min(labels), max(labels)) if labels else None,
    )

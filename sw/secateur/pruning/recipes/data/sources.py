"""The forms that a part of the data may have: tensors, a data set, a loader."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from secateur.errors import SecateurError
from secateur.pruning.recipes.data.part import Part
from secateur.pruning.recipes.data.randomness import Randomness
from secateur.pruning.recipes.data.trees import Batch, joined, leaves_of, stacks, taken
from secateur.text import first_line


def part_of(found: Any, where: str, name: str) -> Part:
    """A data set or a loader as a part of the data.

    Parameters
    ----------
    found : map-style data set of pairs (input, target), or an iterable of batches of such pairs
        that has a length
    where : what messages begin with
    name : "train" or "test"

    Raises
    ------
    SecateurError : it is neither
    """
    names = (f"inputs of {name}", f"targets of {name}")
    indexed = hasattr(found, "__getitem__") and hasattr(found, "__len__")
    if indexed and (isinstance(found, Dataset) or not hasattr(found, "__iter__")):
        return Indexed(where, *names, found)
    if hasattr(found, "__iter__") and hasattr(found, "__len__"):
        return Loaded(where, *names, found)
    raise SecateurError(
        f"{where}: {name} must be a DataLoader, an iterable of batches (input, target) with a "
        f"length, or a data set with __getitem__ and __len__, not {type(found).__name__}"
    )


class Indexed(Part):
    """Samples that are had by their numbers.

    Parameters
    ----------
    where, inputs, targets : as of `Part`
    samples : tensors (inputs, targets), samples first, or a map-style data set of such pairs
    """

    ordered = False

    def __init__(self, where: str, inputs: str, targets: str, samples: Any) -> None:
        super().__init__(where, inputs, targets)
        self.samples = samples

    @property
    def count(self) -> int:
        if isinstance(self.samples, tuple):
            return len(leaves_of(self.samples)[0])
        return len(self.samples)

    def batches(self, size: int) -> int:
        return len(_cut(torch.arange(self.count), size))

    def _epoch(self, size: int, seed: int, order: Tensor | None) -> Iterator[Batch]:
        randomness = Randomness(seed)
        for index in _cut(torch.arange(self.count) if order is None else order, size):
            with randomness.own():
                batch = self._take(index)
            yield batch

    def _picked(self, index: Tensor) -> Batch:
        with Randomness(0).own():
            return self._take(index)

    def _take(self, index: Tensor) -> Batch:
        if isinstance(self.samples, tuple):
            x, y = taken(self.samples, index)
            return x, y
        try:
            return self._pair(default_collate([self.samples[int(at)] for at in index]))
        except SecateurError:
            raise
        except Exception as error:
            raise SecateurError(
                f"{self.where}: {self.inputs} cannot be put into batches: {first_line(error)}; "
                f"give a DataLoader with a collate_fn"
            ) from error


def _cut(order: Tensor, size: int) -> list[Tensor]:
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


class Loaded(Part):
    """Batches of a loader, in its own order.

    A pass with another seed is shuffled and transformed in another way if the loader draws from
    the global generators of PyTorch, Python or NumPy, from its ``generator`` or that of its
    sampler, or if its sampler has ``set_epoch``.

    Parameters
    ----------
    where, inputs, targets : as of `Part`
    loader : iterable with a length
    """

    ordered = True

    def __init__(self, where: str, inputs: str, targets: str, loader: Any) -> None:
        super().__init__(where, inputs, targets)
        self.loader = loader
        self._drawn: dict[bytes, Batch] = {}
        self._check()

    def _check(self) -> None:
        """Refuse a loader whose batches depend on more than the seed."""
        twice = [next(self._read(0), None) for _ in range(2)]
        first, second = ([leaf for leaf in leaves_of(b) if isinstance(leaf, Tensor)] for b in twice)
        if not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
            raise SecateurError(
                f"{self.where}: {self.inputs} differ from one pass to the next with the same seed; "
                f"draw what is random from torch's generator, or from the loader's own, its "
                f"attribute `generator`"
            )

    def batches(self, size: int) -> int:
        return len(self.facts.sizes)

    def _epoch(self, size: int, seed: int, order: Tensor | None) -> Iterator[Batch]:
        held: list[Batch] = []
        for batch in self._read(seed):
            alone = len(leaves_of(batch[0])[0]) == 1  # the last one, perhaps
            yield from held[:-1] if alone else held
            held = [*(held[-1:] if alone else []), batch]
        if len(held) == 2:
            stacked = stacks(held[0][1], len(leaves_of(held[0][0])[0]))
            x, y = zip(*held, strict=True)
            held = [(joined(x), joined(y, stacked))]
        yield from held

    def _read(self, seed: int) -> Iterator[Batch]:
        randomness, loader = Randomness(seed), self.loader
        for part in _parts_of(loader):
            if isinstance(getattr(part, "generator", None), torch.Generator):
                part.generator.manual_seed(seed)
            if hasattr(part, "set_epoch"):
                part.set_epoch(seed)
        if getattr(loader, "persistent_workers", False):
            loader = copy.copy(loader)  # starts workers of its own, that have not drawn anything
        batches: Iterator[Any] | None = None
        while True:
            with randomness.own():
                try:
                    batches = iter(loader) if batches is None else batches
                    batch = next(batches)
                except StopIteration:
                    return
                except Exception as error:
                    raise SecateurError(
                        f"{self.where}: {self.inputs} cannot be read: {first_line(error)}"
                    ) from error
            yield self._pair(batch)

    def _picked(self, index: Tensor) -> Batch:
        key = index.numpy().tobytes()
        if key not in self._drawn:
            self._drawn[key] = self._found(index)
        return self._drawn[key]

    def _found(self, index: Tensor) -> Batch:
        """Samples by their numbers, which one pass collects."""
        order, passed = index.argsort(), 0
        wanted, parts = index[order], list[Batch]()
        stacked = self.facts.stacked
        for x, y in self.epoch(1, seed=0):
            after = passed + len(leaves_of(x)[0])
            here = wanted[(passed <= wanted) & (wanted < after)] - passed
            if len(here):
                parts.append((taken(x, here), taken(y, here, stacked)))
            passed = after
            if passed > int(wanted[-1]):
                break
        x, y = zip(*parts, strict=True)
        back = order.argsort()
        return taken(joined(x), back), taken(joined(y, stacked), back, stacked)


def _parts_of(loader: Any) -> list[Any]:
    """A loader, its samplers, and its data set: what may have a generator."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    found = [loader, getattr(loader, "dataset", None), getattr(loader, "sampler", None)]
    return [*found, batch_sampler, getattr(batch_sampler, "sampler", None)]

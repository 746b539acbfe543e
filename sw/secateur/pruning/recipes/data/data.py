"""The samples of a recipe."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secateur.errors import SecateurError
from secateur.pruning.recipes.data.part import Part
from secateur.pruning.recipes.data.sources import Indexed, part_of
from secateur.pruning.recipes.data.trees import leaves_of, stacks

_TENSORS = ("train_x", "train_y", "test_x", "test_y")


@dataclass(frozen=True)
class Split:
    """Training and held-out samples in tensors, samples first, in any containers.

    Attributes
    ----------
    train_x, test_x : inputs (count, ...) float32
    train_y, test_y : targets (count, ...); of classification labels (count,) int64
    """

    train_x: Any
    train_y: Any
    test_x: Any
    test_y: Any


@dataclass(frozen=True)
class Data:
    """Training and held-out samples of any form.

    Attributes
    ----------
    train, test : the parts
    """

    train: Part
    test: Part

    @classmethod
    def of(cls, found: Any, where: str) -> Data:
        """From an object with ``train`` and ``test``, or with the tensors of a `Split`.

        Parameters
        ----------
        found : the object, or a mapping
        where : key and value of the recipe, for messages

        Raises
        ------
        SecateurError : a part is missing, or no recipe can use its samples
        """
        get = found.get if isinstance(found, Mapping) else lambda name: getattr(found, name, None)
        # A module has a method `train`.
        given = {name: get(name) for name in ("train", "test") if not inspect.ismethod(get(name))}
        if all(given.get(name) is not None for name in ("train", "test")):
            data = cls(*(part_of(given[name], where, name) for name in ("train", "test")))
        else:
            data = cls(*(_of_tensors(get, where, name) for name in ("train", "test")))
        shapes = [part.facts.shapes for part in (data.train, data.test)]
        if shapes[0] != shapes[1]:
            a, b = (found[0] if len(found) == 1 else tuple(found) for found in shapes)
            raise SecateurError(f"{where}: samples of {a} to train, of {b} to test")
        return data


def _of_tensors(get: Any, where: str, name: str) -> Part:
    x, y = get(f"{name}_x"), get(f"{name}_y")
    for key, tree in ((f"{name}_x", x), (f"{name}_y", y)):
        leaves = leaves_of(tree)
        count = len(leaves[0]) if leaves and hasattr(leaves[0], "__len__") else 0
        if count == 0 or not stacks(tree, count):
            raise SecateurError(
                f"{where}: {key} must be a tensor with samples first, or several; or give loaders "
                f"or data sets as train and test"
            )
    counts = [len(leaves_of(tree)[0]) for tree in (x, y)]
    if counts[0] != counts[1]:
        raise SecateurError(f"{where}: {counts[0]} {name}_x, but {counts[1]} {name}_y")
    return Indexed(where, f"{name}_x", f"{name}_y", (x, y))

"""Batches: tensors, samples first, in tuples, lists and dictionaries of any depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

#: Inputs and targets of some samples.
Batch = tuple[Any, Any]


def leaves_of(tree: Any) -> list[Any]:
    """Everything in a tree that is not a container."""
    return list(pytree.tree_leaves(tree))


def first_tensor(tree: Any) -> Tensor:
    """The first tensor of a tree that has one."""
    found: Tensor = next(leaf for leaf in leaves_of(tree) if isinstance(leaf, Tensor))
    return found


def stacks(tree: Any, count: int) -> bool:
    """Whether a tree has tensors alone, all with so many samples first."""
    leaves = leaves_of(tree)
    return bool(leaves) and all(
        isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == count for leaf in leaves
    )


def taken(tree: Any, index: Tensor | slice, stacked: bool = True) -> Any:
    """Some samples of a tree.

    Parameters
    ----------
    tree : tensors, samples first, in any containers; or a sequence with an entry for each sample
    index : of the samples
    stacked : whether it is tensors
    """
    if stacked:
        return pytree.tree_map(lambda leaf: leaf[index], tree)
    if isinstance(index, slice):
        return list(tree[index])
    return [tree[int(at)] for at in index]


def joined(trees: Sequence[Any], stacked: bool = True) -> Any:
    """All samples of several trees, in order.

    Parameters
    ----------
    trees : as for `taken`, of one structure
    stacked : whether they are tensors
    """
    if not stacked:
        return [sample for tree in trees for sample in tree]
    leaves, specs = zip(*map(pytree.tree_flatten, trees), strict=True)
    return pytree.tree_unflatten(
        [torch.cat(parts) for parts in zip(*leaves, strict=True)], specs[0]
    )


def split(tree: Any, size: int, stacked: bool = True) -> Iterator[Any]:
    """A tree in parts of ``size`` samples, the last of fewer.

    Parameters
    ----------
    tree, stacked : as for `taken`
    size : of a part
    """
    count = len(first_tensor(tree)) if stacked else len(tree)
    for at in range(0, count, size):
        yield taken(tree, slice(at, at + size), stacked)

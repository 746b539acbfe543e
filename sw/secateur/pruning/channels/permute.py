"""Channel permutation: an order of filters in which blocks of N share their pattern.

The compiler permutes channels itself, invisibly, and applies the inverse to readers and residual
partners (`secateur.compiler.place`). This module only chooses the blocks that stay for that order:
a `Block` granularity with ``orders``. Nothing moves in the model.

References
----------
Reordering for block sparsity: Ji et al., "TETRIS: tile-matching the tremendous irregular
sparsity", NeurIPS 2018. Swaps by saliency kept: Pool and Yu, "Channel permutations for N:M
sparsity", NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from secateur.pruning.channels.coupling import channel_sets
from secateur.pruning.criteria.criteria import Criterion
from secateur.pruning.criteria.probe import Inputs
from secateur.pruning.methods.one_shot import check_saliency
from secateur.pruning.methods.plan import make_plan
from secateur.pruning.units.granularity import Block
from secateur.pruning.units.select import kept_count

Matrix = npt.NDArray[np.float64]
Order = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SaliencyKept:
    """Share of a layer's saliency that stays at one density.

    Attributes
    ----------
    name : of the layer
    given : with blocks of neighbours in the given order
    permuted : with blocks of neighbours in the order that was found
    unstructured : with single weights, an upper bound
    """

    name: str
    given: float
    permuted: float
    unstructured: float


@dataclass(frozen=True)
class Permutation:
    """Orders of output channels per layer, and what they are worth. ``str()`` is a table.

    Count the blocks of the pruned model with ``density_of(model, granularity=...)``: neighbours in
    the model's own order are not yet the compiler's.

    Attributes
    ----------
    n : channels of a block
    density : of blocks, of layers without an override
    orders : output channels by name of layer; layers that are not named keep their order
    layers : the saliency that each keeps
    """

    n: int
    density: float
    orders: dict[str, tuple[int, ...]]
    layers: tuple[SaliencyKept, ...]

    @property
    def granularity(self) -> Block:
        """For `secateur.prune`: blocks of neighbours in these orders."""
        return Block(self.n, self.orders)

    def __str__(self) -> str:
        width = max(len("layer"), *(len(row.name) for row in self.layers))
        lines = [f"{'layer':<{width}}  {'given':>8}  {'permuted':>8}  {'unstructured':>12}"]
        lines += [
            f"{row.name:<{width}}  {100 * row.given:>6.2f} %  {100 * row.permuted:>6.2f} %  "
            f"{100 * row.unstructured:>10.2f} %"
            for row in self.layers
        ]
        return "\n".join(lines)


def permute(
    model: nn.Module,
    example: Inputs,
    *,
    density: float,
    n: int = 8,
    criterion: Criterion | None = None,
    skip: Iterable[str] = (),
    overrides: Mapping[str, float] | None = None,
    seed: int = 0,
    swaps: int = 2000,
) -> Permutation:
    """Search for orders of filters that keep the most saliency at a density of N:1 blocks.

    Layers that share their channels share one order. Sets that concatenation or a grouped
    convolution make of parts keep the given order.

    Parameters
    ----------
    model : without masks; left as it is
    example : inputs, batch included, to find what shares channels
    density, n, criterion, skip, overrides : as for the `secateur.prune` that follows, scope "layer"
    seed : of the swaps
    swaps : that are tried in each set of tied channels

    Raises
    ------
    SecateurError : as `secateur.prune`; masks, or frozen parameters
    """
    plan = make_plan(
        model, density=density, n=n, scope="layer", skip=skip, overrides=overrides,
        criterion=criterion,
    )  # fmt: skip
    found = plan.criterion(model, plan.layers)
    saliency: dict[str, Matrix] = {}
    for name, layer in plan.layers.items():
        check_saliency(name, layer, found.get(name))
        saliency[name] = found[name].cpu().flatten(1).numpy()
    share = {name: plan.overrides.get(name, plan.density) for name in plan.layers}
    keep = {name: _blocks_kept(part, n, share[name]) for name, part in saliency.items()}
    orders: dict[str, tuple[int, ...]] = {}
    for each in channel_sets(model, example):
        names = [name for name in plan.layers if name in each.members]
        if names and each.aligned(plan.layers) and not each.fixed:
            parts, kept = [saliency[name] for name in names], [keep[name] for name in names]
            order = search(parts, kept, n, seed=seed, swaps=swaps)
            orders |= dict.fromkeys(names, tuple(order.tolist()))
    rows = [
        _row(name, part, orders.get(name), keep[name], n, share[name])
        for name, part in saliency.items()
    ]
    return Permutation(n, plan.density, orders, tuple(rows))


def _row(
    name: str, part: Matrix, order: tuple[int, ...] | None, keep: int, n: int, share: float
) -> SaliencyKept:
    """What an order is worth to one layer; None: the given one."""
    given = np.arange(len(part))
    single = np.sort(part, axis=None)[::-1][: kept_count(share, part.size)].sum()
    total = float(part.sum()) or 1.0
    return SaliencyKept(
        name,
        kept_saliency(part, given, keep, n) / total,
        kept_saliency(part, given if order is None else np.array(order), keep, n) / total,
        float(single) / total,
    )


def _blocks_kept(part: Matrix, n: int, density: float) -> int:
    return kept_count(density, -(-len(part) // n) * part.shape[1])


def _sums(part: Matrix, order: Order, n: int) -> Matrix:
    """(groups, positions) saliency of each block of ``n`` neighbours in ``order``."""
    return np.add.reduceat(part[order], np.arange(0, len(order), n), axis=0)


def _kept(sums: Matrix, weight: Matrix, keep: int) -> float:
    """Saliency of the ``keep`` blocks that rank highest, short ones by their mean."""
    ranks = (sums * weight[:, None]).ravel()
    best = np.argpartition(ranks, len(ranks) - keep)[len(ranks) - keep :]
    return float(sums.ravel()[best].sum())


def _weight(channels: int, n: int) -> Matrix:
    sizes = np.diff(np.append(np.arange(0, channels, n), channels))
    return np.asarray(n / sizes, dtype=np.float64)


def kept_saliency(part: Matrix, order: Order, keep: int, n: int) -> float:
    """Saliency that the best blocks hold if channels are taken in an order.

    Parameters
    ----------
    part : (channels, positions) saliency, never negative
    order : (channels,) a permutation
    keep : blocks that stay
    n : channels of a block
    """
    return _kept(_sums(part, order, n), _weight(len(part), n), keep)


def search(
    parts: list[Matrix], keep: list[int], n: int, *, seed: int = 0, swaps: int = 2000
) -> Order:
    """One order for layers that share channels, with at least the saliency of the given order.

    Greedy groups, or the given order if that is better, and then random swaps of two channels of
    different groups, of which those stay that keep more saliency.

    Parameters
    ----------
    parts : (channels, positions) saliency of each layer
    keep : blocks that stay in each layer
    n : channels of a block
    seed : of the swaps
    swaps : to try
    """
    channels = len(parts[0])
    weight = _weight(channels, n)

    def value(order: Order) -> float:
        sums = (_sums(part, order, n) for part in parts)
        return sum(_kept(s, weight, k) for s, k in zip(sums, keep, strict=True))

    order = np.arange(channels)
    if len(weight) == 1:
        return order
    greedy = _greedy(parts, keep, n)
    if value(greedy) > value(order):
        order = greedy
    best = value(order)
    sums = [_sums(part, order, n) for part in parts]
    rng = np.random.default_rng(seed)
    for a, b in rng.integers(0, channels, size=(swaps, 2)):
        if a // n == b // n:
            continue
        trial = []
        for part, old in zip(parts, sums, strict=True):
            new = old.copy()
            change = part[order[b]] - part[order[a]]
            new[a // n] += change
            new[b // n] -= change
            trial.append(new)
        found = sum(_kept(s, weight, k) for s, k in zip(trial, keep, strict=True))
        if found > best * (1 + 1e-12):
            best, sums = found, trial
            order[a], order[b] = order[b], order[a]
    return order


def _greedy(parts: list[Matrix], keep: list[int], n: int) -> Order:
    """Groups one by one: each channel taken adds the most to the group's best positions."""
    channels = len(parts[0])
    groups = -(-channels // n)
    tops = [
        min(part.shape[1], max(1, round(k / groups))) for part, k in zip(parts, keep, strict=True)
    ]
    left = np.arange(channels)
    order: list[int] = []
    while len(left):
        group = [np.zeros(part.shape[1]) for part in parts]
        for _ in range(min(n, len(left))):
            gain = np.zeros(len(left))
            for part, held, top in zip(parts, group, tops, strict=True):
                joined = part[left] + held
                gain += np.partition(joined, joined.shape[1] - top)[:, -top:].sum(axis=1)
            chosen = int(np.argmax(gain))
            for part, held in zip(parts, group, strict=True):
                held += part[left[chosen]]
            order.append(int(left[chosen]))
            left = np.delete(left, chosen)
    return np.array(order)

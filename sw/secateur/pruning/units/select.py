"""Selection: from the scores of blocks and a density to the blocks that stay."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from secateur.errors import SecateurError


def kept_count(density: float, blocks: int) -> int:
    """Blocks that stay: ``round(density * blocks)``, half to even, at least one."""
    return max(1, round(density * blocks))


def _top(scores: Tensor, count: int) -> Tensor:
    """Bool vector with the ``count`` highest scores set; of equals, the first in order."""
    order = torch.sort(scores, descending=True, stable=True).indices
    kept = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    kept[order[:count]] = True
    return kept


def select_in_layer(name: str, scores: Tensor, alive: Tensor, density: float) -> Tensor:
    """Rank the blocks of one layer.

    Parameters
    ----------
    name : of the layer, for the message
    scores : (channel groups, positions)
    alive : bool, same shape; blocks that are not yet pruned. Others never come back.
    density : share of all blocks, pruned ones included, that stays

    Returns
    -------
    Tensor : bool, same shape

    Raises
    ------
    SecateurError : more blocks are asked for than are alive
    """
    count = kept_count(density, scores.numel())
    _check_alive(f"layer '{name}'", count, int(alive.sum()), density)
    ranked = scores.masked_fill(~alive, -torch.inf).flatten()
    return _top(ranked, count).reshape(scores.shape)


def select_above(name: str, scores: Tensor, alive: Tensor, threshold: float) -> Tensor:
    """Units alive whose score is at least ``threshold``, and the best of the layer.

    Parameters
    ----------
    name, scores, alive : as for `select_in_layer`
    threshold : saliency of a unit
    """
    _check_alive(f"layer '{name}'", 1, int(alive.sum()), 1.0)
    ranked = scores.masked_fill(~alive, -torch.inf)
    return (ranked >= threshold) | _top(ranked, 1)


def select_n_of_m(scores: Tensor, alive: Tensor, groups: Tensor, n: int) -> Tensor:
    """The best ``n`` of those alive in every group; of equals, the first.

    Parameters
    ----------
    scores, alive : (units,)
    groups : int64 (units,), the group of each unit
    n : units of each group that stay
    """
    ranked = scores.masked_fill(~alive, -torch.inf)
    order = torch.sort(ranked, descending=True, stable=True).indices
    order = order[torch.sort(groups[order], stable=True).indices]
    sizes = torch.bincount(groups)
    begin = torch.cumsum(sizes, 0) - sizes
    place = torch.arange(len(scores)) - begin[groups[order]]
    kept = torch.zeros(scores.shape, dtype=torch.bool)
    kept[order[place < n]] = True
    return kept & alive


def select_global(
    scores: Mapping[str, Tensor], alive: Mapping[str, Tensor], density: float
) -> dict[str, Tensor]:
    """Rank the blocks of several layers together.

    The best block of every layer stays whatever its rank. In total ``round(density * blocks)``
    blocks stay, or one per layer if that is more.

    Parameters
    ----------
    scores, alive : as for `select_in_layer`, by name of layer
    density : share of all blocks of all layers that stays
    """
    flat = {
        name: score.masked_fill(~alive[name], -torch.inf).flatten()
        for name, score in scores.items()
    }
    for name, score in flat.items():
        _check_alive(f"layer '{name}'", 1, int(alive[name].sum()), density)
        score[_top(score, 1)] = torch.inf
    joined = torch.cat(list(flat.values()))
    count = max(len(flat), kept_count(density, joined.numel()))
    _check_alive("the ranked layers", count, sum(int(a.sum()) for a in alive.values()), density)
    parts = _top(joined, count).split([score.numel() for score in flat.values()])
    return {name: part.reshape(scores[name].shape) for name, part in zip(flat, parts, strict=True)}


def _check_alive(where: str, count: int, alive: int, density: float) -> None:
    if count > alive:
        raise SecateurError(
            f"{where}: density {density:g} asks for {count} blocks, but only {alive} are left; "
            "pruned blocks do not come back, ask for a lower density"
        )

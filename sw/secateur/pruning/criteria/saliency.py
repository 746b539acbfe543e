"""Saliency of N:1 blocks from any criterion, as budgets take it."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.pruning.criteria.criteria import Criterion, Magnitude
from secateur.pruning.units.blocks import prunable_layers
from secateur.pruning.units.granularity import Block


def block_saliency(
    model: nn.Module,
    n: int,
    criterion: Criterion | None = None,
    skip: Iterable[str] = (),
) -> dict[str, Tensor]:
    """Saliency of every block, (channel groups, positions), by module name.

    Parameters
    ----------
    model : its prunable layers, but those in ``skip``, are evaluated
    n : output channels of a block
    criterion : see ``secateur.pruning.criteria.criteria``; squared L2 norm if None

    Raises
    ------
    SecateurError : an unknown layer in ``skip``, all layers are skipped, or a layer has no blocks
    """
    layers = prunable_layers(model)
    skipped = set(skip)
    for name in sorted(skipped - set(layers)):
        raise SecateurError(f"skip: no layer {name!r}; there are {', '.join(map(repr, layers))}")
    layers = {name: layer for name, layer in layers.items() if name not in skipped}
    if not layers:
        raise SecateurError("nothing to prune: every layer is skipped, or the model has none")
    blocks = Block(n)
    for name, layer in layers.items():
        blocks.check(name, layer)
    weights = (criterion or Magnitude(2))(model, layers)
    return {
        name: blocks.units(name, layer)
        .reduce(weights[name])
        .reshape(-(-len(weights[name]) // n), -1)
        for name, layer in layers.items()
    }

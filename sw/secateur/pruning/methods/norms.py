"""Batch norms behind layers that pruning has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secateur.pruning.criteria.columns import watched
from secateur.pruning.criteria.probe import NORMS, Inputs, called, evaluating, wide


def match_norms(model: nn.Module, dense: nn.Module, inputs: Sequence[Inputs]) -> None:
    """Give the outputs of each batch norm the means and deviations of the dense model.

    Pruning shrinks what a norm is given. Its stored mean and variance are changed to make up for
    it, norm by norm in the order of the model. They are not simply measured again: the stored ones
    of a network that was trained for a short time are not those of its data either.

    Parameters
    ----------
    model : pruned; its batch norms are changed in place
    dense : the same model before pruning; left as it is
    inputs : batches

    References
    ----------
    Norms after pruning: Li et al., "EagleEye: fast sub-net evaluation for efficient neural network
    pruning", ECCV 2020.
    """
    whole = _norms(dense)
    before = _moments(dense, whole, inputs)
    for name, norm in _norms(model).items():
        mean, spread = _moments(model, {name: norm}, inputs).get(name, (None, None))
        if mean is None or spread is None or name not in before:
            continue
        old = whole[name]
        scale = (wide(old.running_var) + old.eps).sqrt()
        wanted = (before[name][0] - wide(old.running_mean)) / scale
        shrunk = torch.where(before[name][1] > 0, spread / before[name][1], 1.0)
        scale = scale * shrunk
        norm.running_var.copy_((scale**2 - norm.eps).clamp(min=0))
        norm.running_mean.copy_(mean - wanted * scale)


def _norms(model: nn.Module) -> dict[str, Any]:
    """Those that store means and variances, by name."""
    found = {name: m for name, m in model.named_modules() if isinstance(m, NORMS)}
    return {n: m for n, m in found.items() if m.track_running_stats}


def _moments(
    model: nn.Module, norms: dict[str, Any], inputs: Sequence[Inputs]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and standard deviation, float64 (channels,), of what each norm is given."""
    sums: dict[str, Tensor] = {}

    def add(name: str, norm: nn.Module, x: Tensor, y: Tensor) -> None:
        values = wide(x).movedim(1, 0).flatten(1)
        count = torch.full((len(values),), float(values.shape[1]), dtype=torch.float64)
        found = torch.stack([count, values.sum(dim=1), (values**2).sum(dim=1)])
        sums[name] = sums[name] + found if name in sums else found

    with watched(norms, add), evaluating(model), torch.no_grad():
        for x in inputs:
            called(model, x)
    found = {}
    for name, (count, total, squares) in sums.items():
        mean = total / count
        found[name] = mean, (squares / count - mean**2).clamp(min=0).sqrt()
    return found

"""Processes that train one model together rank the same, and have the same masks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch import distributed as dist

from secateur.pruning.units.blocks import prunable_layers
from secateur.pruning.units.mask import mask_of, parameter_of


def _together() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def averaged(saliency: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The mean of each saliency over all processes; alone, what was given.

    Parameters
    ----------
    saliency : by name of layer
    model : its device is that of the process group
    """
    if not _together():
        return dict(saliency)
    device = next(model.parameters()).device
    found = {}
    for name, values in saliency.items():
        summed = values.to(device)
        dist.all_reduce(summed)
        found[name] = (summed / dist.get_world_size()).to(values.device)
    return found


def share_masks(model: nn.Module) -> None:
    """Give all processes the masks of the first."""
    if not _together():
        return
    for layer in prunable_layers(model).values():
        mask = mask_of(layer)
        if mask is not None:
            with torch.no_grad():
                held = mask.mask.to(parameter_of(layer).device)
                dist.broadcast(held, 0)
                mask.mask.copy_(held)

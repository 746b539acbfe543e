"""Masks on weights, as parametrisations: they train, export and save with the model.

The exported graph multiplies the weight by the mask buffer, so neither optimiser state nor weight
decay nor quantisation-aware training brings a pruned weight back.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from secateur.errors import SecateurError
from secateur.fx.computed import make_permanent


class BlockMask(nn.Module):
    """weight -> weight * mask.

    Members
    -------
    mask : buffer of ones and zeros, shape and type of the weight
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Assigning to the weight is allowed; the mask applies to what was assigned."""
        return weight


def mask_of(layer: nn.Module) -> BlockMask | None:
    """The mask on ``layer.weight``, or None."""
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    chain = layer.parametrizations["weight"]  # type: ignore[index]
    return next((entry for entry in chain if isinstance(entry, BlockMask)), None)


def parameter_of(layer: nn.Module) -> Tensor:
    """The trained parameter behind ``layer.weight``, with or without a mask on it."""
    if parametrize.is_parametrized(layer, "weight"):
        return cast(Tensor, layer.parametrizations["weight"].original)  # type: ignore
    return cast(Tensor, layer.weight)


def set_mask(layer: nn.Module, mask: Tensor) -> None:
    """Put ``mask`` on the layer's weight; an earlier mask is overwritten in place."""
    existing = mask_of(layer)
    if existing is None:
        parametrize.register_parametrization(layer, "weight", BlockMask(mask))
    else:
        with torch.no_grad():
            existing.mask.copy_(mask)


def make_maskable(name: str, layer: nn.Module) -> None:
    """Make the weight a parameter of the layer, with a warning where something computes it.

    A mask of ``torch.nn.utils.prune`` becomes one of ours, and holds.

    Raises
    ------
    SecateurError : a hook that is not PyTorch's computes the weight
    """
    theirs = getattr(layer, "weight_mask", None)
    ours = mask_of(layer)
    make_permanent(name, layer, but=BlockMask)
    if isinstance(theirs, Tensor) and not hasattr(layer, "weight_mask"):
        set_mask(layer, theirs.detach().clone())
    elif ours is not None:
        set_mask(layer, ours.mask)
    own = dict(layer.named_parameters(recurse=False))
    if "weight" not in own and mask_of(layer) is None:
        raise SecateurError(
            f"layer '{name}': the weight is not a parameter of the layer (a hook computes it); "
            "make it permanent before pruning, or name the layer in skip"
        )


def remove(model: nn.Module) -> None:
    """Bake all masks into the weights; the outputs of the model do not change.

    The parameters keep their identity, so an optimiser continues with them, but nothing keeps
    pruned weights at zero any longer. A model without masks is left as it is.
    """
    for layer in list(model.modules()):
        if mask_of(layer) is not None:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)

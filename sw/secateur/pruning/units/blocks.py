"""N:1 blocks: which weights form a block, and masks from the blocks that are kept.

An N:1 block is N consecutive output channels at one (input channel, ky, kx) position of a
convolution, or at one input of a dense layer: one word of the weight stream. In a depthwise
convolution it is N channels at one (ky, kx). With the output channels first and everything else
flattened behind them, the three are one and the same rule. The last block of a layer whose
channels are not a multiple of N is short.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from secateur.errors import SecateurError
from secateur.fx.wrapped import inner

#: Layers whose weight is (output channels, ...).
PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Linear)


def block_count(shape: tuple[int, ...], n: int) -> int:
    """Blocks in a weight of this shape, a short last one included."""
    positions = 1
    for size in shape[1:]:
        positions *= size
    return -(-shape[0] // n) * positions


def to_blocks(weight: Tensor, n: int) -> Tensor:
    """(output channels, ...) -> (channel groups, n, positions); a short last group gets zeros."""
    flat = weight.flatten(1)
    padded = F.pad(flat, (0, 0, 0, -flat.shape[0] % n))
    return padded.reshape(-1, n, flat.shape[1])


def to_mask(kept: Tensor, like: Tensor, n: int) -> Tensor:
    """A mask of ones and zeros.

    Parameters
    ----------
    kept : blocks to keep, bool (channel groups, positions)
    like : the weight, for shape, type and device
    n : output channels of a block
    """
    rows = kept.repeat_interleave(n, dim=0)[: like.shape[0]]
    return rows.reshape(like.shape).to(dtype=like.dtype, device=like.device)


def nonzero_blocks(weight: Tensor, n: int) -> Tensor:
    """Blocks with at least one weight that is not zero: bool (channel groups, positions)."""
    return to_blocks(weight.detach() != 0, n).any(dim=1)


def prunable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Layers of ``model`` with N:1 blocks, by name, in the order of ``named_modules``.

    Names are those of the model within its wrappers. Modules that are used twice appear once.
    """
    return {name: m for name, m in inner(model).named_modules() if isinstance(m, PRUNABLE)}


def weight_of(layer: nn.Module) -> Tensor:
    """The weight that the layer computes with, masks applied, without gradient."""
    return cast(Tensor, layer.weight).detach()


def check_layer(name: str, layer: nn.Module, *, grouped: bool = False) -> None:
    """Refuse a layer that has no N:1 blocks.

    Parameters
    ----------
    name : of the layer, for the message
    layer : with a weight
    grouped : whether grouped convolutions pass

    Raises
    ------
    SecateurError : grouped but not depthwise, not initialised, or weights that are not finite
    """
    weight = layer.weight
    if not isinstance(weight, Tensor) or is_lazy(weight):
        raise SecateurError(
            f"layer '{name}': the weight has no shape yet; run the model on one batch first"
        )
    if weight.is_meta:
        raise SecateurError(
            f"layer '{name}': the weight is on the meta device, it has no values; load them: "
            f"model.to_empty(device='cpu'), then model.load_state_dict(...)"
        )
    groups = getattr(layer, "groups", 1)
    if not grouped and groups != 1 and not (groups == layer.in_channels == layer.out_channels):
        raise SecateurError(
            f"layer '{name}': blocks exist for groups = 1 and for depthwise convolutions "
            f"(groups = channels), not for groups = {groups}; name the layer in skip"
        )
    if not weight.is_floating_point() or not bool(torch.isfinite(weight).all()):
        raise SecateurError(
            f"layer '{name}': weights must be finite floating-point numbers; "
            "repair the training or name the layer in skip"
        )

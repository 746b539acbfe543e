"""Criterion: how much a block matters."""

from __future__ import annotations

import torch
from torch import Tensor


def squared_l2(blocks: Tensor, channels: int) -> Tensor:
    """Squared L2 norm of every block; it ranks as the norm does.

    A short last block is scaled by n / (channels that it has): it is compared by its mean square.
    By its plain norm it would lose to all others, and with it, say, the last two of ten classes.

    Parameters
    ----------
    blocks : (channel groups, n, positions), see ``blocks.to_blocks``
    channels : output channels of the layer

    Returns
    -------
    float64 (channel groups, positions). The squares are added in channel order, so that every
    machine finds the same sums, and with them the same ranking.

    Magnitude as a criterion: Han et al., "Learning both weights and connections for efficient
    neural networks", NeurIPS 2015.
    """
    wide = blocks.detach().to(torch.float64)
    groups, n, _ = blocks.shape
    total = torch.zeros_like(wide[:, 0])
    for lane in wide.unbind(dim=1):
        total = total + lane * lane
    total[-1] *= n / (channels - n * (groups - 1))
    return total

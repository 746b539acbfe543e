"""A criterion that knows what the other weights of a layer can make up for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.pruning.criteria.columns import grams, inputs_of
from secateur.pruning.criteria.probe import Batch, Layers, check_batches, wide_weight

#: Share of the blocks of a row that leave before all others are judged again.
SHARE = 1 / 16
#: Added to the diagonal of X^T X, as a share of its mean: inputs that are few, or always equal.
DAMPING = 0.01


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """s = the share of the layer's squared outputs that is lost when the block leaves.

    Blocks leave one after another, the cheapest first. Behind each the weights of its filters that
    stay are those of the least squares, so the loss is what no other weight makes up for. Each
    weight of a block has the same part of it. Layers compare as they are: take
    ``normalize="none"`` for budgets.

    Parameters
    ----------
    batches : of inputs, or of (inputs, targets), of which the targets are not used
    n : output channels of a block

    References
    ----------
    Hassibi, Stork, "Second order derivatives for network pruning: optimal brain surgeon", NeurIPS
    1992. Layer by layer: Frantar, Singh, Alistarh, "Optimal brain compression", NeurIPS 2022, with
    the N weights of a block for one weight.
    """

    batches: Sequence[Tensor | Batch]
    n: int = 8

    def __call__(self, model: nn.Module, layers: Layers) -> dict[str, Tensor]:
        check_batches("Reconstruction", self.batches)
        found = grams(model, layers, inputs_of(self.batches))
        result = {}
        for name, layer in layers.items():
            weight = wide_weight(layer)
            if len(found[name]) not in (1, len(weight)):
                raise SecateurError(
                    f"layer '{name}': blocks exist for groups = 1 and for depthwise convolutions; "
                    f"name the layer in skip"
                )
            lost = _losses(weight.flatten(1), found[name], self.n)
            parts = (lost / self.n).repeat_interleave(self.n, dim=0)[: len(weight)]
            result[name] = parts.reshape(weight.shape)
        return result


def _losses(weight: Tensor, gram: Tensor, n: int) -> Tensor:
    """Loss of every block, (channel groups, positions), as a share of the layer's energy.

    Parameters
    ----------
    weight : float64 (output channels, positions)
    gram : X^T X, (1 or output channels, positions, positions)
    n : output channels of a block
    """
    energy = float((weight[:, None] @ gram @ weight[:, :, None]).sum())
    found = []
    for first in range(0, len(weight), n):
        filters = slice(first, first + n)
        own = gram if len(gram) == 1 else gram[filters]
        found.append(_order(weight[filters], own))
    return torch.stack(found) / (energy or 1.0)


def _order(weight: Tensor, gram: Tensor) -> Tensor:
    """Squared output lost by each position of a few filters, in the order in which they leave.

    Parameters
    ----------
    weight : (filters, positions)
    gram : (1 or filters, positions, positions)
    """
    positions = weight.shape[1]
    damping = DAMPING * gram.diagonal(dim1=1, dim2=2).mean(dim=1) + torch.finfo(gram.dtype).tiny
    damped = gram + damping[:, None, None] * torch.eye(positions, dtype=gram.dtype)
    wanted = damped @ weight[:, :, None]
    left = torch.arange(positions)
    lost = torch.zeros(positions, dtype=weight.dtype)
    floor = 0.0
    while len(left):
        inverse = torch.linalg.inv(damped[:, left][:, :, left])
        best = (inverse @ wanted[:, left])[:, :, 0]  # weights of the least squares
        each = (best**2 / inverse.diagonal(dim1=1, dim2=2)).sum(dim=0)
        leaving = torch.argsort(each, stable=True)[: max(1, int(len(left) * SHARE))]
        # A later one never costs less: what stays is ranked above what left.
        costs = each[leaving].clamp(min=floor)
        lost[left[leaving]] = costs
        floor = float(costs.max())
        left = left[torch.isin(torch.arange(len(left)), leaving, invert=True)]
    return lost

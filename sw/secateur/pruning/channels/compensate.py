"""Constants for removed channels: their means move into the biases of their readers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.pruning.channels.coupling import ChannelSet
from secateur.pruning.criteria.probe import Inputs, called, evaluating, wide
from secateur.pruning.units.blocks import prunable_layers


@torch.no_grad()
def move_means(
    model: nn.Module,
    sets: list[ChannelSet],
    doomed: list[list[int]],
    inputs: Sequence[Inputs],
) -> None:
    """Add what the mean of each doomed channel contributes to the bias of the layers that read it.

    bias += sum over taps of weight[:, doomed] * mean. This is exact where a channel is constant and
    its reader has no padding.

    Parameters
    ----------
    model : changed in place
    sets : of channels
    doomed : of each set the channels that will be removed
    inputs : the means are taken over these

    Raises
    ------
    SecateurError : not a list of inputs, or inputs that give values which are not finite

    References
    ----------
    Ye et al., "Rethinking the smaller-norm-less-informative assumption in channel pruning of
    convolution layers", ICLR 2018, for channels that are constant.
    """
    if isinstance(inputs, Tensor) or len(inputs) == 0:
        raise SecateurError("compensate must be a list of batches of inputs, at least one")
    means = _input_means(model, inputs)
    if not all(bool(torch.isfinite(mean).all()) for mean in means.values()):
        raise SecateurError("compensate: on these inputs, values are infinite or NaN")
    for each, channels in zip(sets, doomed, strict=True):
        gone = set(channels)
        for item in each.group:
            layer = item.dep.target.module
            reads = item.dep.handler.__name__ == "prune_in_channels"
            if not reads or layer not in means or getattr(layer, "groups", 1) != 1:
                continue
            pairs = zip(item.root_idxs, item.idxs, strict=True)
            lost = sorted(i for root, i in pairs if root in gone)
            weight = layer.weight.flatten(2).sum(dim=2) if layer.weight.dim() > 2 else layer.weight
            shift = weight[:, lost] @ means[layer][lost].to(weight.dtype)
            if not bool(shift.any()):
                continue
            if layer.bias is None:
                layer.bias = nn.Parameter(shift)
            else:
                layer.bias += shift


def _input_means(model: nn.Module, inputs: Sequence[Inputs]) -> dict[nn.Module, Tensor]:
    """Mean of every input channel of every layer over samples and positions, float64."""
    total: dict[nn.Module, Tensor] = {}
    count: dict[nn.Module, int] = {}

    def hook(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = wide(args[0])
        x = x.flatten(2) if not isinstance(layer, nn.Linear) else x.reshape(-1, x.shape[-1], 1)
        total[layer] = total.get(layer, torch.zeros((), dtype=torch.float64)) + x.sum(dim=(0, 2))
        count[layer] = count.get(layer, 0) + x.shape[0] * x.shape[2]

    handles = [m.register_forward_pre_hook(hook) for m in prunable_layers(model).values()]
    try:
        with evaluating(model), torch.no_grad():
            for x in inputs:
                called(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return {layer: value / count[layer] for layer, value in total.items()}

"""Granularity: which weights are kept or pruned together. One interface for all units.

A granularity numbers the units of a layer and says for every weight which unit it is in; scores,
masks and regularisers work on these numbers and know no shapes. Weights are (output channels,
input channels of a group, *kernel); depthwise convolutions have one input channel per group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.pruning.units.blocks import block_count, check_layer, weight_of


@dataclass(frozen=True, eq=False)
class Units:
    """Units of one layer.

    Attributes
    ----------
    index : int64, shape of the weight, the unit of every weight
    count : units
    size : weights of a full unit; a last block may be shorter
    """

    index: Tensor
    count: int
    size: int

    def reduce(self, saliency: Tensor) -> Tensor:
        """Saliency of weights -> of units: float64 (count,), sums in the order of the weights.

        A short unit is scaled up to ``size`` weights: it is compared by its mean. By its plain sum
        it would always rank last: in a last layer, the last two of ten classes would go first.
        """
        index = self.index.flatten().numpy()
        wide = saliency.detach().to("cpu", torch.float64).flatten().numpy()
        sizes = np.bincount(index, minlength=self.count)
        total = np.bincount(index, weights=wide, minlength=self.count)
        return torch.from_numpy(total * (self.size / np.maximum(sizes, 1)))

    def any(self, present: Tensor) -> Tensor:
        """Units with at least one weight that is present (not zero): bool (count,)."""
        index = self.index[present.detach().cpu() != 0].numpy()
        return torch.from_numpy(np.bincount(index, minlength=self.count) > 0)

    def mask(self, kept: Tensor, like: Tensor) -> Tensor:
        """Units to keep, bool (count,) -> ones and zeros of the weight ``like``."""
        return kept[self.index].to(dtype=like.dtype, device=like.device)


class Granularity(Protocol):
    """What a granularity is."""

    @property
    def noun(self) -> str:
        """Name of the units in reports, plural."""

    def check(self, name: str, layer: nn.Module) -> None:
        """Refuse a layer without such units, by a SecateurError that names it."""

    def units(self, name: str, layer: nn.Module) -> Units:
        """Units of the layer of that name."""


class _Any:
    """Granularities that exist in every convolution and dense layer."""

    def check(self, name: str, layer: nn.Module) -> None:
        """Refuse weights that are not initialised or not finite."""
        check_layer(name, layer, grouped=True)


def _axes(layer: nn.Module) -> tuple[Tensor, int, int, int]:
    """Weight, output channels, input channels of a group, positions of the kernel."""
    weight = weight_of(layer)
    outputs, inputs = weight.shape[:2]
    return weight, outputs, inputs, math.prod(weight.shape[2:])


@dataclass(frozen=True)
class Block:
    """N:1 blocks: ``n`` output channels at one position, one word of the weight stream.

    Parameters
    ----------
    n : output channels of a block
    orders : of output channels, by name of layer: blocks are ``n`` neighbours in that order. The
        compiler reorders channels, see `secateur.pruning.permute`
    """

    n: int = 8
    orders: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    noun = "blocks"

    def check(self, name: str, layer: nn.Module) -> None:
        """Refuse grouped but not depthwise layers, and orders that are not permutations."""
        check_layer(name, layer)
        channels = len(weight_of(layer))
        if name in self.orders and sorted(self.orders[name]) != list(range(channels)):
            raise SecateurError(
                f"layer '{name}': the order must be a permutation of its {channels} output channels"
            )

    def units(self, name: str, layer: nn.Module) -> Units:
        """Units are numbered by group of channels, then by position."""
        weight, outputs, inputs, kernel = _axes(layer)
        rank = torch.arange(outputs)
        if name in self.orders:
            rank = torch.argsort(torch.tensor(self.orders[name]))
        positions = torch.arange(inputs * kernel)
        index = (rank // self.n)[:, None] * (inputs * kernel) + positions
        count = block_count(tuple(weight.shape), self.n)
        return Units(index.reshape(weight.shape), count, self.n)


@dataclass(frozen=True)
class Element(_Any):
    """Single weights (unstructured). The array gains nothing until whole blocks are zero."""

    noun = "weights"

    def units(self, name: str, layer: nn.Module) -> Units:
        """Units are numbered as the weights are."""
        weight = weight_of(layer)
        return Units(torch.arange(weight.numel()).reshape(weight.shape), weight.numel(), 1)


@dataclass(frozen=True)
class NOfM(_Any):
    """N:M: of every ``m`` neighbouring input channels at one output and tap, ``n`` weights stay.

    A short last group of r < m inputs keeps min(n, r). The density follows from n and m.

    Parameters
    ----------
    n, m : 1 <= n <= m

    References
    ----------
    Mishra et al., "Accelerating sparse deep neural networks", arXiv:2104.08378, 2021.
    """

    n: int = 2
    m: int = 4
    noun = "weights"

    def __post_init__(self) -> None:
        if not 1 <= self.n <= self.m:
            raise SecateurError(f"N:M needs 1 <= N <= M, not {self.n}:{self.m}")

    def units(self, name: str, layer: nn.Module) -> Units:
        """Units are single weights; `groups` ties them together."""
        return Element().units(name, layer)

    def groups(self, layer: nn.Module) -> Tensor:
        """int64 (weights,): the group of m inputs that each weight is in."""
        _, outputs, inputs, kernel = _axes(layer)
        per_row = -(-inputs // self.m)
        group = torch.arange(outputs)[:, None, None] * per_row
        group = (group + (torch.arange(inputs) // self.m)[None, :, None]) * kernel
        return (group + torch.arange(kernel)).expand(outputs, inputs, kernel).flatten()


@dataclass(frozen=True)
class Kernel(_Any):
    """Kernels: the 2-D slice from one input channel to one output channel."""

    noun = "kernels"

    def units(self, name: str, layer: nn.Module) -> Units:
        """Units are numbered by output channel, then by input channel."""
        weight, outputs, inputs, kernel = _axes(layer)
        index = torch.arange(outputs * inputs)[:, None].expand(-1, kernel)
        return Units(index.reshape(weight.shape), outputs * inputs, kernel)


@dataclass(frozen=True)
class InputChannel(_Any):
    """Input channels: all weights that read one channel."""

    noun = "input channels"

    def units(self, name: str, layer: nn.Module) -> Units:
        """Units are numbered as the input channels of the whole layer, over all groups."""
        weight, outputs, inputs, kernel = _axes(layer)
        groups = int(getattr(layer, "groups", 1))
        first = torch.arange(outputs) // (outputs // groups) * inputs
        index = (first[:, None] + torch.arange(inputs))[:, :, None].expand(-1, -1, kernel)
        size = outputs // groups * kernel
        return Units(index.reshape(weight.shape), inputs * groups, size)


@dataclass(frozen=True)
class Filter(_Any):
    """Filters: all weights of one output channel; the bias stays.

    `remove_channels` removes the channel from the network.

    References
    ----------
    Li et al., "Pruning filters for efficient ConvNets", ICLR 2017.
    """

    noun = "filters"

    def units(self, name: str, layer: nn.Module) -> Units:
        """Units are numbered as the output channels."""
        weight, outputs, inputs, kernel = _axes(layer)
        index = torch.arange(outputs)[:, None].expand(-1, inputs * kernel)
        return Units(index.reshape(weight.shape), outputs, inputs * kernel)


_BY_NAME: dict[str, Callable[[], Granularity]] = {
    "element": Element,
    "kernel": Kernel,
    "input": InputChannel,
    "filter": Filter,
}


def granularity_of(text: str, n: int = 8) -> Granularity:
    """Granularity by name.

    Parameters
    ----------
    text : "block", "element", "kernel", "input", "filter", or N:M as in "2:4"
    n : output channels of a block

    Raises
    ------
    SecateurError : none of these
    """
    if text == "block":
        return Block(n)
    if text in _BY_NAME:
        return _BY_NAME[text]()
    kept, colon, of = text.partition(":")
    if colon and kept.isdecimal() and of.isdecimal():
        return NOfM(int(kept), int(of))
    names = ", ".join(["'block'", *map(repr, _BY_NAME), "'N:M' as in '2:4'"])
    raise SecateurError(f"granularity must be one of {names}, not {text!r}")

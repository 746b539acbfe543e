"""Criteria: how much a weight matters. One interface; `criterion_of` has them by name.

A criterion maps a model and its layers to the saliency s of every weight w, float64 in the shape of
the weight, never negative. The granularity adds up saliencies to units, in one fixed order, so
that every machine that finds the same saliencies finds the same ranking. The weights are those that
the layer computes with: masked ones have saliency 0.

Criteria with data run the model in evaluation mode and leave its modes, buffers and ``.grad`` as
they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.pruning.criteria.loss_criteria import Fisher, Gradient, Hessian, Taylor
from secateur.pruning.criteria.probe import (
    Batch,
    Inputs,
    Layers,
    Loss,
    check_batches,
    input_squares,
    norms_behind,
    wide,
    wide_weight,
)
from secateur.pruning.criteria.removal import Reconstruction
from secateur.pruning.units.blocks import weight_of


class Criterion(Protocol):
    """What a criterion is."""

    def __call__(self, model: nn.Module, layers: Layers) -> dict[str, Tensor]:
        """Saliency by name of layer.

        Parameters
        ----------
        model : float, left as it is
        layers : of the model, by name, to rank

        Returns
        -------
        dict : float64 tensors in the shape of each layer's weight
        """


@dataclass(frozen=True)
class Magnitude:
    """s = |w|^p. With p = 2 units are ranked as by their L2 norm.

    Parameters
    ----------
    p : 1 or 2

    References
    ----------
    Han et al., "Learning both weights and connections for efficient neural networks", NeurIPS
    2015; for filters with p = 1, Li et al., "Pruning filters for efficient ConvNets", ICLR 2017.
    """

    p: int = 2

    def __post_init__(self) -> None:
        if self.p not in (1, 2):
            raise SecateurError(f"magnitude: p must be 1 or 2, not {self.p!r}")

    def __call__(self, model: nn.Module, layers: Layers) -> dict[str, Tensor]:
        return {name: wide_weight(layer).abs() ** self.p for name, layer in layers.items()}


@dataclass(frozen=True)
class Random:
    """s uniform in [0, 1): the baseline.

    Parameters
    ----------
    seed : of the generator

    References
    ----------
    Gale, Elsen, Hooker, "The state of sparsity in deep neural networks", arXiv:1902.09574, 2019.
    """

    seed: int = 0

    def __call__(self, model: nn.Module, layers: Layers) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        return {
            name: torch.rand(weight_of(layer).shape, generator=generator, dtype=torch.float64)
            for name, layer in layers.items()
        }


@dataclass(frozen=True, eq=False)
class BatchNormScale:
    """s = |g| / count: g the scale of the batch norm behind the layer, count a filter's weights.

    The saliency of a filter is then |g|. It tells filters apart, not weights of one filter; use it
    with filters.

    Parameters
    ----------
    example : inputs of the model, to find the norm that reads each layer's output

    References
    ----------
    Liu et al., "Learning efficient convolutional networks through network slimming", ICCV 2017.
    """

    example: Inputs

    def __call__(self, model: nn.Module, layers: Layers) -> dict[str, Tensor]:
        norms = norms_behind(model, layers, self.example)
        result = {}
        for name, layer in layers.items():
            scale = norms[name].weight
            if not isinstance(scale, Tensor):
                raise SecateurError(
                    f"layer '{name}': its batch norm has no scale (affine=False); "
                    "choose another criterion or name the layer in skip"
                )
            weight = wide_weight(layer)
            share = wide(scale).abs() / weight[0].numel()
            result[name] = share.reshape(-1, *[1] * (weight.dim() - 1)).expand_as(weight).clone()
        return result


@dataclass(frozen=True, eq=False)
class Activation:
    """s = |w| * ||x||, x all values that the weight is multiplied by in the given inputs.

    In convolutions x is the column that im2col makes for the tap, padding included.

    Parameters
    ----------
    batches : of inputs, or of (inputs, targets), of which the targets are not used

    References
    ----------
    Wanda: Sun et al., "A simple and effective pruning approach for large language models", ICLR
    2024.
    """

    batches: Sequence[Tensor | Batch]

    def __call__(self, model: nn.Module, layers: Layers) -> dict[str, Tensor]:
        check_batches("Activation", self.batches)
        inputs = [batch if isinstance(batch, Tensor) else batch[0] for batch in self.batches]
        squares = input_squares(model, layers, inputs)
        return {
            name: wide_weight(layer).abs() * squares[name].sqrt() for name, layer in layers.items()
        }


#: Names of criteria; all from "gradient" on need data.
CRITERIA = (
    "l1", "l2", "random", "gradient", "taylor", "fisher", "hessian", "batchnorm", "activation",
    "reconstruction",
)  # fmt: skip


def criterion_of(
    name: str,
    *,
    batches: Sequence[Batch] | None = None,
    loss: Loss | None = None,
    seed: int = 0,
    n: int = 8,
) -> Criterion:
    """Criterion by its name in `CRITERIA`.

    Parameters
    ----------
    name : such as "l2" or "taylor"
    batches : of (inputs, targets), for the last seven; "batchnorm" traces the first
    loss : (outputs, targets) -> scalar; cross-entropy if None
    seed : of "random" and "hessian"
    n : output channels of a block, for "reconstruction"

    Raises
    ------
    SecateurError : an unknown name, or one that needs batches, without any
    """
    if name not in CRITERIA:
        raise SecateurError(f"criterion {name!r} is unknown; choose one of {', '.join(CRITERIA)}")
    free: dict[str, Criterion] = {"l1": Magnitude(1), "l2": Magnitude(2), "random": Random(seed)}
    if name in free:
        return free[name]
    if batches is None:
        raise SecateurError(
            f"criterion {name!r} needs data: take "
            f"secateur.pruning.criterion_of({name!r}, batches=[(inputs, targets), ...])"
        )
    check_batches(name, batches)
    of = nn.functional.cross_entropy if loss is None else loss
    driven: dict[str, Criterion] = {
        "gradient": Gradient(batches, of),
        "taylor": Taylor(batches, of),
        "fisher": Fisher(batches, of),
        "hessian": Hessian(batches, of, seed=seed),
        "batchnorm": BatchNormScale(batches[0][0]),
        "activation": Activation(batches),
        "reconstruction": Reconstruction(batches, n),
    }
    return driven[name]

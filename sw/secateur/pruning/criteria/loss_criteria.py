"""Criteria from the loss: gradient, Taylor, Fisher and Hessian. See `criteria`.

w is a weight, g the gradient of the loss of a batch with respect to w.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from secateur.errors import SecateurError
from secateur.pruning.criteria.probe import (
    Batch,
    Layers,
    Loss,
    check_batches,
    evaluating,
    gradients,
    loss_of,
    parameters,
    wide,
    wide_weight,
)


@dataclass(frozen=True, eq=False)
class Gradient:
    """s = |g|, the mean over batches.

    Parameters
    ----------
    batches : of (inputs, targets); read once for every ranking
    loss : (outputs, targets) -> scalar, the mean over the batch

    References
    ----------
    Mozer and Smolensky, "Skeletonization", NIPS 1988, rank units by derivatives of the loss.
    """

    batches: Sequence[Batch]
    loss: Loss

    def __call__(self, model: nn.Module, layers: Layers) -> dict[str, Tensor]:
        return _mean(self.batches, self.loss, model, layers, lambda g, w: g.abs())


@dataclass(frozen=True, eq=False)
class Taylor:
    """s = |g * w|, the mean over batches: the change of the loss, to first order, if w is removed.

    Parameters
    ----------
    batches, loss : as for `Gradient`

    References
    ----------
    Molchanov et al., "Pruning convolutional neural networks for resource efficient inference",
    ICLR 2017; on weights, "Importance estimation for neural network pruning", CVPR 2019, there
    squared; on one batch, SNIP: Lee et al., "SNIP: single-shot network pruning based on connection
    sensitivity", ICLR 2019.
    """

    batches: Sequence[Batch]
    loss: Loss

    def __call__(self, model: nn.Module, layers: Layers) -> dict[str, Tensor]:
        return _mean(self.batches, self.loss, model, layers, lambda g, w: (g * w).abs())


@dataclass(frozen=True, eq=False)
class Fisher:
    """s = F * w^2 / 2, F the mean over samples of g^2: the diagonal of the empirical Fisher matrix.

    It takes one backward pass per sample.

    Parameters
    ----------
    batches, loss : as for `Gradient`

    References
    ----------
    LeCun, Denker, Solla, "Optimal brain damage", NIPS 1989, with the Fisher information in place of
    the Hessian: Theis et al., "Faster gaze prediction with dense networks and Fisher pruning",
    arXiv:1801.05787, 2018.
    """

    batches: Sequence[Batch]
    loss: Loss

    def __call__(self, model: nn.Module, layers: Layers) -> dict[str, Tensor]:
        check_batches("Fisher", self.batches)
        samples = [sample for batch in self.batches for sample in _samples(batch)]
        return _mean(samples, self.loss, model, layers, lambda g, w: g * g * w * w / 2)


@dataclass(frozen=True, eq=False)
class Hessian:
    """s = |H * w^2| / 2, H the diagonal of the Hessian of the loss, by Hutchinson's estimator.

    H = mean of z * (Hessian z) over random vectors z of +-1, and over batches. Negative curvature
    counts by its size. It takes one backward pass per batch and one per probe.

    Parameters
    ----------
    batches, loss : as for `Gradient`
    probes : vectors z per batch
    seed : of the probes

    References
    ----------
    LeCun, Denker, Solla, "Optimal brain damage", NIPS 1989. Estimator: Bekas, Kokiopoulou, Saad,
    "An estimator for the diagonal of a matrix", Applied Numerical Mathematics 57, 2007.
    """

    batches: Sequence[Batch]
    loss: Loss
    probes: int = 8
    seed: int = 0

    def __call__(self, model: nn.Module, layers: Layers) -> dict[str, Tensor]:
        check_batches("Hessian", self.batches)
        if self.probes < 1:
            raise SecateurError(f"Hessian: probes must be at least 1, not {self.probes}")
        trained = parameters(layers)
        generator = torch.Generator().manual_seed(self.seed)
        total = {name: torch.zeros_like(wide_weight(layer)) for name, layer in layers.items()}
        count = self.probes * len(self.batches)
        with evaluating(model):
            for batch in self.batches:
                first = gradients(loss_of(self.loss, model, batch), trained, create_graph=True)
                for _ in range(self.probes):
                    z = [_signs(p, generator) for p in trained.values()]
                    product = sum(((g * s).sum() for g, s in zip(first, z, strict=True)))
                    if not isinstance(product, Tensor) or not product.requires_grad:
                        continue  # a loss that is linear in all weights has no curvature
                    second = gradients(product, trained, retain_graph=True)
                    for name, h, s in zip(total, second, z, strict=True):
                        total[name] += wide(h * s) / count
        return {
            name: (total[name] * wide_weight(layer) ** 2).abs() / 2
            for name, layer in layers.items()
        }


def _samples(batch: Batch) -> list[Batch]:
    """A batch, sample by sample; one of a single sample may have any targets."""
    count = len(tree_leaves(batch)[0])
    if count == 1:
        return [batch]
    return [tree_map(lambda part, at=at: part[at : at + 1], batch) for at in range(count)]


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(0, 2, like.shape, generator=generator)
    return (drawn * 2 - 1).to(dtype=like.dtype, device=like.device)


def _mean(
    batches: Sequence[Batch],
    loss: Loss,
    model: nn.Module,
    layers: Layers,
    score: Callable[[Tensor, Tensor], Tensor],
) -> dict[str, Tensor]:
    """Mean over batches of ``score(gradient, weight)``, in float64."""
    check_batches("criterion", batches)
    trained = parameters(layers)
    total = {name: torch.zeros_like(wide_weight(layer)) for name, layer in layers.items()}
    with evaluating(model):
        for batch in batches:
            found = gradients(loss_of(loss, model, batch), trained)
            for name, g in zip(total, found, strict=True):
                total[name] += score(wide(g), wide_weight(layers[name]))
    return {name: value / len(batches) for name, value in total.items()}

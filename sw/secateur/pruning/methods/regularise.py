"""Sparse training by proximal steps, and distillation from the dense model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.pruning.criteria.probe import evaluating
from secateur.pruning.methods.plan import make_plan
from secateur.pruning.units.granularity import Block, Granularity, NOfM
from secateur.pruning.units.mask import parameter_of

#: (outputs, targets) -> scalar, the mean over the batch.
Loss = Callable[[Any, Any], Tensor]


class GroupLasso:
    """strength * sum over units of sqrt(size) * ||unit||, minimised by proximal steps.

    With `Element` units it is the lasso, L1. Call `step` after every step of the optimiser; units
    become exactly zero, not just small. `secateur.prune` with a small threshold, or a density, then
    makes masks.

    Parameters
    ----------
    model : its weights are changed in place
    strength : lambda, in units of the loss
    n, granularity, skip : as for `secateur.prune`; by default N:1 blocks

    Raises
    ------
    SecateurError : as `secateur.prune`; a strength that is not a number above 0; N:M

    References
    ----------
    Group lasso: Yuan and Lin, "Model selection and estimation in regression with grouped
    variables", Journal of the Royal Statistical Society B 68, 2006. Proximal gradient: Parikh and
    Boyd, "Proximal algorithms", Foundations and Trends in Optimization 1, 2014, sections 4.2
    and 6.5.
    """

    def __init__(
        self,
        model: nn.Module,
        strength: float,
        *,
        n: int = 8,
        granularity: Granularity | None = None,
        skip: Iterable[str] = (),
    ) -> None:
        number = isinstance(strength, int | float) and not isinstance(strength, bool)
        if not number or not strength > 0:
            raise SecateurError(f"strength must be a number above 0, not {strength!r}")
        if isinstance(granularity, NOfM):
            raise SecateurError("N:M has no groups that vanish; use Element, Block or Filter")
        chosen = Block(n) if granularity is None else granularity
        plan = make_plan(
            model,
            density=1.0,
            n=n,
            scope="layer",
            skip=skip,
            overrides=None,
            granularity=chosen,
        )
        self.strength = float(strength)
        self._layers = plan.layers
        self._index: dict[str, Tensor] = {}
        self._weight: dict[str, Tensor] = {}
        for name, layer in plan.layers.items():
            units = chosen.units(name, layer)
            index = units.index.flatten()
            self._index[name] = index
            self._weight[name] = torch.bincount(index, minlength=units.count).double().sqrt()

    def _norms(self, name: str, weight: Tensor) -> Tensor:
        squares = weight.detach().cpu().double().flatten() ** 2
        count = len(self._weight[name])
        return torch.bincount(self._index[name], weights=squares, minlength=count).sqrt()

    def penalty(self) -> float:
        """The regulariser's value, to add to a reported loss."""
        total = 0.0
        for name, layer in self._layers.items():
            norms = self._norms(name, parameter_of(layer))
            total += float((self._weight[name] * norms).sum())
        return self.strength * total

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Shrink the norm of every unit by rate * strength * sqrt(size), at most to zero.

        Parameters
        ----------
        rate : learning rate of the optimiser's step before it
        """
        for name, layer in self._layers.items():
            weight = parameter_of(layer)
            norms = self._norms(name, weight)
            shrink = rate * self.strength * self._weight[name]
            factor = torch.where(norms > shrink, 1 - shrink / norms, 0.0)
            weight *= factor[self._index[name]].reshape(weight.shape).to(weight)


def distillation_loss(
    outputs: Tensor,
    teacher: Tensor,
    targets: Tensor,
    *,
    temperature: float = 4.0,
    share: float = 0.9,
    loss: Loss = F.cross_entropy,
) -> Tensor:
    """share * T^2 * KL(teacher || outputs), both softened by T, + (1 - share) * loss.

    Parameters
    ----------
    outputs, teacher : logits (batch, classes) of the pruned and of the dense model
    targets : (batch,) classes
    temperature : T, above 0
    share : 0 to 1
    loss : (outputs, targets) -> scalar; not called at share 1

    Raises
    ------
    SecateurError : a parameter out of range, or logits of different shapes

    References
    ----------
    Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531, 2015.
    """
    if not temperature > 0 or not 0 <= share <= 1:
        raise SecateurError(
            f"distillation needs temperature > 0 and 0 <= share <= 1, not {temperature} and {share}"
        )
    if outputs.shape != teacher.shape:
        raise SecateurError(
            f"logits of the model, {tuple(outputs.shape)}, and of its teacher, "
            f"{tuple(teacher.shape)}, must have one shape"
        )
    soft = softened(outputs, teacher, temperature)
    asked = share * temperature**2 * soft
    return asked if share == 1 else asked + (1 - share) * loss(outputs, targets)


def softened(outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || outputs), both softened: the mean over samples, and over pixels of maps.

    Parameters
    ----------
    outputs, teacher : logits (batch, classes, ...) of the pruned and of the dense model
    temperature : divides both
    """
    found, wanted = (
        F.log_softmax(x / temperature, dim=1).movedim(1, -1).flatten(0, -2)
        for x in (outputs, teacher)
    )
    return F.kl_div(found, wanted, reduction="batchmean", log_target=True)


def distil(
    teacher: nn.Module,
    *,
    temperature: float = 4.0,
    share: float = 0.9,
    loss: Loss = F.cross_entropy,
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A loss (inputs, outputs, targets) -> scalar: `distillation_loss` with a teacher.

    The loss has the precision of ``outputs``.

    Parameters
    ----------
    teacher : the dense model, a copy of its own; it runs in evaluation mode and without gradient
    temperature, share, loss : as for `distillation_loss`
    """

    def distilled(inputs: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        with evaluating(teacher), torch.no_grad():
            logits = teacher(inputs).to(outputs.dtype)
        return distillation_loss(
            outputs, logits, targets, temperature=temperature, share=share, loss=loss
        )

    return distilled

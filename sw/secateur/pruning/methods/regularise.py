"""Sparse training by proximal steps, and distillation from the dense model."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.pruning.criteria.probe import Loss, evaluating
from secateur.pruning.methods.plan import make_plan
from secateur.pruning.units.granularity import Block, Granularity, NOfM
from secateur.pruning.units.mask import parameter_of


class GroupLasso:
    """strength * sum over units of sqrt(size) * ||unit||, minimised by proximal steps.

    With `Element` units it is the lasso, L1. Call `step` after every step of the optimiser; units
    become exactly zero, not just small, and `secateur.prune` with a small threshold, or a density,
    makes masks of it.

    Parameters
    ----------
    strength : lambda, in units of the loss
    n, granularity, skip : as `secateur.prune`; by default N:1 blocks

    Group lasso: Yuan and Lin, Journal of the Royal Statistical Society B 68, 2006. Proximal
    gradient: Parikh and Boyd, "Proximal algorithms", Foundations and Trends in Optimization 1,
    2014, sections 4.2 and 6.5.

    Raises
    ------
    SecateurError : as `secateur.prune`; a strength that is no number above 0; N:M
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
        """Shrink every unit by rate * strength * sqrt(size) of norm, to zero where that is more.

        ``rate``: the learning rate of the optimiser's step before it.
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
    temperature, share : T above 0; share in 0 .. 1
    loss : (outputs, targets) -> scalar, for what is left of the share; not called if nothing is

    Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531, 2015.

    Raises
    ------
    SecateurError : a parameter out of range, or logits of different shapes
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
    soft = F.kl_div(
        F.log_softmax(outputs / temperature, dim=1),
        F.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    asked = share * temperature**2 * soft
    return asked if share == 1 else asked + (1 - share) * loss(outputs, targets)


def distil(
    teacher: nn.Module,
    *,
    temperature: float = 4.0,
    share: float = 0.9,
    loss: Loss = F.cross_entropy,
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A loss (inputs, outputs, targets) -> scalar that asks ``teacher``, the dense model.

    The teacher runs in evaluation mode and without gradient; give it a copy of its own. The loss
    has the precision of ``outputs``.
    """

    def distilled(inputs: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        with evaluating(teacher), torch.no_grad():
            logits = teacher(inputs).to(outputs.dtype)
        return distillation_loss(
            outputs, logits, targets, temperature=temperature, share=share, loss=loss
        )

    return distilled

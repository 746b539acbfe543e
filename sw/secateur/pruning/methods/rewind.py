"""Iterative pruning with rewinding: prune a little, go back to early weights, train again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.pruning.criteria.criteria import Criterion
from secateur.pruning.methods.gradual import check_gradual
from secateur.pruning.methods.one_shot import apply
from secateur.pruning.methods.plan import Scope, make_plan
from secateur.pruning.units.granularity import Granularity
from secateur.pruning.units.mask import mask_of
from secateur.pruning.units.report import PruneReport


def geometric_density(round_: int, rounds: int, end: float) -> float:
    """Density after some rounds: every round keeps the same share of the one before.

    d = end^(round / rounds)

    Parameters
    ----------
    round_ : rounds done
    rounds : rounds in all
    end : density after the last

    References
    ----------
    Frankle and Carbin, "The lottery ticket hypothesis", ICLR 2019: iterative pruning.
    """
    return float(end ** (round_ / rounds))


def unmasked_state(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers but the masks, by the names that they have without masks."""
    masks = [mask_of(layer) for layer in model.modules()]
    left_out = {id(mask.mask) for mask in masks if mask is not None}
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    return {
        name.replace("parametrizations.weight.original", "weight"): value
        for name, value in named.items()
        if id(value) not in left_out
    }


def rewind(model: nn.Module, early: Mapping[str, Tensor]) -> None:
    """Restore an `unmasked_state` of a model, or of the same without masks; the masks stay."""
    with torch.no_grad():
        for name, value in unmasked_state(model).items():
            value.copy_(early[name])


class IterativePruner:
    """Prunes in ``rounds`` calls of `step`; between them the user trains to the end.

    Iterative magnitude pruning with rewinding to weights of early in training. The constructor
    stores those weights; train to the end; then, ``rounds`` times, `step` and train to the end.
    Rewinding restores all parameters and buffers except masks, the statistics of batch norms
    among them. An optimiser keeps its momenta: make a new one after each `step`.

    Parameters
    ----------
    model : early in its training
    density, n, scope, skip, overrides, criterion, granularity : as for `secateur.prune`; densities
        after the last round
    rounds : pruning rounds, with the densities of `geometric_density`
    rewind : False: weights stay, and only the learning rate starts over

    Raises
    ------
    SecateurError : as `secateur.prune`; rounds below 1; masks; N:M

    References
    ----------
    Frankle et al., "Linear mode connectivity and the lottery ticket hypothesis", ICML 2020. Without
    rewinding of weights: Renda, Frankle, Carbin, "Comparing rewinding and fine-tuning in neural
    network pruning", ICLR 2020.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        density: float,
        rounds: int,
        rewind: bool = True,
        n: int = 8,
        scope: Scope = "layer",
        skip: Iterable[str] = (),
        overrides: Mapping[str, float] | None = None,
        criterion: Criterion | None = None,
        granularity: Granularity | None = None,
    ) -> None:
        check_gradual(granularity)
        if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
            raise SecateurError(f"rounds must be a positive integer, not {rounds!r}")
        self._plan = make_plan(
            model,
            density=density,
            n=n,
            scope=scope,
            skip=skip,
            overrides=overrides,
            criterion=criterion,
            granularity=granularity,
        )
        for name, layer in self._plan.layers.items():
            if mask_of(layer) is not None:
                raise SecateurError(
                    f"layer '{name}' has a mask: IterativePruner begins with a dense model; name "
                    f"the layer in skip, or bake the mask in with secateur.pruning.remove"
                )
        self._rounds = rounds
        self._done = 0
        self._early: dict[str, Tensor] | None = None
        self.report = apply(self._plan, 1.0, dict.fromkeys(self._plan.overrides, 1.0))
        """The units that the latest round left."""
        if rewind:
            self._early = {k: v.detach().clone() for k, v in unmasked_state(model).items()}

    @property
    def done(self) -> bool:
        """True once the final density is reached."""
        return self._done == self._rounds

    def step(self) -> PruneReport:
        """Rank the weights as trained, prune the next share, and rewind what is left."""
        if self.done:
            return self.report
        self._done += 1
        own = {name: self._scheduled(end) for name, end in self._plan.overrides.items()}
        self.report = apply(self._plan, self._scheduled(self._plan.density), own)
        if self._early is not None:
            rewind(self._plan.model, self._early)
        return self.report

    def _scheduled(self, end: float) -> float:
        return geometric_density(self._done, self._rounds, end)

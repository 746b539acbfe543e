"""Gradual pruning: the density falls on a cubic while the model trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from secateur.errors import SecateurError
from secateur.pruning.criteria.criteria import Criterion
from secateur.pruning.methods.one_shot import apply
from secateur.pruning.methods.plan import Scope, check_density, make_plan
from secateur.pruning.units.granularity import Granularity, NOfM
from secateur.pruning.units.report import PruneReport


def cubic_density(step: int, steps: int, begin: float, end: float) -> float:
    """Density after some steps of a schedule: it falls fast at first, slowly towards the end.

    d = end + (begin - end) * (1 - step / steps)^3

    Parameters
    ----------
    step : steps done
    steps : steps in all
    begin, end : densities before the first step and after the last

    References
    ----------
    Zhu and Gupta, "To prune, or not to prune", ICLR 2018 workshop (arXiv:1710.01878), equation 1,
    written for the density 1 - s instead of the sparsity s.
    """
    left = 1.0 - step / steps
    return end + (begin - end) * left**3


def check_gradual(granularity: Granularity | None) -> None:
    """Refuse N:M, which has one density and no schedule.

    Raises
    ------
    SecateurError : N:M
    """
    if isinstance(granularity, NOfM):
        raise SecateurError("N:M has one density and no schedule; use prune")


class GradualPruner:
    """Prunes a model in place in ``steps`` calls of `step`, spread over its training.

    The density follows `cubic_density`. The constructor puts the masks on the layers, at
    ``begin_density``. Parameters keep their identity: an optimiser may be made before or after.

    Parameters
    ----------
    model : to prune
    density, n, scope, skip, overrides, criterion, granularity : as for `secateur.prune`; densities
        after the last step. Criteria with data are evaluated again in every step
    steps : pruning steps
    begin_density : density before the first step. A layer whose override is higher begins there.

    Raises
    ------
    SecateurError : as `secateur.prune`; steps below 1; begin_density below density; N:M
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        density: float,
        steps: int,
        begin_density: float = 1.0,
        n: int = 8,
        scope: Scope = "layer",
        skip: Iterable[str] = (),
        overrides: Mapping[str, float] | None = None,
        criterion: Criterion | None = None,
        granularity: Granularity | None = None,
    ) -> None:
        check_gradual(granularity)
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise SecateurError(f"steps must be a positive integer, not {steps!r}")
        check_density("begin_density", begin_density)
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
        if begin_density < density:
            raise SecateurError(
                f"begin_density must be at least density {density!r}, not {begin_density!r}"
            )
        self._steps = steps
        self._begin = float(begin_density)
        self._done = 0
        self.report = self._apply()
        """The blocks that the latest step left."""

    @property
    def done(self) -> bool:
        """True once the final density is reached."""
        return self._done == self._steps

    @property
    def progress(self) -> float:
        """Share of the steps that are done."""
        return self._done / self._steps

    @property
    def density(self) -> float:
        """The scheduled density of layers without an override."""
        return self._scheduled(self._plan.density)

    def step(self) -> PruneReport:
        """Prune to the next density. After the last step it changes nothing."""
        if not self.done:
            self._done += 1
            self.report = self._apply()
        return self.report

    def _scheduled(self, end: float) -> float:
        return cubic_density(self._done, self._steps, max(self._begin, end), end)

    def _apply(self) -> PruneReport:
        overrides = {name: self._scheduled(end) for name, end in self._plan.overrides.items()}
        return apply(self._plan, self._scheduled(self._plan.density), overrides)

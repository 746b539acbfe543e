"""Pruning to a budget within a training loop of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from secateur.errors import SecateurError
from secateur.fx.wrapped import inner
from secateur.pruning.budget.budget import Allocation, Normalize, allocate, make_budgets
from secateur.pruning.budget.costing import CostModel
from secateur.pruning.budget.search import Budgets
from secateur.pruning.criteria.criteria import Criterion, criterion_of
from secateur.pruning.criteria.saliency import block_saliency
from secateur.pruning.methods.gradual import cubic_density
from secateur.pruning.units.distributed import averaged, share_masks
from secateur.quantisation.calibration import Calibration
from secateur.target import Target

#: Chooses what stays: (model, costs, budgets) -> allocation.
Choose = Callable[[nn.Module, CostModel, Budgets], Allocation]


class Pruner:
    """Prunes blocks of a model to a budget, cut by cut, while the user trains it.

    ::

        pruner = secateur.Pruner(model, x[:64], target="8x8", cycles=75_000, steps=2_000)
        for batch in loader:                 # your loop, your loss, your optimizer
            loss(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            pruner.step()                    # cuts when one is due; masks hold in between
        pruner.finish()                      # what is left, if fewer than ``steps`` steps ran

    The first cut is made at once, the others spread evenly over ``steps`` calls of `step`. Budgets
    fall from the dense cost to the end on the cubic of `cubic_density`, in exact cycles and bytes
    of the image. Parameters keep their identity: the optimizer may be made before or after.

    Under ``torch.distributed`` every process makes a Pruner and calls `step`; saliencies are
    averaged, and all take the masks of the first process. DistributedDataParallel wraps the model
    afterwards: it knows the parameters that the model has then.

    Parameters
    ----------
    model : float model, pruned in place; may be wrapped (torch.compile, DataParallel, EMA)
    example : inputs as for `secateur.quantize`, samples first; their values do not change the cost
    target : a `secateur.Target`, or the name of a preset or TOML file
    steps : calls of `step` over which the cuts are spread; about half of the training, so that
        the other half recovers
    cuts : prunings
    cycles, latency_ms, clock_mhz, rom_bytes, density, normalize : as for
        `secateur.pruning.allocate_budget`
    criterion : name of one that needs no data, or a criterion; evaluated again at every cut
    skip : layers that are left alone

    Raises
    ------
    SecateurError : the budget cannot be met, or a parameter is out of range

    References
    ----------
    Zhu and Gupta, "To prune, or not to prune", ICLR 2018 workshop (arXiv:1710.01878).
    """

    def __init__(
        self,
        model: nn.Module,
        example: Calibration,
        target: Target | str,
        *,
        steps: int,
        cuts: int = 8,
        cycles: int | None = None,
        latency_ms: float | None = None,
        clock_mhz: float | None = None,
        rom_bytes: int | None = None,
        density: float | None = None,
        criterion: Criterion | str = "l2",
        normalize: Normalize = "share",
        skip: Iterable[str] = (),
    ) -> None:
        for name, value in (("steps", steps), ("cuts", cuts)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SecateurError(f"{name} must be a positive integer, not {value!r}")
        if isinstance(model, DistributedDataParallel):
            raise SecateurError(
                "make the Pruner first, of the model in it, and DistributedDataParallel afterwards"
            )
        chosen = criterion_of(criterion) if isinstance(criterion, str) else criterion
        names = list(skip)

        def choose(model: nn.Module, costs: CostModel, budgets: Budgets) -> Allocation:
            saliency = averaged(block_saliency(model, costs.n, chosen, names), model)
            return allocate(costs, saliency, budgets, normalize=normalize)

        found = Target.load(target) if isinstance(target, str) else target
        self._model = inner(model)
        self._steps = steps
        self._done = 0
        self._cuts = Cuts(
            self._model,
            CostModel(self._model, example, found),
            choose,
            cuts=cuts,
            skip=names,
            budget={
                "cycles": cycles,
                "latency_ms": latency_ms,
                "clock_mhz": clock_mhz,
                "rom_bytes": rom_bytes,
                "density": density,
            },
        )
        choose(self._model, self._cuts.costs, self._cuts.end)  # refuses what cannot be reached
        self._cuts.cut_to(1)

    @property
    def allocation(self) -> Allocation | None:
        """What the latest cut left, with its exact cost; None after `load_state_dict`."""
        return self._cuts.allocation

    @property
    def done(self) -> bool:
        """Whether the budget is met."""
        return self._cuts.done == self._cuts.count

    def step(self) -> bool:
        """Count one step of the optimizer; returns whether a cut was due."""
        self._done += 1
        return self._cuts.cut_to(due(self._done, self._steps, self._cuts.count)) is not None

    def finish(self) -> None:
        """Make the cuts that are left, at once; the masks then meet the budget."""
        self._cuts.cut_to(self._cuts.count)

    def state_dict(self) -> dict[str, Any]:
        """Where the pruner stands; the masks are in the state of the model."""
        begin = vars(self._cuts.begin)
        return {"steps": self._done, "cuts": self._cuts.done, "begin": dict(begin)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`, after the model has loaded its own.

        Raises
        ------
        SecateurError : it is not the state of a Pruner
        """
        try:
            steps, cuts, begin = int(state["steps"]), int(state["cuts"]), Budgets(**state["begin"])
        except (KeyError, TypeError, ValueError):
            raise SecateurError("load_state_dict takes what Pruner.state_dict returned") from None
        self._done = steps
        self._cuts.done, self._cuts.begin = cuts, begin


def due(done: int, steps: int, cuts: int) -> int:
    """How many of ``cuts`` prunings are made once ``done`` of ``steps`` steps have run.

    The first comes before all steps, the others after equal shares of them.

    Parameters
    ----------
    done : steps that have run
    steps : over which the cuts are spread
    cuts : in all
    """
    return sum(1 for cut in range(cuts) if cut * steps // cuts <= done)


class Cuts:
    """The prunings of a model on its way from the dense cost to a budget.

    Parameters
    ----------
    model : changed in place
    costs : of the model
    choose : what stays at a budget
    cuts : prunings
    skip : layers that are left alone
    budget : keyword arguments of `make_budgets`

    Attributes
    ----------
    begin, end : budgets before the first cut and after the last
    done : prunings that are made
    allocation : what the latest left; None before the first
    """

    def __init__(
        self,
        model: nn.Module,
        costs: CostModel,
        choose: Choose,
        *,
        cuts: int,
        skip: Iterable[str],
        budget: Mapping[str, Any],
    ) -> None:
        self.model, self.costs, self.choose, self.count = model, costs, choose, cuts
        self.layers = block_saliency(model, costs.n, skip=skip)
        count = sum(saliency.numel() for saliency in self.layers.values())
        self.end = make_budgets(costs.target, count, **budget)
        dense = costs.cost(costs.alive)
        whole = {name: costs.alive[name] for name in self.layers}
        self.begin = Budgets(*map(int, self.end.spent(dense, whole)))
        self.done = 0
        self.allocation: Allocation | None = None

    def cut_to(self, cuts: int) -> Allocation | None:
        """Have so many prunings made, all that are due in one; None if there is none."""
        if cuts <= self.done:
            return None
        self.done = cuts
        left = cubic_density(cuts, self.count, 1.0, 0.0)
        self.costs.restrict(self.model)
        self.allocation = self.choose(self.model, self.costs, between(self.begin, self.end, left))
        self.allocation.apply(self.model)
        share_masks(self.model)
        return self.allocation


def between(whole: Budgets, end: Budgets, left: float) -> Budgets:
    """Budgets on the way from ``whole`` to ``end``.

    Parameters
    ----------
    whole, end : the way
    left : share of it that is still to go; 0 is the end, exactly
    """

    def part(start: int | None, limit: int | None) -> int | None:
        if limit is None or start is None:
            return None
        return limit + int(max(0, start - limit) * left)

    return Budgets(
        part(whole.cycles, end.cycles),
        part(whole.rom_bytes, end.rom_bytes),
        part(whole.blocks, end.blocks),
        part(whole.time, end.time),
    )

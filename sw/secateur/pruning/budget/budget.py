"""Budgets in cycles, milliseconds, bytes and density, met by the exact cost of the image.

The blocks with the most saliency per cycle saved stay; ``search`` finds them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from secateur.errors import SecateurError, SecateurWarning
from secateur.progress import Progress, silent
from secateur.pruning.budget.costing import Cost, CostModel
from secateur.pruning.budget.search import Budgets, Search
from secateur.pruning.units.blocks import prunable_layers, to_mask, weight_of
from secateur.pruning.units.mask import mask_of, set_mask
from secateur.pruning.units.report import LayerDensity, PruneReport
from secateur.quantisation.calibration import Calibration
from secateur.target import Target

Normalize = Literal["share", "lamp", "none"]

_MOST = 1 << 53  # larger numbers are not exact in float64


@dataclass(frozen=True)
class Allocation:
    """Blocks to keep, and what they cost.

    Attributes
    ----------
    n : output channels of a block
    masks : by module, bool (channel groups, positions)
    shapes : of the weights, by module
    cost : of the pruned network, exact
    dense : cost of the network as it was given, exact
    budgets : limits that are met
    saliency : sum that is kept, of normalised saliencies; None without saliencies
    """

    n: int
    masks: dict[str, Tensor]
    shapes: dict[str, torch.Size]
    cost: Cost
    dense: Cost
    budgets: Budgets
    saliency: float | None

    @property
    def kept(self) -> dict[str, int]:
        """Blocks to keep, by module."""
        return {name: int(mask.sum()) for name, mask in self.masks.items()}

    @property
    def report(self) -> PruneReport:
        """Blocks per layer, as `secateur.prune` reports them."""
        rows = [
            LayerDensity(name, tuple(self.shapes[name]), mask.numel(), int(mask.sum()))
            for name, mask in self.masks.items()
        ]
        return PruneReport(self.n, tuple(rows))

    @property
    def used(self) -> float:
        """Share of the tightest budget that the image takes, at most 1."""
        kept = {name: mask.numpy() for name, mask in self.masks.items()}
        return float((self.budgets.spent(self.cost, kept) / self.budgets.limits()).max())

    def apply(self, model: nn.Module) -> PruneReport:
        """Put the masks on the model's layers, on top of those that are there.

        Warns of layers whose weights are all zero: training does not change that.
        """
        empty = [name for name, kept in self.masks.items() if not bool(kept.any())]
        if empty:
            warnings.warn(
                f"layer {empty[0]!r} has only zeros in int8, and its mask keeps them: initialise "
                f"it, or name it in skip",
                SecateurWarning,
                stacklevel=2,
            )
        modules = prunable_layers(model)
        for name, kept in self.masks.items():
            layer = modules[name]
            mask = to_mask(kept, weight_of(layer), self.n)
            existing = mask_of(layer)
            set_mask(layer, mask if existing is None else mask * existing.mask)
        return self.report


def allocate_budget(
    model: nn.Module | CostModel,
    example: Calibration | None,
    target: Target | None,
    saliency: Mapping[str, Tensor],
    *,
    cycles: int | None = None,
    latency_ms: float | None = None,
    clock_mhz: float | None = None,
    rom_bytes: int | None = None,
    density: float | None = None,
    normalize: Normalize = "share",
    progress: Progress = silent,
) -> Allocation:
    """Choose the blocks with the most saliency that meet all budgets.

    Parameters
    ----------
    model : float model, masks or none, left as it is; or a CostModel made of it, to save time
    example, target : see CostModel; None with a CostModel
    saliency : by module name, (channel groups, positions) at the target's N, not negative, from
        any criterion. Modules that are not named are not pruned further.
    cycles : per inference
    latency_ms, clock_mhz : the same as a time at a clock; both or neither. With a ring, the waits
        for its source count.
    rom_bytes : of the image; the target's weight memory is always a limit
    density : share of the blocks of the named modules that is kept
    normalize : "share": s / sum of the layer (for magnitudes, whose scale differs between layers);
        "lamp": s / sum of those that are at least s in the layer, so that the last blocks of a
        layer weigh more; "none": s (for Taylor or Fisher, whose unit is the loss)
    progress : called after every network that was planned; the total is not known

    Raises
    ------
    SecateurError : no budget, or one that cannot be reached, with the smallest reachable figure
        and the layers that take most of it; or saliency that does not fit the model

    References
    ----------
    LAMP: Lee, Park, Mo, Ahn, Shin, "Layer-adaptive sparsity for the magnitude-based pruning", ICLR
    2021.
    """
    if isinstance(model, CostModel):
        costs = model
    elif example is None or target is None:
        raise SecateurError("allocate_budget: a model needs an example and a target")
    else:
        costs = CostModel(model, example, target)
    count = sum(values.numel() for values in saliency.values())
    budgets = make_budgets(
        costs.target,
        count,
        cycles=cycles,
        latency_ms=latency_ms,
        clock_mhz=clock_mhz,
        rom_bytes=rom_bytes,
        density=density,
    )
    return allocate(costs, saliency, budgets, normalize=normalize, progress=progress)


def allocate(
    costs: CostModel,
    saliency: Mapping[str, Tensor],
    budgets: Budgets,
    *,
    normalize: Normalize = "share",
    progress: Progress = silent,
) -> Allocation:
    """As `allocate_budget`, with checked budgets.

    Parameters
    ----------
    costs : of the network
    saliency, normalize, progress : as for `allocate_budget`
    budgets : from `make_budgets`
    """
    scores = check_saliency(costs, saliency)
    if normalize not in get_args(Normalize):
        known = ", ".join(map(repr, get_args(Normalize)))
        raise SecateurError(f"normalize must be one of {known}, not {normalize!r}")
    for name, score in scores.items():
        alive = np.where(costs.alive[name], score, 0.0)
        if normalize == "share":
            scores[name] = score / (alive.sum() or 1.0)
        elif normalize == "lamp":
            scores[name] = _lamp(alive)
    search = Search(costs, scores, budgets, progress)
    kept = search.solve()
    return Allocation(
        n=costs.n,
        masks={name: torch.from_numpy(mask) for name, mask in kept.items()},
        shapes={name: costs.shapes[name] for name in kept},
        cost=search.cost(kept),
        dense=search.dense,
        budgets=budgets,
        saliency=sum(float(scores[name][mask].sum()) for name, mask in kept.items()),
    )


def _lamp(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Each score as a share of the sum of those that are at least as large, itself included."""
    falling = np.argsort(-scores, axis=None, kind="stable")
    sums = np.empty(scores.size)
    sums[falling] = np.cumsum(scores.ravel()[falling])
    return scores / np.where(sums > 0, sums, 1.0).reshape(scores.shape)


def make_budgets(
    target: Target,
    blocks: int,
    *,
    cycles: int | None = None,
    latency_ms: float | None = None,
    clock_mhz: float | None = None,
    rom_bytes: int | None = None,
    density: float | None = None,
) -> Budgets:
    """Check the budgets of `allocate_budget` and convert them to cycles, bytes and blocks.

    Parameters
    ----------
    target : its weight memory is a limit, too
    blocks : of the layers to prune, for ``density``
    cycles, latency_ms, clock_mhz, rom_bytes, density : as for `allocate_budget`

    Raises
    ------
    SecateurError : a budget is not positive, a latency has no clock, or no budget is given
    """
    given = {"cycles": cycles, "latency_ms": latency_ms, "clock_mhz": clock_mhz}
    given |= {"rom_bytes": rom_bytes, "density": density}
    for name, value in given.items():
        if value is not None and not 0 < value < _MOST:
            raise SecateurError(f"budget: {name} must be above 0 and below 2**53, not {value!r}")
    if (latency_ms is None) != (clock_mhz is None):
        raise SecateurError(
            "budget: a latency needs a clock; give both: latency_ms and clock_mhz, or --latency "
            "and --clock"
        )
    if density is not None and density > 1:
        raise SecateurError(f"budget: density must be at most 1, not {density!r}")
    if all(value is None for value in given.values()):
        raise SecateurError("budget: give cycles, a latency at a clock, rom_bytes or density")
    time = None
    if latency_ms is not None and clock_mhz is not None:
        time = int(latency_ms * clock_mhz * 1000)
    if target.source is None:
        limits = [limit for limit in (cycles, time) if limit is not None]
        cycles, time = min(limits, default=None), None
    memory = target.geometry.weight_words * target.geometry.word_bytes
    return Budgets(
        cycles=None if cycles is None else int(cycles),
        rom_bytes=memory if rom_bytes is None else min(int(rom_bytes), memory),
        blocks=None if density is None else int(density * blocks),
        time=time,
    )


def check_saliency(
    costs: CostModel, saliency: Mapping[str, Tensor]
) -> dict[str, npt.NDArray[np.float64]]:
    """Saliency as float64 arrays, by name of module.

    Raises
    ------
    SecateurError : an unknown module, a wrong shape, or values that are negative or not finite
    """
    if not saliency:
        raise SecateurError("saliency: no layers; there is nothing to prune")
    costs.check_names(saliency)
    scores = {}
    for name, values in saliency.items():
        score = values.detach().cpu().double().numpy()
        expected = costs.alive[name].shape
        if score.shape != expected:
            raise SecateurError(
                f"saliency of {name!r} has shape {score.shape}, expected {expected}: channel "
                f"groups of {costs.n} by positions"
            )
        if not (np.isfinite(score).all() and (score >= 0).all()):
            raise SecateurError(f"saliency of {name!r} must be finite and not negative")
        scores[name] = score
    return scores

"""One-shot pruning of N:1 blocks by magnitude."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

import torch
from torch import nn

from secateur.errors import SecateurError
from secateur.pruning import blocks as granularity
from secateur.pruning import criterion, select
from secateur.pruning.mask import check_maskable, mask_of, parameter_of, set_mask
from secateur.pruning.report import LayerDensity, PruneReport

Scope = Literal["layer", "global"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to prune, checked. ``overrides`` has the layers with a density of their own."""

    layers: dict[str, nn.Module]
    n: int
    scope: Scope
    density: float
    overrides: dict[str, float]


def make_plan(
    model: nn.Module,
    *,
    density: float,
    n: int,
    scope: Scope,
    skip: Iterable[str],
    overrides: Mapping[str, float] | None,
) -> Plan:
    """Check the arguments of `prune` against the model.

    Raises
    ------
    SecateurError : an argument out of range, an unknown layer name, or a layer without blocks
    """
    check_n(n)
    check_density("density", density)
    if scope not in get_args(Scope):
        raise SecateurError(f"scope must be 'layer' or 'global', not {scope!r}")
    if isinstance(skip, str):
        raise SecateurError(f"skip must be a list of layer names, not the string {skip!r}")
    found = granularity.prunable_layers(model)
    skipped = list(skip)
    own = dict(overrides or {})
    for argument, names in (("skip", skipped), ("overrides", list(own))):
        for name in names:
            if name not in found:
                raise SecateurError(
                    f"{argument}: the model has no prunable layer {name!r}; "
                    f"it has {', '.join(map(repr, found)) or 'none'}"
                )
    for name, value in own.items():
        if name in skipped:
            raise SecateurError(f"layer '{name}' is in skip and in overrides; name it once")
        check_density(f"overrides['{name}']", value)
    layers = {name: layer for name, layer in found.items() if name not in skipped}
    if not layers:
        kinds = ", ".join(kind.__name__ for kind in granularity.PRUNABLE)
        raise SecateurError(f"nothing to prune: the model needs a {kinds} that is not in skip")
    _check_layers(layers)
    floats = {name: float(value) for name, value in own.items()}
    return Plan(layers=layers, n=n, scope=scope, density=float(density), overrides=floats)


def check_n(n: int) -> None:
    """Raise SecateurError unless ``n`` is a positive integer."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise SecateurError(f"n must be a positive integer (channels of a block), not {n!r}")


def check_density(name: str, density: float) -> None:
    """Raise SecateurError unless 0 < density <= 1."""
    if isinstance(density, bool) or not isinstance(density, Real) or not 0 < density <= 1:
        raise SecateurError(f"{name} must be above 0 and at most 1, not {density!r}")


def _check_layers(layers: Mapping[str, nn.Module]) -> None:
    owner: dict[int, str] = {}
    for name, layer in layers.items():
        check_maskable(name, layer)
        granularity.check_layer(name, layer)
        other = owner.setdefault(id(parameter_of(layer)), name)
        if other != name:
            raise SecateurError(
                f"layers '{other}' and '{name}' share one weight and would need one mask; "
                "name both in skip, or untie them"
            )


def apply(plan: Plan, density: float, overrides: Mapping[str, float]) -> PruneReport:
    """Rank the blocks of a plan's layers and set the masks. All or nothing: errors come first."""
    scores = {}
    alive = {}
    for name, layer in plan.layers.items():
        existing = mask_of(layer)
        weight = granularity.weight_of(layer)
        blocks = granularity.to_blocks(weight, plan.n)
        present = torch.ones_like(weight) if existing is None else existing.mask
        scores[name] = criterion.squared_l2(blocks, len(weight)).cpu()
        alive[name] = granularity.nonzero_blocks(present, plan.n).cpu()
    kept = {}
    ranked = list(plan.layers) if plan.scope == "layer" else list(overrides)
    for name in ranked:
        target = overrides.get(name, density)
        kept[name] = select.select_in_layer(name, scores[name], alive[name], target)
    rest = [name for name in plan.layers if name not in kept]
    if rest:
        kept |= select.select_global(
            {name: scores[name] for name in rest}, {name: alive[name] for name in rest}, density
        )
    rows = []
    for name, layer in plan.layers.items():
        weight = granularity.weight_of(layer)
        existing = mask_of(layer)
        mask = granularity.to_mask(kept[name], weight, plan.n)
        set_mask(layer, mask if existing is None else mask * existing.mask)
        shape = tuple(weight.shape)
        rows.append(LayerDensity(name, shape, kept[name].numel(), int(kept[name].sum())))
    return PruneReport(plan.n, tuple(rows))


def prune(
    model: nn.Module,
    *,
    density: float,
    n: int = 8,
    scope: Scope = "layer",
    skip: Iterable[str] = (),
    overrides: Mapping[str, float] | None = None,
) -> PruneReport:
    """Prune a model in place to a density of N:1 blocks, the smallest L2 norms first.

    Parameters
    ----------
    model : its Conv1d, Conv2d (dense or depthwise) and Linear layers are pruned
    density : share of blocks that stays; each layer keeps ``round(density * blocks)``, at least one
    n : output channels of a block, the N of the array
    scope : "layer": every layer keeps that share; "global": all layers are ranked together,
        and so many stay in total
    skip : names of layers that are left alone
    overrides : densities of single layers, by name; these are ranked by themselves

    Returns
    -------
    PruneReport : the pruned layers, by their masks

    Raises
    ------
    SecateurError : see `make_plan`; or more blocks are asked for than earlier pruning left.
        The model is then unchanged.

    Of blocks of equal norm the one that comes first in the weight stays. The masks hold through
    any further training until `secateur.pruning.remove` bakes them in.
    """
    plan = make_plan(model, density=density, n=n, scope=scope, skip=skip, overrides=overrides)
    return apply(plan, plan.density, plan.overrides)


def density_of(model: nn.Module, n: int = 8) -> PruneReport:
    """Count the blocks that hold a weight other than zero, in every prunable layer.

    Masks or none: what counts is the weight that the layer computes with.

    Raises
    ------
    SecateurError : ``n`` out of range, or a layer without N:1 blocks
    """
    check_n(n)
    rows = []
    for name, layer in granularity.prunable_layers(model).items():
        granularity.check_layer(name, layer)
        weight = granularity.weight_of(layer)
        alive = granularity.nonzero_blocks(weight, n)
        shape = tuple(weight.shape)
        rows.append(LayerDensity(name, shape, alive.numel(), int(alive.sum())))
    if not rows:
        kinds = ", ".join(kind.__name__ for kind in granularity.PRUNABLE)
        raise SecateurError(f"the model has no layer with blocks: it needs a {kinds}")
    return PruneReport(n, tuple(rows))

"""One-shot pruning: by default N:1 blocks by magnitude."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from numbers import Real

import torch
from torch import Tensor, nn

from secateur.errors import SecateurError, SecateurWarning
from secateur.pruning.criteria.criteria import Criterion, criterion_of
from secateur.pruning.methods.plan import Plan, Scope, check_n, make_plan
from secateur.pruning.units import select
from secateur.pruning.units.blocks import PRUNABLE, prunable_layers, weight_of
from secateur.pruning.units.granularity import Block, Granularity, NOfM, granularity_of
from secateur.pruning.units.mask import mask_of, set_mask
from secateur.pruning.units.report import LayerDensity, PruneReport


def apply(
    plan: Plan,
    density: float,
    overrides: Mapping[str, float],
    threshold: float | None = None,
) -> PruneReport:
    """Rank the units of a plan's layers and set the masks. Errors come before any change.

    Parameters
    ----------
    plan : what to prune
    density : share of units that stays in layers without an override
    overrides : densities by name of layer
    threshold : overrides all densities: units with at least this saliency stay

    Raises
    ------
    SecateurError : the criterion returns something else than saliencies, or more units are asked
        for than are left
    """
    saliency = plan.criterion(plan.model, plan.layers)
    units = {name: plan.granularity.units(name, layer) for name, layer in plan.layers.items()}
    scores = {}
    alive = {}
    for name, layer in plan.layers.items():
        check_saliency(name, layer, saliency.get(name))
        existing = mask_of(layer)
        present = torch.ones_like(weight_of(layer)) if existing is None else existing.mask
        scores[name] = units[name].reduce(saliency[name])
        alive[name] = units[name].any(present)
    kept = _select(plan, scores, alive, density, overrides, threshold)
    rows = []
    for name, layer in plan.layers.items():
        weight = weight_of(layer)
        existing = mask_of(layer)
        mask = units[name].mask(kept[name], weight)
        set_mask(layer, mask if existing is None else mask * existing.mask)
        shape = tuple(weight.shape)
        rows.append(LayerDensity(name, shape, units[name].count, int(kept[name].sum())))
    return PruneReport(plan.n, tuple(rows), plan.granularity.noun)


def check_saliency(name: str, layer: nn.Module, saliency: Tensor | None) -> None:
    """Refuse what a criterion may not return.

    Parameters
    ----------
    name : of the layer, for the message
    layer : with a weight
    saliency : what the criterion returned for it; None: nothing

    Raises
    ------
    SecateurError : no saliency, another shape than the weight's, negative, or not finite
    """
    if saliency is None or saliency.shape != weight_of(layer).shape:
        raise SecateurError(
            f"layer '{name}': the criterion must give one saliency per weight, "
            f"shape {tuple(weight_of(layer).shape)}"
        )
    if not bool(torch.isfinite(saliency).all()) or bool((saliency < 0).any()):
        raise SecateurError(
            f"layer '{name}': saliencies must be finite and at least 0; check the criterion's data"
        )


def _select(
    plan: Plan,
    scores: Mapping[str, Tensor],
    alive: Mapping[str, Tensor],
    density: float,
    overrides: Mapping[str, float],
    threshold: float | None,
) -> dict[str, Tensor]:
    if isinstance(plan.granularity, NOfM):
        n, groups = plan.granularity.n, plan.granularity.groups
        return {
            name: select.select_n_of_m(scores[name], alive[name], groups(layer), n)
            for name, layer in plan.layers.items()
        }
    kept = {}
    if threshold is not None:
        for name in plan.layers:
            kept[name] = select.select_above(name, scores[name], alive[name], threshold)
        return kept
    ranked = list(plan.layers) if plan.scope == "layer" else list(overrides)
    for name in ranked:
        target = overrides.get(name, density)
        kept[name] = select.select_in_layer(name, scores[name], alive[name], target)
    rest = [name for name in plan.layers if name not in kept]
    if rest:
        kept |= select.select_global(
            {name: scores[name] for name in rest}, {name: alive[name] for name in rest}, density
        )
    return kept


def prune(
    model: nn.Module,
    *,
    density: float | None = None,
    n: int = 8,
    scope: Scope = "layer",
    skip: Iterable[str] = (),
    overrides: Mapping[str, float] | None = None,
    criterion: Criterion | str | None = None,
    granularity: Granularity | str | None = None,
    threshold: float | None = None,
) -> PruneReport:
    """Prune a model in place: to a density, or by a threshold, the least salient units first.

    The masks hold through any further training until `secateur.pruning.remove` bakes them in.

    Parameters
    ----------
    model : its Conv1d, Conv2d (dense or depthwise) and Linear layers are pruned
    density : share of units that stays; each layer keeps ``round(density * units)``, at least one
    n : output channels of a block, the N of the array, if ``granularity`` is None
    scope : "layer": every layer keeps that share; "global": all layers are ranked together, and
        that share stays in total
    skip : names of layers that are left alone
    overrides : densities of single layers, by name; these are ranked by themselves
    criterion : saliency of weights, see `secateur.pruning.criteria`, or the name of one that needs
        no data: "l1", "l2", "random"; None: squares (L2 norm). Of equal units the first stays
    granularity : units, see `secateur.pruning.units.granularity`, or their name as in
        `granularity_of`; None: N:1 blocks of ``n``. N:M implies the density
    threshold : instead of a density: units whose saliencies add up to at least this stay, and the
        best one of every layer. With the default criterion it is a squared norm

    Returns
    -------
    PruneReport : the pruned layers, by their masks

    Raises
    ------
    SecateurError : see `make_plan`; or more units are asked for than earlier pruning left; or not
        exactly one of density, threshold and N:M is given. The model is then unchanged.
    """
    criterion = criterion_of(criterion) if isinstance(criterion, str) else criterion
    if isinstance(granularity, str):
        granularity = granularity_of(granularity, n)
    _check_amount(density, threshold, overrides, granularity)
    _point_out_recurrent(model)
    plan = make_plan(
        model, density=1.0 if density is None else density, n=n, scope=scope, skip=skip,
        overrides=overrides, criterion=criterion, granularity=granularity,
    )  # fmt: skip
    return apply(plan, plan.density, plan.overrides, threshold)


def _point_out_recurrent(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.RNNBase | nn.RNNCellBase):
            warnings.warn(
                f"layer {name!r} ({type(module).__name__}) is not pruned; prune the model that "
                f"secateur.decompose returns",
                SecateurWarning,
                stacklevel=3,
            )


def _check_amount(
    density: float | None,
    threshold: float | None,
    overrides: Mapping[str, float] | None,
    granularity: Granularity | None,
) -> None:
    if isinstance(granularity, NOfM):
        if density is not None or threshold is not None or overrides:
            raise SecateurError(
                "N:M sets the density itself: omit density, threshold and overrides"
            )
        return
    if (density is None) == (threshold is None):
        raise SecateurError("give either density or threshold, one of them")
    if threshold is None:
        return
    if overrides:
        raise SecateurError("overrides are densities and do not go with a threshold; use skip")
    if isinstance(threshold, bool) or not isinstance(threshold, Real) or not threshold >= 0:
        raise SecateurError(f"threshold must be a number of at least 0, not {threshold!r}")


def density_of(model: nn.Module, n: int = 8, granularity: Granularity | None = None) -> PruneReport:
    """Count the units that hold a weight other than zero, in every prunable layer.

    The weights are those that the layers compute with, masks applied.

    Parameters
    ----------
    model : with masks or without
    n : output channels of a block, if ``granularity`` is None
    granularity : units; None: N:1 blocks

    Raises
    ------
    SecateurError : ``n`` out of range, or a layer without such units
    """
    check_n(n)
    counted = Block(n) if granularity is None else granularity
    rows = []
    for name, layer in prunable_layers(model).items():
        counted.check(name, layer)
        weight = weight_of(layer)
        units = counted.units(name, layer)
        alive = int(units.any(weight).sum())
        rows.append(LayerDensity(name, tuple(weight.shape), units.count, alive))
    if not rows:
        kinds = ", ".join(kind.__name__ for kind in PRUNABLE)
        raise SecateurError(f"the model has no layer with blocks: it needs a {kinds}")
    return PruneReport(counted.n if isinstance(counted, Block) else n, tuple(rows), counted.noun)

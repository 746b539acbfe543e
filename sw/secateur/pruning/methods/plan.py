"""The arguments of `prune`, checked against the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

from torch import nn

from secateur.errors import SecateurError
from secateur.pruning.criteria.criteria import Criterion, Magnitude
from secateur.pruning.units.blocks import PRUNABLE, prunable_layers
from secateur.pruning.units.granularity import Block, Granularity
from secateur.pruning.units.mask import make_maskable, parameter_of

Scope = Literal["layer", "global"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Checked arguments of `prune`.

    Attributes
    ----------
    model : to prune
    layers : those that are pruned, by name
    n : the N of reports
    scope : "layer" or "global"
    density : of layers without an override; 1 if a threshold or N:M decides
    overrides : densities by name of layer
    criterion : saliency of weights
    granularity : units
    """

    model: nn.Module
    layers: dict[str, nn.Module]
    n: int
    scope: Scope
    density: float
    overrides: dict[str, float]
    criterion: Criterion
    granularity: Granularity


def make_plan(
    model: nn.Module,
    *,
    density: float,
    n: int,
    scope: Scope,
    skip: Iterable[str],
    overrides: Mapping[str, float] | None,
    criterion: Criterion | None = None,
    granularity: Granularity | None = None,
) -> Plan:
    """Check the arguments of `prune` against the model.

    Parameters
    ----------
    model, density, n, scope, skip, overrides, criterion, granularity : as for `prune`

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
    found = prunable_layers(model)
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
        kinds = ", ".join(kind.__name__ for kind in PRUNABLE)
        raise SecateurError(f"nothing to prune: the model needs a {kinds} that is not in skip")
    chosen = Block(n) if granularity is None else granularity
    _check_layers(layers, chosen)
    return Plan(
        model=model,
        layers=layers,
        n=chosen.n if isinstance(chosen, Block) else n,
        scope=scope,
        density=float(density),
        overrides={name: float(value) for name, value in own.items()},
        criterion=Magnitude(2) if criterion is None else criterion,
        granularity=chosen,
    )


def check_n(n: int) -> None:
    """Refuse an ``n`` that is not a positive integer.

    Raises
    ------
    SecateurError : anything else
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise SecateurError(f"n must be a positive integer (channels of a block), not {n!r}")


def check_density(name: str, density: float) -> None:
    """Refuse a density that is not above 0 and at most 1; ``name`` is the argument's.

    Raises
    ------
    SecateurError : anything else
    """
    if isinstance(density, bool) or not isinstance(density, Real) or not 0 < density <= 1:
        raise SecateurError(f"{name} must be above 0 and at most 1, not {density!r}")


def _check_layers(layers: Mapping[str, nn.Module], granularity: Granularity) -> None:
    owner: dict[int, str] = {}
    for name, layer in layers.items():
        make_maskable(name, layer)
        granularity.check(name, layer)
        other = owner.setdefault(id(parameter_of(layer)), name)
        if other != name:
            raise SecateurError(
                f"layers '{other}' and '{name}' share one weight and would need one mask; "
                "name both in skip, or untie them"
            )

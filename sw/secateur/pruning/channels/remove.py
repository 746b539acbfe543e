"""Real removal of channels: the model gets narrower, with all layers that share the channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from secateur.capture.outputs import only_tensor
from secateur.errors import SecateurError
from secateur.fx.computed import copied
from secateur.pruning.channels.compensate import move_means
from secateur.pruning.channels.coupling import ChannelSet, channel_sets
from secateur.pruning.criteria.criteria import Criterion, Magnitude
from secateur.pruning.criteria.probe import evaluating
from secateur.pruning.methods.one_shot import check_saliency
from secateur.pruning.methods.plan import Scope, check_density
from secateur.pruning.units.blocks import check_layer, prunable_layers, weight_of


@dataclass(frozen=True)
class LayerWidth:
    """Output channels of one layer, before and after."""

    name: str
    before: int
    after: int


@dataclass(frozen=True)
class ChannelReport:
    """Widths by layer, and parameters of the whole model. ``str()`` is a table."""

    layers: tuple[LayerWidth, ...]
    parameters_before: int
    parameters_after: int

    def __str__(self) -> str:
        width = max(len("parameters"), *(len(row.name) for row in self.layers))
        rows = [(row.name, row.before, row.after) for row in self.layers]
        rows.append(("parameters", self.parameters_before, self.parameters_after))
        lines = [f"{'layer':<{width}}  {'before':>9}  {'after':>9}"]
        return "\n".join(lines + [f"{name:<{width}}  {b:>9}  {a:>9}" for name, b, a in rows])


def remove_channels(
    model: nn.Module,
    example: Tensor,
    *,
    density: float,
    criterion: Criterion | None = None,
    scope: Scope = "layer",
    round_to: int = 8,
    skip: Iterable[str] = (),
    overrides: Mapping[str, float] | None = None,
    compensate: Sequence[Tensor] | None = None,
) -> ChannelReport:
    """Remove whole output channels of a model, in place, and their inputs in all readers.

    Channels that residuals, depthwise layers or concatenations tie together go together; their
    saliency is the sum over the tied filters. What the model returns keeps its channels, and so
    does what a grouped convolution (not depthwise) touches.

    Parameters
    ----------
    example : an input, batch included
    density : share of channels that stays in each set of tied channels, to the nearest multiple
        of ``round_to``, at least one multiple, at most all
    criterion : None: squares (L2 norm of filters)
    scope : "layer": every set keeps that share; "global": all sets are ranked together, each
        set's saliencies divided by their mean
    round_to : the N of the array, so that no lane idles
    skip : layers that keep their output channels, and with them the tied layers
    overrides : densities by name of layer, for its set
    compensate : inputs over which removed channels are averaged. The mean replaces the channel,
        as a constant in the bias of the readers: exact where the channel is constant and its
        reader has no padding

    Returns
    -------
    ChannelReport

    Raises
    ------
    SecateurError : an argument out of range, an unknown layer, masks, or frozen parameters; or
        the narrower model does not run, or loses more channels than asked. The model is then
        unchanged.

    Weights are new parameters: make the optimiser afterwards. Of equal channels the first stays.
    """
    check_density("density", density)
    if scope not in get_args(Scope):
        raise SecateurError(f"scope must be 'layer' or 'global', not {scope!r}")
    if isinstance(round_to, bool) or not isinstance(round_to, int) or round_to < 1:
        raise SecateurError(f"round_to must be a positive integer, not {round_to!r}")
    skipped, own = _check_names(model, skip, overrides)
    rank = Magnitude(2) if criterion is None else criterion

    def choose(target: nn.Module) -> list[tuple[ChannelSet, list[int]]]:
        sets = [s for s in channel_sets(target, example) if not s.output and not s.fixed]
        sets = [s for s in sets if not skipped & s.members.keys()]
        scores = [_scores(s, saliency) for s in sets]
        counts = _counts(sets, scores, density, own, scope, round_to)
        doomed = [_weakest(score, k) for score, k in zip(scores, counts, strict=True)]
        return list(zip(sets, doomed, strict=True))

    def shrink(target: nn.Module) -> None:
        chosen = choose(target)
        if compensate is not None:
            move_means(target, [s for s, _ in chosen], [d for _, d in chosen], compensate)
        for each, channels in chosen:
            if channels:
                each.group.prune(channels)

    layers = _rankable(model, example, skipped)
    saliency = rank(model, layers) if layers else {}
    for name, layer in layers.items():
        check_saliency(name, layer, saliency.get(name))
    _try(model, example, choose, shrink)
    before = {name: len(weight_of(m)) for name, m in prunable_layers(model).items()}
    parameters = sum(p.numel() for p in model.parameters())
    shrink(model)
    rows = tuple(
        LayerWidth(name, before[name], len(weight_of(m)))
        for name, m in prunable_layers(model).items()
    )
    return ChannelReport(rows, parameters, sum(p.numel() for p in model.parameters()))


Choose = Callable[[nn.Module], list[tuple[ChannelSet, list[int]]]]


def _try(
    model: nn.Module, example: Tensor, choose: Choose, shrink: Callable[[nn.Module], None]
) -> None:
    """Shrink a copy; refuse what does not run, or has not the widths that were chosen."""
    shape = _shape(model, example)
    trial = copied(model)
    widths = {name: len(weight_of(layer)) for name, layer in prunable_layers(trial).items()}
    for each, channels in choose(trial):
        for name, pairs in each.members.items():
            widths[name] -= sum(channel in set(channels) for channel, _ in pairs)
    try:
        shrink(trial)
        after = _shape(trial, example)
    except SecateurError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        names = ", ".join(map(repr, _culprits(model, example, choose))) or "some layers"
        raise SecateurError(
            f"the model does not run with fewer channels of {names}: {reason}; name them in skip"
        ) from None
    if after != shape:
        raise SecateurError(
            f"the model would return shape {tuple(after)} for {tuple(shape)}; "
            "name the layer that makes its output in skip"
        )
    for name, layer in prunable_layers(trial).items():
        if len(weight_of(layer)) != widths[name]:
            raise SecateurError(
                f"layer {name!r} would keep {len(weight_of(layer))} channels, not "
                f"{widths[name]}: the model splits or folds them; name it in skip"
            )


def _culprits(model: nn.Module, example: Tensor, choose: Choose) -> list[str]:
    """Layers of the sets that alone keep the model from running."""
    names: list[str] = []
    for index in range(len(choose(model))):
        trial = copied(model)
        each, channels = choose(trial)[index]
        try:
            if channels:
                each.group.prune(channels)
            _shape(trial, example)
        except Exception:  # whatever the model raises
            names += each.members
    return names


def _shape(model: nn.Module, example: Tensor) -> torch.Size:
    with evaluating(model), torch.no_grad():
        found: Any = model(example)
    return only_tensor(found).shape


def _check_names(
    model: nn.Module, skip: Iterable[str], overrides: Mapping[str, float] | None
) -> tuple[set[str], dict[str, float]]:
    if isinstance(skip, str):
        raise SecateurError(f"skip must be a list of layer names, not the string {skip!r}")
    skipped, own = set(skip), dict(overrides or {})
    found = prunable_layers(model)
    for name in [*skipped, *own]:
        if name not in found:
            raise SecateurError(
                f"the model has no layer {name!r} with channels; "
                f"it has {', '.join(map(repr, found)) or 'none'}"
            )
    for name, value in own.items():
        check_density(f"overrides['{name}']", value)
    return skipped, own


def _rankable(model: nn.Module, example: Tensor, skipped: set[str]) -> dict[str, nn.Module]:
    """Layers of all sets that may lose channels, in the order of the model."""
    names: set[str] = set()
    for each in channel_sets(model, example):
        if not each.output and not each.fixed and not skipped & each.members.keys():
            names |= each.members.keys()
    layers = {name: m for name, m in prunable_layers(model).items() if name in names}
    for name, layer in layers.items():
        check_layer(name, layer)
    return layers


def _scores(each: ChannelSet, saliency: Mapping[str, Tensor]) -> Tensor:
    total = torch.zeros(each.channels, dtype=torch.float64)
    for name in sorted(each.members):
        filters = saliency[name].flatten(1).sum(dim=1, dtype=torch.float64).cpu()
        for channel, output in each.members[name]:
            total[channel] += filters[output]
    return total


def _counts(
    sets: list[ChannelSet],
    scores: list[Tensor],
    density: float,
    own: Mapping[str, float],
    scope: Scope,
    round_to: int,
) -> list[int]:
    wanted: list[float] = []
    for each in sets:
        named = [own[name] for name in each.members if name in own]
        if len(set(named)) > 1:
            raise SecateurError(
                f"layers {', '.join(map(repr, each.members))} share their channels; "
                "give them one density in overrides"
            )
        wanted.append((named[0] if named else density) * each.channels)
    if scope == "global":
        free = [i for i, s in enumerate(sets) if not own.keys() & s.members.keys()]
        share = [scores[i] / scores[i].mean().clamp(min=1e-300) for i in free]
        if free:
            joined = torch.cat(share)
            order = torch.sort(joined, descending=True, stable=True).indices
            kept = torch.zeros(len(joined), dtype=torch.bool)
            kept[order[: round(density * len(joined))]] = True
            parts = kept.split([len(part) for part in share])
            for i, part in zip(free, parts, strict=True):
                wanted[i] = int(part.sum())
    return [
        min(each.channels, max(1, round(count / round_to)) * round_to)
        for each, count in zip(sets, wanted, strict=True)
    ]


def _weakest(scores: Tensor, kept: int) -> list[int]:
    order = torch.sort(scores, descending=True, stable=True).indices
    return sorted(order[kept:].tolist())

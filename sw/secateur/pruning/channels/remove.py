"""Real removal of channels: the model gets narrower, with all layers that share the channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn

from secateur.capture.outputs import tensors_in
from secateur.errors import SecateurError
from secateur.fx.computed import copied
from secateur.pruning.channels.compensate import move_means
from secateur.pruning.channels.coupling import ChannelSet, channel_sets, make_plain
from secateur.pruning.criteria.criteria import Criterion, Magnitude
from secateur.pruning.criteria.probe import Inputs, called, evaluating
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
    """Widths per layer, and parameters of the whole model. ``str()`` is a table."""

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
    example: Inputs,
    *,
    density: float,
    criterion: Criterion | None = None,
    scope: Scope = "layer",
    round_to: int = 8,
    skip: Iterable[str] = (),
    overrides: Mapping[str, float] | None = None,
    compensate: Sequence[Inputs] | None = None,
) -> ChannelReport:
    """Remove whole output channels of a model, in place, and their inputs in all readers.

    Channels that residuals, depthwise layers or concatenations tie together go together, by the sum
    of their saliency. What the model returns keeps its channels, and so does what a grouped
    convolution (not depthwise) touches. Parameters are new: make the optimiser afterwards.

    Parameters
    ----------
    model : without masks
    example : inputs, batch included
    density : share of channels that stays in each set of tied channels, rounded to ``round_to``
    criterion : None: squares (L2 norm of filters); of equal channels the first stays
    scope : "layer": every set keeps that share; "global": all sets are ranked together, each
        set's saliencies divided by their mean
    round_to : channels left are a multiple of this, at least one; the N of the array
    skip : layers that keep their output channels, and with them the tied layers
    overrides : densities by name of layer, for its set
    compensate : inputs over which removed channels are averaged; their means move into the biases
        of the readers, see `secateur.pruning.channels.compensate`

    Raises
    ------
    SecateurError : an argument out of range, an unknown layer, masks, or frozen parameters; or the
        narrower model would not run, or have other widths. The model is then unchanged.
    """
    _check_arguments(density, scope, round_to)
    skipped, own = _check_names(model, skip, overrides)
    make_plain(model)
    layers = _rankable(model, example, skipped)
    rank = Magnitude(2) if criterion is None else criterion
    saliency = rank(model, layers) if layers else {}
    for name, layer in layers.items():
        check_saliency(name, layer, saliency.get(name))
    removal = _Removal(
        example, saliency, skipped, own, density=density, scope=scope, round_to=round_to,
        compensate=compensate,
    )  # fmt: skip
    removal.attempt(model)
    before, parameters = _widths(model), _parameters(model)
    removal.shrink(model)
    rows = tuple(LayerWidth(name, before[name], after) for name, after in _widths(model).items())
    return ChannelReport(rows, parameters, _parameters(model))


@dataclass(frozen=True, eq=False)
class _Removal:
    """Which channels go, in a model or in a copy of it. Arguments as of `remove_channels`."""

    example: Inputs
    saliency: Mapping[str, Tensor]
    skipped: set[str]
    own: Mapping[str, float]
    density: float
    scope: Scope
    round_to: int
    compensate: Sequence[Inputs] | None

    def choose(self, model: nn.Module) -> list[tuple[ChannelSet, list[int]]]:
        """The sets of channels that may shrink, and of each the channels that go."""
        sets = [s for s in channel_sets(model, self.example) if not s.output and not s.fixed]
        sets = [s for s in sets if not self.skipped & s.members.keys()]
        scores = [_scores(s, self.saliency) for s in sets]
        counts = self._counts(sets, scores)
        doomed = [_weakest(score, k) for score, k in zip(scores, counts, strict=True)]
        return list(zip(sets, doomed, strict=True))

    def shrink(self, model: nn.Module) -> None:
        """Remove the channels, in place."""
        chosen = self.choose(model)
        if self.compensate is not None:
            move_means(model, [s for s, _ in chosen], [d for _, d in chosen], self.compensate)
        for each, channels in chosen:
            if channels:
                each.group.prune(channels)

    def _counts(self, sets: list[ChannelSet], scores: list[Tensor]) -> list[int]:
        """Channels of each set that stay."""
        wanted: list[float] = []
        for each in sets:
            named = [self.own[name] for name in each.members if name in self.own]
            if len(set(named)) > 1:
                raise SecateurError(
                    f"layers {', '.join(map(repr, each.members))} share their channels; "
                    "give them one density in overrides"
                )
            wanted.append((named[0] if named else self.density) * each.channels)
        if self.scope == "global":
            free = [i for i, s in enumerate(sets) if not self.own.keys() & s.members.keys()]
            for i, count in zip(
                free, _global([scores[i] for i in free], self.density), strict=True
            ):
                wanted[i] = count
        return [
            min(each.channels, max(1, round(count / self.round_to)) * self.round_to)
            for each, count in zip(sets, wanted, strict=True)
        ]

    def attempt(self, model: nn.Module) -> None:
        """Shrink a copy; refuse what does not run, or does not have the widths that were chosen."""
        shapes = _shapes(model, self.example)
        trial = copied(model)
        widths = _widths(trial)
        for each, channels in self.choose(trial):
            for name, pairs in each.members.items():
                widths[name] -= sum(channel in set(channels) for channel, _ in pairs)
        try:
            self.shrink(trial)
            after = _shapes(trial, self.example)
        except SecateurError:
            raise
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            names = ", ".join(map(repr, self._culprits(model))) or "some layers"
            raise SecateurError(
                f"the model does not run with fewer channels of {names}: {reason}; name them in "
                f"skip"
            ) from None
        if after != shapes:
            new, old = next(both for both in zip(after, shapes, strict=True) if both[0] != both[1])
            raise SecateurError(
                f"the model would return shape {new} for {old}; "
                "name the layer that makes its output in skip"
            )
        for name, width in _widths(trial).items():
            if width != widths[name]:
                raise SecateurError(
                    f"layer {name!r} would keep {width} channels, not "
                    f"{widths[name]}: the model splits or folds them; name it in skip"
                )

    def _culprits(self, model: nn.Module) -> list[str]:
        """Layers of the sets that alone keep the model from running."""
        names: list[str] = []
        for index in range(len(self.choose(model))):
            trial = copied(model)
            each, channels = self.choose(trial)[index]
            try:
                if channels:
                    each.group.prune(channels)
                _shapes(trial, self.example)
            except Exception:  # whatever the model raises
                names += each.members
        return names


def _widths(model: nn.Module) -> dict[str, int]:
    """Output channels of every prunable layer."""
    return {name: len(weight_of(layer)) for name, layer in prunable_layers(model).items()}


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _check_arguments(density: float, scope: Scope, round_to: int) -> None:
    check_density("density", density)
    if scope not in get_args(Scope):
        raise SecateurError(f"scope must be 'layer' or 'global', not {scope!r}")
    if isinstance(round_to, bool) or not isinstance(round_to, int) or round_to < 1:
        raise SecateurError(f"round_to must be a positive integer, not {round_to!r}")


def _shapes(model: nn.Module, example: Inputs) -> list[tuple[int, ...]]:
    """Shapes of all tensors that the model returns."""
    with evaluating(model), torch.no_grad():
        return [tuple(found.shape) for found in tensors_in(called(model, example))]


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


def _rankable(model: nn.Module, example: Inputs, skipped: set[str]) -> dict[str, nn.Module]:
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


def _global(scores: list[Tensor], density: float) -> list[int]:
    """Channels of each set that stay if all are ranked together, by shares of their set's mean."""
    if not scores:
        return []
    joined = torch.cat([score / score.mean().clamp(min=1e-300) for score in scores])
    order = torch.sort(joined, descending=True, stable=True).indices
    kept = torch.zeros(len(joined), dtype=torch.bool)
    kept[order[: round(density * len(joined))]] = True
    return [int(part.sum()) for part in kept.split([len(score) for score in scores])]


def _weakest(scores: Tensor, kept: int) -> list[int]:
    order = torch.sort(scores, descending=True, stable=True).indices
    return sorted(order[kept:].tolist())

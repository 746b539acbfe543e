"""Weights that stay, fitted to the outputs of the dense model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.progress import Progress, silent
from secateur.pruning.criteria.columns import columns, inputs_of, rows, watched
from secateur.pruning.criteria.probe import (
    Batch,
    Inputs,
    called,
    check_batches,
    evaluating,
    wide,
    wide_weight,
)
from secateur.pruning.methods.norms import match_norms
from secateur.pruning.units.blocks import prunable_layers, weight_of
from secateur.pruning.units.mask import mask_of, parameter_of

#: Fits of each layer.
PASSES = 2
#: Pulls towards the weights as they are that are tried, as shares of the mean square of an input.
PULLS = (1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 10.0, math.inf)


def reconstruct(
    model: nn.Module,
    dense: nn.Module,
    batches: Sequence[Tensor | Batch],
    *,
    progress: Progress = silent,
) -> None:
    """Fit what pruning left of a model to the dense model, in place, without labels or training.

    Layer by layer, in the order in which they compute: the weights and the bias become those of the
    least squares between the layer's outputs, on the inputs that the pruned model gives it, and the
    outputs of the dense model, pulled towards what they were as far as it helps samples that the
    fit has not seen. Masks hold. Then batch norms get the outputs' means and deviations of the
    dense model. That changes the inputs of the layers behind them, so all is done twice. Layers
    without a mask are fitted as well, since their inputs have changed.

    Parameters
    ----------
    model : pruned, with masks
    dense : the same model before pruning; left as it is
    batches : a few hundred inputs, in batches, or (inputs, targets), of which the targets are not
        used
    progress : called after every layer, with its name as the note

    Raises
    ------
    SecateurError : no batches, or ``dense`` is another model

    References
    ----------
    He, Zhang, Sun, "Channel pruning for accelerating very deep neural networks", ICCV 2017, section
    3.1, for blocks.
    """
    check_batches("reconstruct", batches)
    inputs = inputs_of(batches)
    own, whole = prunable_layers(model), prunable_layers(dense)
    for name in own:
        if name not in whole or weight_of(own[name]).shape != weight_of(whole[name]).shape:
            raise SecateurError(
                f"reconstruct: layer '{name}' of the pruned model is not in the dense one, or has "
                f"another shape; give a copy of the model from before pruning"
            )
    order = _in_order(model, own, inputs[0])
    for first in range(0, PASSES * len(order), len(order)):
        for done, name in enumerate(order, first + 1):
            _fit(own[name], _equations(model, dense, own[name], whole[name], inputs))
            progress("reconstruct", done, PASSES * len(order), name)
        match_norms(model, dense, inputs)


def _in_order(model: nn.Module, layers: dict[str, nn.Module], x: Inputs) -> list[str]:
    """Names of the layers in the order of their first calls; those without a call are left out."""
    seen: dict[str, None] = {}
    note = watched(layers, lambda name, layer, x, y: seen.setdefault(name, None))
    with note, evaluating(model), torch.no_grad():
        called(model, x)
    return list(seen)


@dataclass(frozen=True)
class _Equations:
    """X^T X and X^T Y: X of the pruned model, with a column of ones for a bias, Y of the dense.

    Attributes
    ----------
    gram : float64 (groups, positions, positions)
    wanted : float64 (groups, positions, filters of a group)
    """

    gram: Tensor
    wanted: Tensor

    def __add__(self, other: _Equations) -> _Equations:
        return _Equations(self.gram + other.gram, self.wanted + other.wanted)


def _equations(
    model: nn.Module,
    dense: nn.Module,
    layer: nn.Module,
    whole: nn.Module,
    inputs: Sequence[Inputs],
) -> tuple[_Equations, _Equations]:
    """Of every other sample, and of those between."""
    outputs: list[Tensor] = []
    filters, *_ = weight_of(layer).shape
    groups = int(getattr(layer, "groups", 1))
    size = weight_of(layer)[0].numel() + (layer.bias is not None)
    halves = tuple(
        _Equations(
            torch.zeros(groups, size, size, dtype=torch.float64),
            torch.zeros(groups, size, filters // groups, dtype=torch.float64),
        )
        for _ in range(2)
    )

    def add(name: str, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        expected = outputs.pop(0)
        for first, half in enumerate(halves):
            if len(x) <= first:
                continue
            matrix = columns(layer, x[first::2])
            if layer.bias is not None:
                matrix = torch.cat([matrix, torch.ones_like(matrix[:, :, :1])], dim=2)
            across = matrix.transpose(1, 2)
            half.gram.add_(wide(across @ matrix))
            half.wanted.add_(wide(across @ rows(layer, expected[first::2])))

    keep = watched({"": whole}, lambda name, layer, x, y: outputs.append(y))
    with keep, watched({"": layer}, add), evaluating(model), evaluating(dense), torch.no_grad():
        for x in inputs:
            called(dense, x)
            called(model, x)
    return halves[0], halves[1]


def _fit(layer: nn.Module, halves: tuple[_Equations, _Equations]) -> None:
    """Set the weights and the bias of a layer to the solution.

    How far they are pulled towards the weights as they are is what serves samples best that a
    solution has not seen: each half judges the solutions of the other. Endless is a choice, too.
    """
    weight = wide_weight(layer).flatten(1)
    mask = mask_of(layer)
    kept = (
        torch.ones_like(weight, dtype=torch.bool)
        if mask is None
        else mask.mask.cpu().flatten(1) != 0
    )
    bias = layer.bias
    if isinstance(bias, Tensor):
        weight = torch.cat([weight, wide(bias)[:, None]], dim=1)
        kept = torch.cat([kept, torch.ones_like(kept[:, :1])], dim=1)

    def judged(pull: float) -> float:
        return sum(
            _error(_solution(weight, kept, fitted, pull), judge)
            for fitted, judge in (halves, halves[::-1])
        )

    pull = min(PULLS, key=judged)
    weight = _solution(weight, kept, halves[0] + halves[1], pull)
    parameter = parameter_of(layer)
    with torch.no_grad():
        if isinstance(bias, Tensor):
            bias.copy_(weight[:, -1])
            weight = weight[:, :-1]
        parameter.copy_(weight.reshape(parameter.shape))


def _error(weight: Tensor, equations: _Equations) -> float:
    """Squared error of a solution, less the square of what was wanted."""
    by_group = weight.unflatten(0, (len(equations.gram), -1)).transpose(1, 2)
    squares = (by_group * (equations.gram @ by_group)).sum()
    return float(squares - 2 * (by_group * equations.wanted).sum())


def _solution(weight: Tensor, kept: Tensor, equations: _Equations, pull: float) -> Tensor:
    """The least squares plus ``pull`` times the mean square of an input times the change.

    Filters that keep the same positions share one inverse.
    """
    if math.isinf(pull):
        return weight
    found, per_group = weight.clone(), len(weight) // len(equations.gram)
    alike: dict[tuple[int, bytes], list[int]] = {}
    for index, row in enumerate(kept):
        alike.setdefault((index // per_group, row.numpy().tobytes()), []).append(index)
    for (group, _), filters in alike.items():
        places = kept[filters[0]].nonzero()[:, 0]
        matrix = equations.gram[group][places][:, places]
        ridge = pull * matrix.diagonal().mean() + torch.finfo(matrix.dtype).tiny
        matrix = matrix + ridge * torch.eye(len(places), dtype=matrix.dtype)
        own = torch.tensor(filters)
        wanted = equations.wanted[group][places][:, own - group * per_group]
        right = wanted + ridge * weight[own[:, None], places].T
        found[own[:, None], places] = torch.linalg.solve(matrix, right).T
    return found

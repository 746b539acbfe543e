"""Filters in another order, moved in the model itself, with what shares or reads their channels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.utils._pytree import tree_map

from secateur.capture.outputs import tensors_in
from secateur.errors import SecateurError
from secateur.fx.computed import copied
from secateur.pruning.channels.coupling import ChannelSet, channel_sets, make_plain
from secateur.pruning.criteria.probe import Inputs, called, evaluating
from secateur.pruning.units.blocks import PRUNABLE, prunable_layers

_BY_CHANNEL = (nn.BatchNorm1d, nn.BatchNorm2d, nn.PReLU)
#: Difference that another order of summation may make in float64, as a share of the largest output.
_ROUNDING = 1e-9


def reorder(model: nn.Module, example: Inputs, orders: Mapping[str, Sequence[int]]) -> None:
    """Move output channels, in place: channel k becomes what was channel ``orders[name][k]``.

    What computes the same channels, or reads them, moves along, so the model computes what it
    computed. What the model returns keeps its order, and so does what a grouped convolution
    (not depthwise) touches.

    Parameters
    ----------
    model : changed in place
    example : inputs, batch included
    orders : per layer, as `secateur.pruning.channels.permute` finds them

    Raises
    ------
    SecateurError : an unknown layer; orders that are not permutations, or differ between layers
        that share channels; masks, frozen parameters; or a module among them cannot be reordered.
        The model is then unchanged.
    """
    unknown = orders.keys() - prunable_layers(model).keys()
    if unknown:
        raise SecateurError(f"the model has no layer {min(unknown)!r} with channels")
    make_plain(model)
    trial = copied(model)
    with torch.no_grad():
        try:
            _reorder(trial, example, orders)
        except (IndexError, KeyError, RuntimeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise SecateurError(f"filters that the model splits cannot move: {reason}") from None
        _compare(copied(model), copied(trial), example)
        model.load_state_dict(trial.state_dict())


def _compare(model: nn.Module, trial: nn.Module, example: Inputs) -> None:
    """Refuse a model whose outputs differ, on the example or on noise, in float64."""
    generator = torch.Generator().manual_seed(0)
    noise = tree_map(
        lambda x: torch.randn(x.shape, generator=generator, dtype=torch.float64), example
    )
    with evaluating(model), evaluating(trial), torch.no_grad():
        for x in (tree_map(torch.Tensor.double, example), noise):
            try:
                before, after = (tensors_in(called(m.cpu().double(), x)) for m in (model, trial))
            except Exception as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise SecateurError(
                    f"the model does not run, in float64, with its filters reordered: {reason}"
                ) from None
            for old, new in zip(before, after, strict=True):
                if not float((new - old).abs().max()) <= _ROUNDING * float(old.abs().max()):
                    raise SecateurError(
                        "the outputs of the model change when its filters are reordered"
                    )


def _reorder(model: nn.Module, example: Inputs, orders: Mapping[str, Sequence[int]]) -> None:
    with torch.enable_grad():
        sets = channel_sets(model, example)
    for each in sets:
        found = {tuple(orders[name]) for name in each.members if name in orders}
        if not found or each.output or each.fixed:
            continue
        order = found.pop()
        if found or sorted(order) != list(range(each.channels)):
            raise SecateurError(
                f"layers {', '.join(map(repr, each.members))} share {each.channels} channels: "
                f"give them one order, a permutation"
            )
        _move(each, order)


def _move(each: ChannelSet, order: Sequence[int]) -> None:
    modules: dict[int, nn.Module] = {}
    places: defaultdict[tuple[int, int], set[tuple[int, int]]] = defaultdict(set)
    for part in each.parts:
        module = part.module
        if isinstance(module, (*PRUNABLE, *_BY_CHANNEL)):
            reads = part.reads and isinstance(module, PRUNABLE)
            modules[id(module)] = module
            places[id(module), int(reads)] |= set(part.pairs)
        elif isinstance(module, nn.Parameter) or list(module.parameters()):
            raise SecateurError(f"channels that {module} uses cannot be reordered")
    for (key, dim), pairs in places.items():
        where: defaultdict[int, list[int]] = defaultdict(list)
        for channel, place in sorted(pairs):
            where[channel].append(place)
        _index(modules[key], dim, {k: where[old] for k, old in enumerate(order)}, where)


def _index(
    module: nn.Module, dim: int, old: Mapping[int, list[int]], new: Mapping[int, list[int]]
) -> None:
    """Fill the places ``new`` of each channel with what stands in ``old``: of outputs, ``dim`` 0,
    in all tensors of the module; of inputs in its weight."""
    tensors = [*module.parameters(), *module.buffers()]
    for tensor in [module.get_parameter("weight")] if dim else tensors:
        if tensor.dim() and tensor.shape[dim] > 1:  # one slope serves all
            source = torch.arange(tensor.shape[dim])
            for channel, places in new.items():
                source[places] = torch.tensor(old[channel])
            tensor.copy_(tensor.index_select(dim, source.to(tensor.device)))

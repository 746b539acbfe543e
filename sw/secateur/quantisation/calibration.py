"""Calibration data, in all forms that a user may give them, as calls of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from secateur.capture.export import batch_of, export, module_of
from secateur.capture.ports import (
    Call,
    arguments_needed,
    call_of,
    idle,
    inputs_of,
    tensors_of,
    without,
)
from secateur.capture.steps import Sequence
from secateur.errors import SecateurError

#: A tensor; arguments of a model in a tuple, list or dictionary; or batches of these.
Calibration = Any
Model = torch.nn.Module | ExportedProgram
#: Samples of a batch.
_BATCH = 64


def calibration_calls(model: Model, calibration: Calibration) -> list[Call]:
    """The calibration data as calls of the model; tensors are cut into batches of 64.

    Raises
    ------
    SecateurError : the data are empty, not floats, or not finite, or not what the model takes
    """
    module = module_of(model) if isinstance(model, ExportedProgram) else model
    if _is_one(module, calibration):
        whole = _called(module, calibration)
        _check_counts(whole)
        calls = _cut(whole, _BATCH)
    else:
        try:
            batches = list(calibration)
        except TypeError:
            batches = [calibration]
        calls = [_called(module, batch) for batch in batches]
    if not calls or any(x.numel() == 0 for call in calls for x in call.tensors):
        raise SecateurError("calibration: no samples; give a few dozen typical inputs")
    calls = [call.map(_in_float32) for call in calls]
    for call in calls:
        _check_counts(call)
        check_types(call, integers=True)
    return calls


def _in_float32(x: Any) -> Any:
    if not isinstance(x, torch.Tensor):
        return x
    if x.is_floating_point():
        return x.cpu().float()
    return x.cpu().long() if x.dtype == torch.int32 else x.cpu()


def _check_counts(call: Call) -> None:
    counts = [len(x) for x in call.tensors]
    if len(set(counts)) > 1:
        listed = ", ".join(f"{n!r} {count}" for n, count in zip(call.names, counts, strict=True))
        raise SecateurError(f"calibration: {listed} samples; give as many of each")


def check_types(call: Call, *, integers: bool) -> None:
    """Refuse what is not a finite float.

    Parameters
    ----------
    call : of a model
    integers : they pass, for what reads them is not known yet

    Raises
    ------
    SecateurError : there is something else
    """
    for index, x in enumerate(call.tensors):
        what = f"input {call.names[index]!r} " if len(call.tensors) > 1 else ""
        if integers and x.dtype == torch.int64:
            continue
        if x.dtype != torch.float32:
            found = f"{what}is {x.dtype}" if what else f"{x.dtype} data"
            raise SecateurError(f"calibration: {found}; give floats in model units")
        if not bool(torch.isfinite(x).all()):
            has = f"{what}has " if what else ""
            raise SecateurError(f"calibration: {has}infinite or NaN values; clean the data")


def _is_one(model: torch.nn.Module, calibration: Calibration) -> bool:
    """Whether data are one batch, and not batches: a list of tensors may be either."""
    if isinstance(calibration, torch.Tensor | Mapping):
        return True
    listed = isinstance(calibration, tuple | list)
    has_tensor = listed and any(isinstance(x, torch.Tensor) for x in calibration)
    return has_tensor and arguments_needed(model) > 1


def _called(model: torch.nn.Module, batch: Any) -> Call:
    if isinstance(batch, Call):
        return batch
    if not isinstance(batch, torch.Tensor | Mapping | tuple | list):
        raise SecateurError(
            f"calibration: give a torch tensor (torch.from_numpy makes one) or batches of "
            f"inputs alone, such as [x for x, y in loader], not {type(batch).__name__}"
        )
    try:
        return call_of(model, batch)
    except SecateurError as error:
        raise SecateurError(f"calibration: {error}") from None


def _cut(call: Call, size: int) -> list[Call]:
    """Calls of so many samples, the last of fewer."""
    starts = range(0, max(map(len, call.tensors)), size)
    return [call.map(itemgetter(slice(at, at + size))) for at in starts]


def cut_alike(graph: GraphModule, calls: list[Call]) -> list[Call]:
    """The same samples in batches that do not depend on those that the user gave: so sums are
    rounded alike. Batches of several shapes stay as they are.

    Parameters
    ----------
    graph : may be fixed to a batch, and then gets multiples of it
    calls : of it
    """
    flat = [pytree.tree_flatten((call.args, call.kwargs)) for call in calls]
    kinds = [
        (str(spec), [x.shape[1:] if isinstance(x, torch.Tensor) else repr(x) for x in leaves])
        for leaves, spec in flat
    ]
    if any(kind != kinds[0] for kind in kinds):
        return calls
    joined = [
        torch.cat(same) if isinstance(same[0], torch.Tensor) else same[0]
        for same in zip(*(leaves for leaves, _ in flat), strict=True)
    ]
    args, kwargs = pytree.tree_unflatten(joined, flat[0][1])
    fixed = batch_of(graph) or 1
    return _cut(Call(args, kwargs, calls[0].names), max(_BATCH // fixed, 1) * fixed)


def graph_of(model: Model, calls: list[Call]) -> tuple[GraphModule, list[Call]]:
    """The graph of a model, and its calls without optional arguments that it does not read."""
    graph = export(model, calls[0])
    calls = [fitted(model, graph, call) for call in calls]
    if len(inputs_of(graph)) > len(calls[0].tensors):
        graph = export(model, calls[0])
    return graph, calls


def fitted(model: Model, graph: torch.nn.Module, call: Call) -> Call:
    """A call of a model as one of its graph, which may lack optional arguments.

    Parameters
    ----------
    model : the model
    graph : of it
    call : of the model
    """
    if isinstance(model, ExportedProgram) or not isinstance(graph, GraphModule):
        return call
    unread = idle(model, graph)
    return without(model, call, unread) if unread else call


def samples_by_name(graph: GraphModule, calls: list[Call]) -> dict[str, list[torch.Tensor]]:
    """Batches of the inputs by their names; of the graph of a step, sequences of its first."""
    names = list(inputs_of(graph))[: len(calls[0].tensors)]
    each = [call.tensors if len(names) == 1 else tensors_of(graph, call) for call in calls]
    return {
        name: list(batches) for name, batches in zip(names, zip(*each, strict=True), strict=True)
    }


def parts(graph: GraphModule, call: Call) -> Iterator[Call]:
    """A batch, cut or repeated to the size of a graph with a fixed batch."""
    named = zip(inputs_of(graph).items(), tensors_of(graph, call), strict=True)
    for (name, node), x in named:
        wanted = tuple(int(n) for n in node.meta["val"].shape[1:])
        if tuple(x.shape[1:]) != wanted:
            raise SecateurError(
                f"calibration: samples of shape {tuple(x.shape[1:])}, the model takes {wanted}"
                + (f" for {name!r}" if len(call.tensors) > 1 else "")
            )
    size = batch_of(graph)
    if size is None:
        yield call
        return
    for start in range(0, len(call), size):
        at = torch.arange(start, start + size)
        at = torch.where(at < len(call), at, start)
        yield call.map(partial(torch.Tensor.index_select, dim=0, index=at))


def fed(
    graph: GraphModule, calls: list[Call], sequence: Sequence | None
) -> Iterator[list[list[torch.Tensor]]]:
    """What a graph is given, tensors in the order of its inputs: batch after batch, of each one
    entry, or one for each step.

    Parameters
    ----------
    graph : float, prepared or converted
    calls : of the model
    sequence : that runs the graph of a step; None for other graphs
    """
    for call in calls:
        if sequence is None:
            for part in parts(graph, call):
                yield [tensors_of(graph, part)]
            continue
        x, steps = call.one, []
        states = sequence.zeros(x)
        for step in x.unbind(1):
            steps.append([step, *states])
            _, *states = graph(step, *states)
        yield steps

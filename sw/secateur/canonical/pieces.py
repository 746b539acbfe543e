"""Functions of one number as pieces of a graph that share no node, and their affine ones."""

from __future__ import annotations

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from secateur.canonical.arithmetic import line
from secateur.canonical.samples import placed
from secateur.fx.functions import Function, elementwise, functions_of, is_number, values_of_codes
from secateur.fx.graph import Editor, active_nodes, aten, constant, is_trained, refuse, shape_of
from secateur.fx.moves import varying_nodes

#: Relative error of a function that is a line all the same.
_ROUNDING = 1e-6


def settle_numbers(editor: Editor) -> None:
    """Constants that are one number everywhere become that number; parameters stay."""
    gm = editor.gm
    active = active_nodes(gm)
    for node in list(gm.graph.nodes):
        if node not in active or node.op != "call_function" or not elementwise(node.target):
            continue
        for source in [n for n in node.all_input_nodes if n not in active and not is_number(n)]:
            if not isinstance(source.meta.get("val"), torch.Tensor) or is_trained(gm, source):
                continue
            value = constant(gm, source)
            others = [n.meta["val"].shape for n in node.all_input_nodes if n is not source]
            same = bool((value == value.reshape(-1)[0]).all()) if value.numel() else False
            if same and torch.broadcast_shapes(*others) == node.meta["val"].shape:
                with gm.graph.inserting_before(node):
                    number = value.reshape(-1)[0]
                    single = editor.attach("_number", number, trained=False, dtype=value.dtype)
                node.replace_input_with(source, single)


def part_functions(editor: Editor) -> dict[Node, Function]:
    """The functions of the graph, by their last nodes, each with nodes of its own; what does no
    more than clip is none.

    Raises
    ------
    SecateurError : one gives half or double precision, or no finite number at all
    """
    # From the last one on: it copies what it shares with those before, which stay as they are.
    for end, function in reversed(functions_of(editor.gm.graph).items()):
        _bound(editor, _part(editor, function))
        dtype = end.meta["val"].dtype
        if dtype.is_floating_point and dtype != torch.float32:
            raise refuse(end, f"computes in {dtype}", "compute in float32, cast nothing")
        if dtype != torch.float32:
            users = list(end.users)
            with editor.gm.graph.inserting_after(end):
                number = editor.call(aten.to.dtype, end, torch.float32, like=end)
            for user in users:
                user.replace_input_with(end, number)
    found = functions_of(editor.gm.graph)
    return {end: function for end, function in found.items() if not function.clips}


def _part(editor: Editor, function: Function) -> Function:
    """The function with copies of the nodes that others read, too."""
    own = {function.nodes[-1]}
    for node in reversed(function.nodes[:-1]):
        if own >= set(node.users):
            own.add(node)
    copies: dict[Node, Node] = {}
    for node in function.nodes:
        if node in own:
            node.args = map_arg(node.args, lambda n: copies.get(n, n))
            node.kwargs = map_arg(node.kwargs, lambda n: copies.get(n, n))
        else:
            with editor.gm.graph.inserting_after(node):
                copies[node] = editor.gm.graph.node_copy(node, lambda n: copies.get(n, n))
    return Function(function.argument, tuple(copies.get(node, node) for node in function.nodes))


def _bound(editor: Editor, function: Function) -> None:
    """Clip the argument to the values for which the function is defined.

    Raises
    ------
    SecateurError : there is none
    """
    probes, end = values_of_codes(), function.nodes[-1]
    found = function(probes)
    if not bool(found.isfinite().any()):
        raise refuse(end, "is not a finite number for any value", "check its constants")
    defined = probes[~found.isnan()]
    if len(defined) == len(probes):
        return
    bounds = float(defined.min()), float(defined.max())
    x, first = function.argument, function.nodes[0]
    with editor.gm.graph.inserting_before(first):
        clipped = editor.call(aten.clamp.default, x, *bounds, like=first)
    for node in function.nodes:
        node.replace_input_with(x, clipped)


def as_line(editor: Editor, function: Function) -> Node | None:
    """A function that is a line as a layer; None if it is none, and is looked up."""
    varying, nodes = varying_nodes(editor.gm.graph), function.nodes
    inputs = (source for node in nodes for source in node.all_input_nodes if source in varying)
    x = next(source for source in inputs if source not in nodes)
    found = _line(Function(x, nodes))
    if found is None:
        return None
    if found[0] == 0:
        number = editor.attach("_number", torch.tensor(found[1]), trained=False)
        return placed(editor, number, shape_of(nodes[-1]), nodes[-1])
    return line(editor, x, *found, like=nodes[-1], readers=frozenset(nodes))


def _line(function: Function) -> tuple[float, float] | None:
    """(a, b) of a function that is a * x + b for all codes of all scales; None if it is not."""
    zero, one = function(torch.tensor([0.0, 1.0], dtype=torch.float64)).double()
    slope = one - zero
    probes = values_of_codes().double()
    found, line = function(probes).double(), slope * probes + zero
    close = (found - line).abs() <= _ROUNDING * ((slope * probes).abs() + zero.abs())
    return (float(slope), float(zero)) if bool(close.all()) else None

"""Samples first: what a model computes with the batch in another dimension, (T, N, F).

Recurrent layers of PyTorch take time first, and return the states of several layers as (layers, N,
width). Moves may put the samples anywhere; only what is computed needs them first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from secateur.fx.functions import elementwise
from secateur.fx.graph import LINEAR, Editor, active_nodes, argument, aten, rank_of, shape_of
from secateur.fx.moves import is_move, is_size, samples_of

#: Work along the last dimension.
_PLAIN = (LINEAR, aten.dropout.default, aten.feature_dropout.default)
#: Work along the dimensions of their second argument.
_REDUCE = (aten.mean.dim, aten.sum.dim_IntList, aten.amax.default)
#: Constants: the value, or the argument that it is.
_FILLED: dict[object, float | int] = {
    aten.zeros.default: 0.0,
    aten.new_zeros.default: 0.0,
    aten.ones.default: 1.0,
    aten.new_ones.default: 1.0,
    aten.full.default: 1,
    aten.new_full.default: 2,
}


def samples_first(editor: Editor) -> None:
    """Permute what is computed of tensors with the samples in a later dimension."""
    for node in list(editor.gm.graph.nodes):
        if node.op != "call_function" or is_move(node) or is_size(node):
            continue
        at = {samples_of(source) for source in node.all_input_nodes} - {None}
        plain = elementwise(node.target) or node.target in _PLAIN
        if len(at) != 1 or not max(cast(set[int], at)) or not (plain or node.target in _REDUCE):
            continue
        with editor.gm.graph.inserting_before(node):
            result = _permuted(editor, node, cast(int, at.pop()))
        node.replace_all_uses_with(result)
        editor.gm.graph.erase_node(node)


def constants_of_samples(editor: Editor) -> None:
    """Constants of the batch's size, such as states to begin with, get a single sample."""
    first = next(node for node in editor.gm.graph.nodes if node.op == "placeholder")
    batch = first.meta["val"].shape[0]
    for node in list(editor.gm.graph.nodes):
        filled = _FILLED.get(node.target)
        if filled is None or rank_of(node) < 2 or node.meta["val"].shape[0] != batch:
            continue
        value = filled if isinstance(filled, float) else float(argument(node, filled, 0.0))
        with editor.gm.graph.inserting_before(node):
            one = editor.attach("_constant", torch.full((1, *shape_of(node)), value), trained=False)
        for user in list(node.users):
            if is_move(user):  # its own sizes may be those of all samples
                size = next(filter(is_size, node.all_input_nodes), batch)
                with editor.gm.graph.inserting_before(user):
                    user.replace_input_with(
                        node,
                        editor.call(aten.expand.default, one, [size, *shape_of(node)], like=node),
                    )
        node.replace_all_uses_with(one)
        editor.gm.graph.erase_node(node)
        _infer_again(editor)


def _infer_again(editor: Editor) -> None:
    """Sizes of what is computed of constants alone."""
    active = active_nodes(editor.gm)
    for node in editor.gm.graph.nodes:
        if node.op != "call_function" or node in active:
            continue
        args, kwargs = (map_arg(part, lambda n: n.meta["val"]) for part in (node.args, node.kwargs))
        with editor.mode, torch.no_grad():
            node.meta["val"] = cast(Callable[..., Any], node.target)(*args, **kwargs)


def _permuted(editor: Editor, node: Node, at: int) -> Node:
    """The node's operation on tensors with the samples first, permuted back."""

    def first(source: Node) -> Node:
        if samples_of(source) is None:
            return source
        order = [at, *(d for d in range(rank_of(source)) if d != at)]
        return editor.call(aten.permute.default, source, order, like=node)

    args = list(map_arg(node.args, first))
    if node.target in _REDUCE:
        rank, dims = rank_of(cast(Node, node.args[0])), cast(list[int], argument(node, 1, []))
        places = [d % rank for d in dims]
        args[1] = [0 if d == at else d + (d < at) for d in places]
        if not argument(node, 2, False):
            at -= sum(d < at for d in places)
    function = cast(Callable[..., Any], node.target)
    call = editor.call(function, *args, like=node)
    call.kwargs = node.kwargs
    back = [*range(1, at + 1), 0, *range(at + 1, rank_of(call))]
    return editor.call(aten.permute.default, call, back, like=node)

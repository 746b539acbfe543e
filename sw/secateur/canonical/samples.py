"""Sizes that are known become numbers, constants are made for one sample, and samples come first:
what a model computes with the batch in another dimension, (T, N, F).

Recurrent layers of PyTorch take time first, and return the states of several layers as (layers, N,
width). Moves may put the samples anywhere; only what is computed needs them first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch.fx import Node
from torch.fx.node import map_aggregate, map_arg

from secateur.fx.functions import elementwise
from secateur.fx.graph import (
    FLATTEN,
    LINEAR,
    VIEW,
    Editor,
    active_nodes,
    argument,
    aten,
    is_call,
    known,
    rank_of,
    shape_of,
)
from secateur.fx.moves import is_move, is_size, samples_of, size_of, sources_of, varying_nodes

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
    """Permute what is computed of tensors with the samples in a later dimension, and results."""
    for node in list(editor.gm.graph.nodes):
        if node.op != "call_function" or is_move(node) or is_size(node):
            continue
        if elementwise(node.target):
            _align(editor, node)
        at = {samples_of(source) for source in node.all_input_nodes} - {None}
        plain = elementwise(node.target) or node.target in _PLAIN
        if len(at) != 1 or not max(cast(set[int], at)) or not (plain or node.target in _REDUCE):
            continue
        with editor.gm.graph.inserting_before(node):
            result = _permuted(editor, node, cast(int, at.pop()))
        node.replace_all_uses_with(result)
        editor.gm.graph.erase_node(node)
    output = next(iter(editor.gm.graph.find_nodes(op="output")))
    for node in output.all_input_nodes:
        if later := samples_of(node):
            with editor.gm.graph.inserting_before(output):
                first = _brought_first(editor, node, later, node)
                output.replace_input_with(node, _brought_back(editor, first, later, node))


def _align(editor: Editor, node: Node) -> None:
    """Give what broadcasts all dimensions of the result, if it has the samples in a later one."""
    later = samples_of(node)
    for source in node.all_input_nodes if later else []:
        value = source.meta["val"]
        missing = rank_of(node) - value.dim() if isinstance(value, torch.Tensor) else 0
        # Of constants those matter that have dimensions up to that of the samples.
        if not missing or missing > cast(int, later):
            continue
        with editor.gm.graph.inserting_before(node):
            aligned = source
            for _ in range(missing):
                aligned = editor.call(aten.unsqueeze.default, aligned, 0, like=node)
        node.replace_input_with(source, aligned)


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
    """The node's operation on tensors with the samples first, permuted back.

    Other dimensions of size 1 in front are left out: (1, N, F) are vectors.
    """
    ones = 0
    if node.target not in _REDUCE:
        sizes = [known(size) for d, size in enumerate(node.meta["val"].shape) if d != at]
        ones = next((d for d, size in enumerate(sizes[:-1]) if size != 1), len(sizes) - 1)

    def first(source: Node) -> Node:
        fixed = elementwise(node.target) and rank_of(source) == rank_of(node)
        if samples_of(source) is None and not fixed:
            return source
        permuted = _brought_first(editor, source, at, node)
        for _ in range(ones):
            permuted = editor.call(aten.squeeze.dim, permuted, 1, like=node)
        return permuted

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
    for _ in range(ones):
        call = editor.call(aten.unsqueeze.default, call, 1, like=node)
    return _brought_back(editor, call, at, node)


def _brought_first(editor: Editor, x: Node, at: int, like: Node) -> Node:
    """The tensor with its dimension ``at`` first."""
    order = [at, *(d for d in range(rank_of(x)) if d != at)]
    return editor.call(aten.permute.default, x, order, like=like)


def _brought_back(editor: Editor, x: Node, at: int, like: Node) -> Node:
    """The tensor with its first dimension at ``at``."""
    order = [*range(1, at + 1), 0, *range(at + 1, rank_of(x))]
    return editor.call(aten.permute.default, x, order, like=like)


def settle_sizes(editor: Editor) -> None:
    """Sizes become numbers; what is left is that of the batch, which the input has."""
    graph = editor.gm.graph
    for node in list(graph.nodes):
        if not is_call(node, aten.sym_size.int):
            continue
        size = known(node.meta["val"])
        if size is not None:
            for user in list(node.users):
                user.args = _with(user.args, node, size)
            graph.erase_node(node)
        elif (batch := editor.batch()) is not node:
            node.replace_all_uses_with(batch)
            graph.erase_node(node)


def _with(args: Any, node: Node, value: int) -> Any:
    """Arguments with a number in a node's place."""
    return map_aggregate(args, lambda part: value if part is node else part)


def settle_constants(editor: Editor) -> None:
    """Constants of as many samples as the input become those of one; moves get all of them."""
    graph = editor.gm.graph
    varying, made = varying_nodes(graph), set[Node]()
    for node in list(graph.nodes):
        if node.op != "call_function" or is_size(node):
            continue
        if is_call(node, aten.expand_as.default) and node.args[0] not in varying:
            size = [1, *shape_of(node)]
            with graph.inserting_before(node):
                one = editor.call(aten.expand.default, node.args[0], size, like=node)
            node.replace_all_uses_with(one)
            graph.erase_node(node)
            made.add(one)
        elif node in varying:
            for source in sources_of(node) if is_move(node) else []:
                if source in made:
                    with graph.inserting_before(node):
                        every = placed(editor, source, shape_of(source), node)
                    node.replace_input_with(source, every)
        elif any(is_size(source) or source in made for source in node.all_input_nodes):
            made.add(node)
            node.args = _for_one(node.args)
            node.kwargs = _for_one(node.kwargs)
            values = map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
            with editor.mode, torch.no_grad():
                call = cast(Callable[..., Any], node.target)
                node.meta["val"] = call(*values[0], **values[1])


def _for_one(args: Any) -> Any:
    """Arguments with the sizes of a batch of one sample."""
    return map_aggregate(args, lambda part: size_of(cast(Node, part), 1) if is_size(part) else part)


def placed(editor: Editor, value: Node, shape: tuple[int, ...], like: Node) -> Node:
    """A constant as a tensor (N, *shape) that is stored.

    Parameters
    ----------
    editor : of the graph
    value : is broadcast
    shape : without samples
    like : the node that reads it
    """
    if value.meta["val"].dtype != torch.float32:
        value = editor.call(aten.to.dtype, value, torch.float32, like=like)
    samples = editor.gm.graph.find_nodes(op="placeholder")[0]
    flat = editor.call(FLATTEN, samples, 1, like=like) if rank_of(samples) > 2 else samples
    one = editor.call(aten.slice.Tensor, flat, 1, 0, 1, like=like)
    one = editor.call(cast(Callable[..., Any], VIEW), one, [-1, *[1] * len(shape)], like=like)
    sized = editor.call(aten.expand.default, one, [-1, *shape], like=like)
    return editor.call(aten.expand_as.default, value, sized, like=like)

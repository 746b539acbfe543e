"""Sizes of a graph: those that are known become numbers, and constants are made for one sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch.fx import Node
from torch.fx.node import map_aggregate, map_arg

from secateur.fx.graph import FLATTEN, VIEW, Editor, aten, is_call, known, rank_of, shape_of
from secateur.fx.moves import is_move, is_size, size_of, sources_of, varying_nodes


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

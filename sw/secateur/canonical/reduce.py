"""Means, sums and maxima over any dimensions, as convolutions with constant weights and pooling."""

from __future__ import annotations

import operator
import string
from collections.abc import Callable
from math import prod
from typing import Any, cast

import torch
from torch.fx import Node

from secateur.canonical.contract import contract
from secateur.canonical.resample import AVERAGE_WEIGHT
from secateur.fx.graph import (
    CAT,
    CONV,
    LINEAR,
    MAX_POOL,
    VIEW,
    Editor,
    argument,
    aten,
    is_call,
    rank_of,
    refuse,
    shape_of,
)

SUMS = (aten.sum.dim_IntList, aten.mean.dim)
_reshape = cast(Callable[..., Any], aten.reshape.default)
_linear = cast(Callable[..., Any], LINEAR)
_MAXIMA = (aten.amax.default, aten.max.dim)


def dimensions(node: Node) -> list[int]:
    """The dimensions that a reduction takes together, none of them the batch.

    Raises
    ------
    SecateurError : the batch is among them
    """
    rank = rank_of(cast(Node, node.args[0]))
    given = argument(node, 1, list(range(rank)))
    dims = sorted(int(d) % rank for d in (given if isinstance(given, list | tuple) else [given]))
    if 0 in dims:
        raise refuse(node, "takes the samples of a batch together", "reduce other dimensions")
    return dims


def reduce_sums(editor: Editor, node: Node) -> Node:
    """A mean or sum: of pixels a depthwise convolution, of channels one with a single filter."""
    x, dims = cast(Node, node.args[0]), dimensions(node)
    rank, shape = rank_of(x), shape_of(x)
    total = node.target is aten.sum.dim_IntList

    def value(count: int) -> float:
        return 1.0 if total else 1.0 / count

    if dims == [1] and _is_stack(x):  # vectors that lie side by side, as one
        flat = editor.call(_reshape, x, [-1, prod(shape)], like=node)
        rows = torch.eye(shape[1]).repeat(1, shape[0]) * value(shape[0])
        weight = editor.attach(AVERAGE_WEIGHT, rows, trained=False)
        x = editor.call(_linear, flat, weight, like=node)
        return editor.call(_reshape, x, [-1, *shape_of(node)], like=node)
    if rank > 4 and dims[-1] < rank - 2:
        every = string.ascii_lowercase[:rank]
        fill = torch.tensor(value(prod(shape[d - 1] for d in dims)))
        weight = editor.attach(AVERAGE_WEIGHT, fill, trained=False)
        labels = (every, "", "".join(c for i, c in enumerate(every) if i not in dims))
        x = contract(editor, x, weight, labels, like=node)
        return editor.call(_reshape, x, [-1, *shape_of(node)], like=node)
    if (rank in (3, 4) and rank - 1 in dims) or (rank == 4 and 2 in dims):
        x, shape = _as_map(editor, x, node)
        kernel = (shape[1] if rank == 4 and 2 in dims else 1, shape[2] if rank - 1 in dims else 1)
        fill = torch.full((shape[0], 1, *kernel), value(prod(kernel)))
        weight = editor.attach(AVERAGE_WEIGHT, fill, trained=False)
        x = editor.call(CONV, x, weight, None, list(kernel), [0, 0], [1, 1], shape[0], like=node)
    elif dims != [1]:
        x, shape = _reduced_last(editor, x, dims, node)
        fill = torch.full((shape[0], 1, 1, shape[2]), value(shape[2]))
        weight = editor.attach(AVERAGE_WEIGHT, fill, trained=False)
        x = editor.call(CONV, x, weight, None, [1, 1], [0, 0], [1, 1], shape[0], like=node)
        dims = []
    if 1 in dims:
        x, shape = _as_map(editor, x, node)
        fill = torch.full((1, shape[0], 1, 1), value(shape[0]))
        weight = editor.attach(AVERAGE_WEIGHT, fill, trained=False)
        x = editor.call(CONV, x, weight, None, [1, 1], [0, 0], [1, 1], 1, like=node)
    return editor.call(VIEW, x, [-1, *shape_of(node)], like=node)


def _is_stack(x: Node) -> bool:
    """Whether a tensor (N, T, F) consists of T vectors, or of parts of such ones."""
    if rank_of(x) != 3:
        return False
    if is_call(x, aten.stack.default):
        return int(argument(x, 1, 0)) % 3 == 1
    joined = is_call(x, CAT) and int(argument(x, 1, 0)) % 3 == 2
    return joined and all(_is_stack(part) for part in cast(list[Node], x.args[0]))


def reduce_maxima(editor: Editor) -> None:
    """amax and the values of max over any dimensions become max pooling."""
    for node in list(editor.gm.graph.nodes):
        values = node.target is operator.getitem and node.args[1] == 0
        source = node.args[0] if values else node
        if not is_call(source, *_MAXIMA) or (is_call(source, aten.max.dim) != values):
            continue
        with editor.gm.graph.inserting_before(node):
            x, dims = source.args[0], dimensions(source)
            rank = rank_of(x)
            if rank in (3, 4) and 1 not in dims:
                x, shape = _as_map(editor, x, source)
                kernel = [
                    shape[1] if rank == 4 and 2 in dims else 1, shape[2] if rank - 1 in dims else 1
                ]  # fmt: skip
            else:
                x, shape = _reduced_last(editor, x, dims, source)
                kernel = [1, shape[2]]
            pooled = editor.call(MAX_POOL, x, kernel, kernel, like=source)
            result = editor.call(VIEW, pooled, [-1, *shape_of(node)], like=source)
        node.replace_all_uses_with(result)
        editor.gm.graph.erase_node(node)
    editor.gm.graph.eliminate_dead_code()


def _as_map(editor: Editor, x: Node, like: Node) -> tuple[Node, tuple[int, int, int]]:
    """A tensor of three or four dimensions as (N, C, H, W), and that without N."""
    shape = shape_of(x)
    if rank_of(x) == 4:
        return x, cast(tuple[int, int, int], shape)
    size = (shape[0], prod(shape[1:-1]), shape[-1]) if len(shape) > 1 else (shape[0], 1, 1)
    return editor.call(VIEW, x, [-1, *size], like=like), size


def _reduced_last(
    editor: Editor, x: Node, dims: list[int], like: Node
) -> tuple[Node, tuple[int, int, int]]:
    """(N, K, 1, R): what is kept, and what is taken together."""
    kept = [d for d in range(1, rank_of(x)) if d not in dims]
    shape = shape_of(x)
    size = (prod(shape[d - 1] for d in kept), 1, prod(shape[d - 1] for d in dims))
    ordered = editor.call(aten.permute.default, x, [0, *kept, *dims], like=like)
    return editor.call(_reshape, ordered, [-1, *size], like=like), size

"""Average pooling as a depthwise convolution with a constant weight; amax as max pooling."""

from __future__ import annotations

import operator
from math import prod

import torch
from torch.fx import Node

from secateur.fx.graph import (
    CONV,
    FLATTEN,
    MAX_POOL,
    VIEW,
    Editor,
    argument,
    aten,
    is_call,
    pair,
    pool_window,
    rank_of,
    refuse,
    shape_of,
)

#: Prefix of the buffers that hold the constant: such a layer maps non-negative to non-negative.
AVERAGE_WEIGHT = "_average_weight"


def depthwise(editor: Editor, x: Node, scale: Node, bias: Node | None, *, like: Node) -> Node:
    """``scale[c] * x[c] + bias[c]`` as a depthwise 1x1 convolution.

    Parameters
    ----------
    editor : of the graph; inserts at its insertion point
    x : (N, C, ...)
    scale, bias : (C,) each; no bias if None
    like : the node that is replaced; its module path is inherited
    """
    channels, *outer = shape_of(x)
    weight = editor.call(VIEW, scale, [channels, 1, 1, 1], like=like)
    size = [channels, prod(outer[:-1]), outer[-1]] if outer else [channels, 1, 1]
    reshape = aten.reshape.default if outer else VIEW
    maps = x if rank_of(x) == 4 else editor.call(reshape, x, [-1, *size], like=like)
    result = editor.call(CONV, maps, weight, bias, [1, 1], [0, 0], [1, 1], channels, like=like)
    if rank_of(x) == 2:
        return editor.call(FLATTEN, result, 1, like=like)
    if rank_of(x) == 4:
        return result
    return editor.call(VIEW, result, [-1, channels, *outer], like=like)


def max_pooling(editor: Editor) -> None:
    """Adaptive max pooling and amax over the whole map become max pooling, if windows are even."""
    adaptive = (aten.adaptive_max_pool1d.default, aten.adaptive_max_pool2d.default)
    for node in list(editor.gm.graph.nodes):
        values = node.target is operator.getitem and node.args[1] == 0
        source = node.args[0] if values else node
        if not is_call(source, aten.amax.default, *([] if not values else adaptive)):
            continue
        x = source.args[0]
        rank, size = rank_of(x), shape_of(x)[1:]
        places = sorted(int(d) % rank for d in argument(source, 1, [])) if not values else []
        if rank not in (3, 4) or not (values or places == list(range(2, rank))):
            continue
        outputs = shape_of(node)[1:] if values else (1,) * len(size)
        if any(n % out for n, out in zip(size, outputs, strict=True)):
            continue
        kernel = [n // out for n, out in zip(size, outputs, strict=True)]
        with editor.gm.graph.inserting_before(node):
            pool = MAX_POOL if rank == 4 else aten.max_pool1d.default
            result = editor.call(pool, x, kernel, kernel, like=source)
            if rank_of(node) == 2:
                result = editor.call(FLATTEN, result, 1, like=source)
        node.replace_all_uses_with(result)
        editor.gm.graph.erase_node(node)
    editor.gm.graph.eliminate_dead_code()


def average(editor: Editor, node: Node) -> Node:
    """avg_pool2d, adaptive_avg_pool2d or mean over H and W as a depthwise convolution.

    Raises
    ------
    SecateurError : a mean over other dimensions, ceil_mode that adds to the map, padding that is
        not counted, or uneven windows
    """
    x = node.args[0]
    assert isinstance(x, Node)
    if rank_of(x) != 4:
        raise refuse(node, f"average of a {rank_of(x)}-D tensor", "average maps (N, C, H, W)")
    channels, height, width = shape_of(x)
    stride = padding = (0, 0)
    divisor = 0
    if node.target is aten.avg_pool2d.default:
        window = pool_window(node, (height, width))
        kernel, stride, padding = window.kernel, window.stride, window.padding[:2]
        if window.padding[2:] != padding:
            raise refuse(
                node,
                "ceil_mode=True, and windows that reach out of the map, which divide by less",
                "pad explicitly and use ceil_mode=False",
            )
        if any(padding) and len(node.args) > 5 and not node.args[5]:
            raise refuse(node, "count_include_pad=False with padding", "use count_include_pad=True")
        divisor = int(argument(node, 6, 0))
    else:
        rows, columns = pair(node.args[1])
        if height % rows or width % columns:
            raise refuse(
                node,
                f"adaptive average from {height}x{width} to {rows}x{columns} has uneven windows",
                "use AvgPool2d, or an output size that divides the input's",
            )
        kernel = stride = (height // rows, width // columns)
    value = 1.0 / (divisor or kernel[0] * kernel[1])
    weight = editor.attach(AVERAGE_WEIGHT, torch.full((channels, 1, *kernel), value), trained=False)
    return editor.call(
        CONV, x, weight, None, list(stride), list(padding), [1, 1], channels, like=node
    )

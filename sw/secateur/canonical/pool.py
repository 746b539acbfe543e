"""Average pooling as a depthwise convolution with a constant weight; amax as max pooling."""

from __future__ import annotations

import operator
from math import prod

import torch
from torch.fx import Node

from secateur.canonical.resample import AVERAGE_WEIGHT, resampled
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
    shape_of,
)


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
    inner = prod(outer[:-2])  # maps of one channel, side by side
    size = [channels * inner, *([1, 1, *outer][-2:])]
    if inner > 1:
        spread = aten.repeat_interleave.self_int
        scale = editor.call(spread, scale, inner, like=like)
        bias = bias and editor.call(spread, bias, inner, like=like)
    weight = editor.call(VIEW, scale, [size[0], 1, 1, 1], like=like)
    reshape = aten.reshape.default if outer else VIEW
    maps = x if rank_of(x) == 4 else editor.call(reshape, x, [-1, *size], like=like)
    result = editor.call(CONV, maps, weight, bias, [1, 1], [0, 0], [1, 1], size[0], like=like)
    if rank_of(x) == 2:
        return editor.call(FLATTEN, result, 1, like=like)
    if rank_of(x) == 4:
        return result
    return editor.call(VIEW, result, [-1, channels, *outer], like=like)


def max_pooling(editor: Editor) -> None:
    """Adaptive max pooling and amax over the whole map become max pooling."""
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
        kernel = [n // out for n, out in zip(size, outputs, strict=True)]
        with editor.gm.graph.inserting_before(node):
            pool = MAX_POOL if rank == 4 else aten.max_pool1d.default
            if any(n % out for n, out in zip(size, outputs, strict=True)):
                result = _uneven(editor, x, node)
            else:
                result = editor.call(pool, x, kernel, kernel, like=source)
            if rank_of(node) == 2:
                result = editor.call(FLATTEN, result, 1, like=source)
        node.replace_all_uses_with(result)
        editor.gm.graph.erase_node(node)
    editor.gm.graph.eliminate_dead_code()


def _uneven(editor: Editor, x: Node, node: Node) -> Node:
    """Adaptive max pooling of maps or signals, by windows that differ."""
    size = (1, 1, *shape_of(x)[1:])[-2:]
    maps = editor.call(VIEW, x, [-1, shape_of(x)[0], *size], like=node)
    outputs = list((1, 1, *shape_of(node)[1:])[-2:])
    windows = editor.call(aten.adaptive_avg_pool2d.default, maps, outputs, like=node)
    found = resampled(editor, windows, maximum=True)
    return editor.call(VIEW, found, [-1, *shape_of(node)], like=node)


def average(editor: Editor, node: Node) -> Node:
    """avg_pool2d, adaptive_avg_pool2d or mean over H and W as a depthwise convolution.

    What divides by less at the edges, and uneven windows, are left to regions.
    """
    x = node.args[0]
    assert isinstance(x, Node)
    channels, height, width = shape_of(x)
    stride = padding = (0, 0)
    divisor = 0
    if node.target is aten.avg_pool2d.default:
        window = pool_window(node, (height, width))
        kernel, stride, padding = window.kernel, window.stride, window.padding[:2]
        divisor = int(argument(node, 6, None) or 0)
        counted = not any(padding) or argument(node, 5, True) or divisor
        if window.padding[2:] != padding or not counted:
            return resampled(editor, node)
    else:
        rows, columns = pair(node.args[1])
        if height % rows or width % columns:
            return resampled(editor, node)
        kernel = stride = (height // rows, width // columns)
    value = 1.0 / (divisor or kernel[0] * kernel[1])
    weight = editor.attach(AVERAGE_WEIGHT, torch.full((channels, 1, *kernel), value), trained=False)
    return editor.call(
        CONV, x, weight, None, list(stride), list(padding), [1, 1], channels, like=node
    )

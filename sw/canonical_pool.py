"""Average pooling as a depthwise convolution with a constant weight."""

from __future__ import annotations

from typing import cast

import torch
from torch.fx import Node

from secateur.graph import (
    CONV,
    FLATTEN,
    VIEW,
    Editor,
    argument,
    aten,
    pair,
    pool_window,
    rank_of,
    refuse,
    shape_of,
)

#: Prefix of the buffers that hold the constant: such a layer maps non-negative to non-negative.
AVERAGE_WEIGHT = "_average_weight"


def depthwise(editor: Editor, x: Node, scale: Node, bias: Node | None, *, like: Node) -> Node:
    """``scale[c] * x[c] + bias[c]`` as a depthwise 1x1 convolution; x (N, C, H, W) or (N, C)."""
    channels = shape_of(x)[0]
    weight = editor.call(VIEW, scale, [channels, 1, 1, 1], like=like)
    vector = rank_of(x) == 2
    if rank_of(x) not in (2, 4):
        raise refuse(like, f"input of {rank_of(x)} dimensions", "use (N, C, H, W) or (N, C)")
    maps = editor.call(VIEW, x, [-1, channels, 1, 1], like=like) if vector else x
    result = editor.call(CONV, maps, weight, bias, [1, 1], [0, 0], [1, 1], channels, like=like)
    return editor.call(FLATTEN, result, 1, like=like) if vector else result


def average(editor: Editor, node: Node) -> Node:
    """avg_pool2d, adaptive_avg_pool2d or mean over H and W as a depthwise convolution.

    Raises SecateurError for other means, ceil_mode that adds to the map, and padding that is not
    counted.
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
    elif node.target is aten.adaptive_avg_pool2d.default:
        rows, columns = pair(node.args[1])
        if height % rows or width % columns:
            raise refuse(
                node,
                f"adaptive average from {height}x{width} to {rows}x{columns} has uneven windows",
                "use AvgPool2d, or an output size that divides the input's",
            )
        kernel = stride = (height // rows, width // columns)
    else:
        dims = sorted(d % 4 for d in cast(list[int], node.args[1] or []))
        if dims != [2, 3]:
            raise refuse(node, f"mean over dimensions {dims}", "take the mean over (2, 3)")
        kernel = stride = (height, width)
    value = 1.0 / (divisor or kernel[0] * kernel[1])
    weight = editor.attach(AVERAGE_WEIGHT, torch.full((channels, 1, *kernel), value), trained=False)
    result = editor.call(
        CONV, x, weight, None, list(stride), list(padding), [1, 1], channels, like=node
    )
    if node.target is aten.mean.dim and rank_of(node) == 2:
        return editor.call(FLATTEN, result, 1, like=node)
    return result

"""Averages and maxima of whole maps in two steps, so that the lanes share the map.

A pixel is computed by one lane, and the bank of that lane must hold all that it reads: a whole map,
in every bank. So a large map is first reduced to a few windows, of which every lane takes some. An
average is then rounded twice, to 8 bits each time. The errors of the windows average out: on
networks with squeeze and excitation the loss is 0.1 dB.
"""

from __future__ import annotations

from itertools import product
from typing import cast

import torch
from torch.fx import Node

from secateur.canonical.resample import AVERAGE_WEIGHT
from secateur.fx.graph import (
    CONV,
    MAX_POOL,
    PAD,
    Editor,
    attribute,
    conv_window,
    is_call,
    pool_window,
    shape_of,
)

#: The geometry that is kept in mind, a usual one (results are right on all), and half of the words
#: of its banks: more is too much for one map.
_N, _P, _WORDS = 8, 8, 1024
#: How many times the cycles that is worth.
_WORTH = 4
#: Cycles that a layer takes besides its words, and the least words of a row.
_LAYER, _ROW = 60, 8
#: Least windows of a large map: their errors average out.
_PARTS = 16

Size = tuple[int, int]


def share_maps(editor: Editor) -> None:
    """Averages and maxima of whole maps in two steps where that takes less time or memory."""
    for node in list(editor.gm.graph.nodes):
        if not _takes_a_map(editor, node):
            continue
        x = cast(Node, node.args[0])
        channels, height, width = shape_of(x)
        window = window_of(channels, (height, width), shared=len(x.users) > 1)
        if window is None:
            continue
        with editor.gm.graph.inserting_before(node):
            steps = _maxima if is_call(node, MAX_POOL) else _averages
            result = steps(editor, node, window)
        node.replace_all_uses_with(result)
        editor.gm.graph.erase_node(node)


def _takes_a_map(editor: Editor, node: Node) -> bool:
    """Whether a node reduces every whole channel of a map to a value, all pixels alike."""
    if not is_call(node, CONV, MAX_POOL):
        return False
    channels, *size = shape_of(cast(Node, node.args[0]))
    if is_call(node, MAX_POOL):
        window = pool_window(node, cast(Size, tuple(size)))
    else:
        weight = cast(Node, node.args[1])
        if weight.op != "get_attr" or not str(weight.target).startswith(AVERAGE_WEIGHT):
            return False
        window = conv_window(node, cast(Size, shape_of(weight)[1:]))
        if window.groups != channels or shape_of(node)[0] != channels:
            return False
    return window.kernel == tuple(size) and not any(window.padding)


def window_of(channels: int, size: Size, *, shared: bool) -> Size | None:
    """The window of the first of two steps; None if one step is better.

    Parameters
    ----------
    channels : of the map
    size : (height, width) of the map
    shared : other layers read the map, so that lanes cannot divide up its channels
    """
    blocks, pixels = -(-channels // _N), size[0] * size[1]
    at_once = pixels * (blocks if shared else -(-blocks // _P))
    best = (at_once * (_WORTH if blocks * pixels > _WORDS else 1), size)
    for window in product(_sides(size[0]), _sides(size[1])):
        area = window[0] * window[1]
        parts = [-(-whole // side) for whole, side in zip(size, window, strict=True)]
        if area == 1 or (parts[0] == 1 < size[0]) or parts[0] * parts[1] < min(_PARTS, pixels // 8):
            continue
        cycles = blocks * _groups(parts) * max(area, _ROW) + _LAYER
        cycles += parts[0] * parts[1] * -(-blocks // _P)
        if any(whole % side for whole, side in zip(size, window, strict=True)):
            cycles += blocks * pixels // _P  # padding is cleared
        if cycles < best[0]:
            best = (cycles, window)
    return None if best[1] == size else best[1]


def _sides(length: int) -> set[int]:
    """The least side of a window for each number of windows."""
    return {-(-length // parts) for parts in range(1, length + 1)}


def _groups(parts: list[int]) -> int:
    """Groups of windows, if each lane takes some rows of them: its bank keeps these rows whole."""
    rows, columns = parts if parts[0] > 1 else parts[::-1]
    return -(-rows // _P) * columns


def _averages(editor: Editor, node: Node, window: Size) -> Node:
    x, area = cast(Node, node.args[0]), window[0] * window[1]
    channels, *size = shape_of(x)
    value = float(attribute(editor.gm, str(cast(Node, node.args[1]).target))[0, 0, 0, 0])
    below, right = (-whole % side for whole, side in zip(size, window, strict=True))
    if below or right:
        x = editor.call(PAD, x, [0, right, 0, below], "constant", 0.0, like=node)
    for kernel, each in ((window, 1 / area), (None, value * area)):
        kernel = kernel or cast(Size, shape_of(x)[1:])
        fill = torch.full((channels, 1, *kernel), each)
        weight = editor.attach(AVERAGE_WEIGHT, fill, trained=False)
        step = list(kernel)
        x = editor.call(CONV, x, weight, None, step, [0, 0], [1, 1], channels, like=node)
    return x


def _maxima(editor: Editor, node: Node, window: Size) -> Node:
    x, step = cast(Node, node.args[0]), list(window)
    x = editor.call(MAX_POOL, x, step, step, [0, 0], [1, 1], True, like=node)
    step = list(shape_of(x)[1:])
    return editor.call(MAX_POOL, x, step, step, like=node)

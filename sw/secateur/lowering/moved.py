"""Layers that read or write what moves have made: grids of products, copies."""

from __future__ import annotations

from typing import cast

import numpy as np
from torch.fx import Node

from secateur.fx.graph import Window, conv_window
from secateur.hw.spec import BIAS_FRACTION
from secateur.ir import Ints
from secateur.lowering.draft import DraftLayer, DraftSource, is_linear
from secateur.lowering.store import Grid, Store
from secateur.lowering.views import Copy, as_map
from secateur.quantisation.match import Operand


def copy_layer(copy: Copy, output: Store, spare: Store) -> DraftLayer:
    """The layer of a copy.

    Parameters
    ----------
    copy : of some pixels
    output : is written
    spare : is read, times zero, if all is constant
    """
    store, region = copy.store or spare, copy.region
    used = copy.channels >= 0
    rows, columns = copy.rows[used], copy.columns[used]
    top, left = int(rows.min(initial=store.height)), int(columns.min(initial=store.width))
    if not used.any():
        top = left = 0
    kernel = (int(rows.max(initial=top)) - top + 1, int(columns.max(initial=left)) - left + 1)
    bottom, right = (
        first + (count - 1) * step + size - extent
        for first, count, step, size, extent in zip(
            (top, left), (region.height, region.width), copy.steps, kernel,
            (store.height, store.width), strict=True,
        )
    )  # fmt: skip
    window = Window(kernel, copy.steps, (-top, -left, bottom, right), (1, 1))
    every = np.arange(store.channels)
    if kernel == (1, 1) and np.array_equal(copy.channels, every):
        source = DraftSource(store, "lanewise", np.ones((len(every), 1, 1), np.int64), window)
    else:
        weight = np.zeros((len(copy.channels), store.channels, *kernel), np.int64)
        (outputs,) = np.nonzero(used)
        weight[outputs, copy.channels[used], rows - top, columns - left] = 1
        source = DraftSource(store, "broadcast", weight, window)
    bias = np.where(used, 0, copy.constants << BIAS_FRACTION)
    scale = output.scale
    none = np.zeros(len(copy.channels), np.int64)
    return DraftLayer("copy", [source], output, bias, none, scale.low, scale.high, [], None, region)


def gridded(operand: Operand, grid: Grid, codes: Ints, shape: tuple[int, ...]) -> DraftSource:
    """A convolution or linear that reads a grid: channels by the columns of its weights.

    Parameters
    ----------
    operand : the product
    grid : where its values are
    codes : its weights, (outputs, inputs, ...)
    shape : of what it reads, without samples
    """
    store = grid.store
    if is_linear(operand):
        weight = np.zeros((len(codes), *store.size), np.int64)
        weight[:, grid.channels, grid.rows, grid.columns] = codes
        window = Window((store.height, store.width), (1, 1), (0, 0, 0, 0), (1, 1))
        return DraftSource(store, "broadcast", weight, window)
    own = conv_window(cast(Node, operand.product), (codes.shape[2], codes.shape[3]))
    lanewise = codes.shape[1] == 1 < len(grid.channels)
    weight = codes[:, 0]
    if not lanewise:
        weight = np.zeros((len(codes), store.channels, *codes.shape[2:]), np.int64)
        weight[:, grid.channels] = codes
    padding = [a + b for a, b in zip(own.padding, operand.padding, strict=True)]
    before, after = [], []
    for axis, (first, size) in enumerate(
        ((int(grid.rows[0]), store.height), (int(grid.columns[0]), store.width))
    ):
        step, extent = grid.steps[axis], shape[-2 + axis]
        before.append(padding[axis] * step - first)
        # So that there are as many outputs: the last window ends where it is cut.
        span = own.dilation[axis] * (own.kernel[axis] - 1)
        count = (extent + padding[axis] + padding[axis + 2] - span - 1) // own.stride[axis]
        last = (count * own.stride[axis] + span) * step - before[axis]
        after.append(last - (size - 1))
    stride, dilation = (
        (pair[0] * grid.steps[0], pair[1] * grid.steps[1]) for pair in (own.stride, own.dilation)
    )
    window = Window(own.kernel, stride, (before[0], before[1], after[0], after[1]), dilation)
    return DraftSource(store, "lanewise" if lanewise else "broadcast", weight, window)


def trimmed(grid: Grid, shape: tuple[int, ...]) -> Window:
    """The window of one pixel at a time over a grid of all channels.

    Parameters
    ----------
    grid : where the values are
    shape : of the values, without samples
    """
    store, (_, *counts) = grid.store, as_map(shape)
    top, left = int(grid.rows[0]), int(grid.columns[0])
    bottom, right = (
        first + (count - 1) * step + 1 - size
        for first, count, step, size in zip(
            (top, left), counts, grid.steps, (store.height, store.width), strict=True
        )
    )
    return Window((1, 1), grid.steps, (-top, -left, bottom, right), (1, 1))


def _read_states_first(layers: list[DraftLayer], maker: DraftLayer) -> None:
    """Bring copies of states into the map that a layer writes before it: a history moves, and then
    gets its newest column."""
    made = {layer.output for layer in layers}
    for layer in layers[layers.index(maker) + 1 :]:
        of_state = layer.kind == "copy" and layer.output is maker.output
        if of_state and not any(s.store in made or s.store.fixed for s in layer.sources):
            layers.remove(layer)
            layers.insert(layers.index(maker), layer)


def written_in_place(layers: list[DraftLayer], kept: set[Store]) -> list[DraftLayer]:
    """The layers without copies of what one layer makes and nobody else reads: it writes there.

    ``kept`` are stores that must stay what they are.
    """
    layers = list(layers)
    for copy in [layer for layer in layers if layer.kind == "copy"]:
        source, region = copy.sources[0], copy.region
        store = source.store
        size = None if region is None else (region.height, region.width)
        extents = zip(source.window.stride, (store.height, store.width), strict=True)
        whole = source.mode == "lanewise" and all(s == 1 or n == 1 for s, n in extents)
        whole = whole and size in (None, (store.height, store.width))
        makers = [layer for layer in layers if layer.output is store]
        readers = [s for layer in layers for s in layer.sources if s.store in (store, *store.parts)]
        alone = len(makers) == 1 and len(readers) == 1 and store.parent is None
        if whole and alone and store not in kept and makers[0].region is None:
            makers[0].output, makers[0].region = copy.output, region
            layers.remove(copy)
            _read_states_first(layers, makers[0])
    return layers

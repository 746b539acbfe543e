"""The blocks of weights that stayed: rows x positions, and their density over a layer's axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from secateur.errors import SecateurError
from secateur.image.decode import Weights, decode
from secateur.image.image import Image
from secateur.report.figures import figure
from secateur.report.figures.cycles import layers_of
from secateur.report.figures.figure import AXIS, Cell, Figure, counted, drawing, percent, style

_KEPT = [[0, "rgba(128, 128, 128, 0.25)"], [1, figure.BLUE]]
#: Cells of a picture; of larger layers, neighbouring positions share one.
_MOST = 1 << 16
#: Weights of the largest layer.
_LARGEST = 1 << 28


def blocks(image: Image, layer: int, weights: Weights | None = None) -> Figure:
    """The blocks of a layer that are stored, as a picture of block rows x positions.

    Parameters
    ----------
    image : with metadata
    layer : number of the layer, which has weights
    weights : of the layer, if the image is decoded already

    Raises
    ------
    SecateurError : the layer has no weights, or the stream and the metadata contradict each other
    """
    found = weights or weights_of(image, layer)
    kept = kept_blocks(found, image.n)
    shown, step = _picture(kept)
    trace = go.Heatmap(
        z=shown, zmin=0, zmax=1, colorscale=_KEPT, showscale=False, dx=step,
        hovertemplate="block row %{y}, position %{x}: %{z}<extra></extra>",
    )  # fmt: skip
    across = "position: channel x kernel row x kernel column"
    plot = drawing(trace, x=across, y="block row", height=min(600, 160 + 14 * len(kept)))
    plot.update_yaxes(counted(len(kept)), autorange="reversed")
    rows, most = kept.sum(axis=1), kept.shape[1]
    text = (
        f"{int(kept.sum()):,} of {kept.size:,} blocks of {image.n} x 1 are stored, "
        f"{percent(int(kept.sum()), kept.size)}. The emptiest block row keeps {int(rows.min()):,} "
        f"of {most:,} positions, the fullest {int(rows.max()):,}."
        + (f" A cell of the picture is {step} positions." if step > 1 else "")
    )
    cells: list[tuple[Cell, ...]] = [
        (row, int(count), most, percent(int(count), most)) for row, count in enumerate(rows)
    ]
    columns = ("block row", "kept", "positions", "density")
    title = "Blocks that are stored"
    return Figure(f"blocks-{layer}", title, text, columns, cells, plot, layer)


def density(image: Image, layer: int, weights: Weights | None = None) -> Figure:
    """Density of a layer's blocks by position in the kernel, and by input channel.

    Parameters
    ----------
    image, layer, weights : as of `blocks`

    Raises
    ------
    SecateurError : as of `blocks`
    """
    found = weights or weights_of(image, layer)
    kept = kept_blocks(found, image.n)
    height, width = found.shape[-2:] if found.mode != "broadcast" else found.shape[2:]
    kernel = kept.reshape(len(kept), -1, height, width)
    by_tap, by_channel = kernel.mean(axis=(0, 1)), kernel.mean(axis=(0, 2, 3))
    plot = make_subplots(rows=2, cols=1, vertical_spacing=0.28, row_heights=[0.5, 0.5])
    plot.update_layout(style(520), showlegend=False)
    plot.update_xaxes(AXIS)
    plot.update_yaxes(AXIS)
    plot.add_trace(_taps(by_tap), row=1, col=1)
    plot.update_xaxes(title="kernel column", dtick=1, row=1, col=1)
    plot.update_yaxes(title="kernel row", dtick=1, autorange="reversed", row=1, col=1)
    plot.add_trace(go.Bar(y=by_channel, marker={"color": figure.BLUE}), row=2, col=1)
    plot.update_xaxes(counted(len(by_channel)), title="input channel", row=2, col=1)
    plot.update_yaxes(title="density", range=[0, 1], tickformat=".0%", row=2, col=1)
    empty = int((by_channel == 0).sum())
    text = (
        f"By kernel position the density lies between {by_tap.min():.1%} and {by_tap.max():.1%}, "
        f"by input channel between {by_channel.min():.1%} and {by_channel.max():.1%}. "
        f"{empty} of {len(by_channel)} input channels are not read at all."
    )
    rows: list[tuple[Cell, ...]] = [
        (f"kernel row {y}, column {x}", f"{by_tap[y, x]:.1%}")
        for y in range(height)
        for x in range(width)
    ]
    rows += [(f"input channel {c}", f"{value:.1%}") for c, value in enumerate(by_channel)]
    title = "Density by kernel position and channel"
    return Figure(f"density-{layer}", title, text, ("where", "density"), rows, plot, layer)


def _taps(by_tap: npt.NDArray[np.float64]) -> go.Heatmap:
    return go.Heatmap(
        z=by_tap, zmin=0, zmax=1, colorscale="Blues", colorbar={"len": 0.5, "y": 0.78},
        hovertemplate="kernel row %{y}, column %{x}: %{z:.1%}<extra></extra>",
    )  # fmt: skip


def weights_of(image: Image, layer: int) -> Weights:
    """The weights of a layer; of several sources those of the first.

    Raises
    ------
    SecateurError : as of `blocks`
    """
    name = layers_of(image)[layer]["name"]
    found = weights_by_layer(image)
    if layer in found:
        return found[layer]
    raise SecateurError(f"{image.name}: layer {name!r} has no weights in the stream")


def weights_by_layer(image: Image) -> dict[int, Weights]:
    """Weights of every layer that has any, by its number; of several sources those of the first."""
    numbers = {layer["name"]: at for at, layer in enumerate(layers_of(image))}
    found: dict[int, Weights] = {}
    for weights in decode(image, apart=False):
        if len(weights.shape) != (4 if weights.mode == "broadcast" else 3):
            raise SecateurError(
                f"{image.name}: weights of layer {weights.layer!r} have {len(weights.shape)} "
                f"dimensions; compile the model again"
            )
        found.setdefault(numbers[weights.layer], weights)
    return found


def kept_blocks(weights: Weights, n: int) -> npt.NDArray[np.bool_]:
    """(block rows, positions): whether a block is stored."""
    matrix: Any = weights.matrix
    if matrix.shape[0] * matrix.shape[1] > _LARGEST:
        raise SecateurError(
            f"layer {weights.layer!r}: {matrix.shape[0]:,} x {matrix.shape[1]:,} weights are more "
            f"than a picture shows ({_LARGEST:,})"
        )
    kept = np.zeros((matrix.shape[0] // n, matrix.shape[1]), bool)
    rows = np.repeat(np.arange(len(kept)), np.diff(matrix.indptr))
    kept[rows, matrix.indices] = True
    return kept


def _picture(kept: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[Any], int]:
    """The picture's cells, and positions that share one."""
    step = -(-kept.size // _MOST)
    if step == 1:
        return kept.astype(np.uint8), 1
    padded = np.pad(kept, ((0, 0), (0, -kept.shape[1] % step))).astype(np.float32)
    return padded.reshape(len(kept), -1, step).mean(axis=2), step

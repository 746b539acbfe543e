"""Distributions: codes of weights before and after pruning, codes that leave a layer; noise."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from secateur.image.decode import Weights
from secateur.image.image import Image
from secateur.report.figures import figure
from secateur.report.figures.cycles import layers_of
from secateur.report.figures.figure import Cell, Figure, drawing, labels, percent

Counts = npt.NDArray[np.int64]


def weights(layer: int, pruned: Weights, dense: Weights | None = None) -> Figure:
    """How often each code of int8 is a weight of a layer, and in the dense network.

    Parameters
    ----------
    layer : number of the layer
    pruned : its weights
    dense : those of the dense network, if they are known
    """
    found = {"pruned": pruned} | ({} if dense is None else {"dense": dense})
    counts = {
        what: np.bincount(values.dense().ravel() + 128, minlength=256)
        for what, values in found.items()
    }
    text = " ".join(_said(what, own, "weights") for what, own in counts.items())
    plot = _histogram({what: _no_zeros(own) for what, own in counts.items()}, -128, "weights")
    rows = _table(counts, -128)
    title = "Codes of the weights (zeros are not drawn)"
    return Figure(f"weights-{layer}", title, text, ("code", *counts), rows, plot, layer)


def activations(image: Image, layer: int, counts: Mapping[str, Counts]) -> Figure:
    """How often each code left a layer.

    Parameters
    ----------
    image : with metadata
    layer : number of the layer
    counts : (256,) of codes as uint8, by what it is of: ``pruned``, ``dense``

    Raises
    ------
    SecateurError : the image carries no metadata
    """
    output = layers_of(image)[layer]["output"]
    tensors = {tensor["name"]: tensor for tensor in image.metadata["tensors"]}
    parts = tensors[output].get("joined", [tensors[output]])
    first = -128 if any(part["signed"] for part in parts) else 0
    ordered = {what: np.roll(own, 128) if first else own for what, own in counts.items()}
    unit = f"A code is worth 2^{tensors[output]['exponent']}."
    if len(parts) > 1:
        unit = "Codes of its gates have scales of their own; all are shown as those of one."
    said = (_said(what, own, "codes", first) for what, own in ordered.items())
    text = " ".join([*said, unit])
    plot = _histogram(ordered, first, "codes", scale="log")
    rows = _table(ordered, first)
    title = "Codes that leave the layer"
    return Figure(f"codes-{layer}", title, text, ("code", *ordered), rows, plot, layer)


def noise(image: Image) -> Figure | None:
    """Signal to quantisation noise of the layers for which it was measured; None if of none.

    Raises
    ------
    SecateurError : the image carries no metadata
    """
    measured = [layer for layer in layers_of(image) if "sqnr" in layer]
    if not measured:
        return None
    names, traces = labels([layer["name"] for layer in measured]), []
    kinds = {"found": ("as quantised", figure.BLUE), "free": ("any scales", figure.GREY)}
    for key, (what, colour) in kinds.items():
        values = [layer["sqnr"][key] for layer in measured]
        marker = {"color": colour}
        traces.append(go.Bar(x=values, y=names, name=what, orientation="h", marker=marker))
    plot = drawing(traces, x="dB", y="", height=160 + 30 * len(names), barmode="group")
    plot.update_yaxes(autorange="reversed")
    worst = min(measured, key=lambda layer: layer["sqnr"]["found"])
    text = (
        f"Signal to quantisation noise on calibration data. The least is that of layer "
        f"{worst['name']}, {worst['sqnr']['found']:.1f} dB."
    )
    rows: list[tuple[Cell, ...]] = [
        (
            layer["name"], f"{layer['sqnr']['found']:.1f}", f"{layer['sqnr']['free']:.1f}",
            f"{layer['sqnr']['free'] - layer['sqnr']['found']:.1f}",
        )
        for layer in measured
    ]  # fmt: skip
    columns = ("layer", "as quantised, dB", "any scales, dB", "lost, dB")
    return Figure("noise", "Signal to quantisation noise", text, columns, rows, plot)


def _histogram(
    counts: Mapping[str, Counts], first: int, what: str, scale: str = "linear"
) -> go.Figure:
    colours = {"pruned": figure.BLUE, "dense": figure.GREY}
    codes = np.arange(256) + first
    traces = [
        go.Scatter(
            x=codes, y=own, name=name, mode="lines", line={"shape": "hvh", "width": 1.5},
            fill="tozeroy" if name == "pruned" and scale == "linear" else None,
            marker={"color": colours.get(name, figure.ORANGE)},
        )
        for name, own in counts.items()
    ]  # fmt: skip
    plot = drawing(traces, x="code", y=what, height=340, showlegend=True)
    plot.update_yaxes(type=scale)
    return plot


def _no_zeros(counts: Counts) -> Counts:
    """Counts without those of code 0, which would hide all others."""
    found = counts.copy()
    found[128] = 0
    return found


def _said(what: str, counts: Counts, of: str, first: int = -128) -> str:
    """Share of zeros, of codes at the ends, and the spread."""
    total, codes = int(counts.sum()), np.arange(256) + first
    if not total:
        return f"{what.capitalize()}: no {of}."
    mean = float((codes * counts).sum() / total)
    spread = math.sqrt(float(((codes - mean) ** 2 * counts).sum() / total))
    least, most = first, first + 255
    ends = int(counts[-1]) + (int(counts[0]) if least else 0)
    named = f"{least} or {most}" if least else f"{most}"
    return (
        f"{what.capitalize()}: {percent(int(counts[-first]), total)} of {total:,} {of} are 0, "
        f"{percent(ends, total)} are {named}, standard deviation {spread:.1f}."
    )


def _table(counts: Mapping[str, Counts], first: int) -> list[tuple[Cell, ...]]:
    """Counts of sixteen codes at a time."""
    rows: list[tuple[Cell, ...]] = []
    for at in range(0, 256, 16):
        sums = (int(own[at : at + 16].sum()) for own in counts.values())
        rows.append((f"{at + first} to {at + first + 15}", *sums))
    return rows

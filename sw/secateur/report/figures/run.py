"""A pruning run: losses, sensitivity, robustness, confusion, answers that pruning changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from secateur.report.figures import figure
from secateur.report.figures.figure import (
    ACCURACY,
    Cell,
    Figure,
    Metric,
    drawing,
    label,
    percent,
    style,
)

Ints = npt.NDArray[np.int64]
#: Side of a sample's picture, and pictures in a row.
_SIDE, _ACROSS = 48, 4


def learning(runs: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """The loss after every epoch, the stages one after the other.

    Parameters
    ----------
    runs : losses by stage, by name of the run
    """
    traces, rows = [], list[tuple[Cell, ...]]()
    dashes = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
    stages = list(dict.fromkeys(stage for losses in runs.values() for stage in losses))
    for number, (run, losses) in enumerate(runs.items()):
        epoch = 0
        for stage, values in losses.items():
            at, colour = stages.index(stage), figure.COLOURS
            name = label(stage if len(runs) == 1 else f"{run}, {stage}")
            traces.append(
                go.Scatter(
                    x=list(range(epoch + 1, epoch + 1 + len(values))), y=list(values), name=name,
                    mode="lines+markers", marker={"size": 5},
                    line={"color": colour[at % len(colour)], "dash": dashes[number % len(dashes)]},
                )
            )  # fmt: skip
            rows += [(run, stage, at + 1, f"{value:.4g}") for at, value in enumerate(values)]
            epoch += len(values)
    plot = drawing(traces, x="epoch", y="loss", height=420)
    plot.update_layout(showlegend=len(traces) <= 12)
    ends = ", ".join(
        f"{stage} {values[0]:.3g} to {values[-1]:.3g}"
        for stage, values in next(iter(runs.values())).items()
    )
    text = f"Loss on the training data, first to last epoch of {next(iter(runs))}: {ends}."
    columns = ("run", "stage", "epoch", "loss")
    return Figure("learning", "Learning curves", text, columns, rows, plot)


def sensitivity(found: Sequence[Mapping[str, Any]], metric: Metric = ACCURACY) -> Figure:
    """The score with one layer pruned and no recovery, by the share of its blocks that stays.

    Parameters
    ----------
    found : ``layer``, ``density`` and ``score``
    metric : of the scores
    """
    traces = []
    layers = list(dict.fromkeys(row["layer"] for row in found))
    for layer in layers:
        own = sorted((row["density"], row["score"]) for row in found if row["layer"] == layer)
        x, y = zip(*own, strict=True)
        traces.append(go.Scatter(x=x, y=y, name=label(layer), mode="lines+markers"))
    plot = drawing(traces, x="density of the layer", y=label(metric.name), height=420)
    plot.update_yaxes(tickformat=".1%" if metric.share else None)
    worst = (min if metric.higher else max)(found, key=lambda row: float(row["score"]))
    text = (
        f"Each of {len(layers)} layers pruned alone, without recovery. The worst {metric.name} is "
        f"{metric.show(worst['score'])}, with {worst['density']:.0%} of the blocks of "
        f"{worst['layer']}."
    )
    rows: list[tuple[Cell, ...]] = [
        (row["layer"], f"{row['density']:.2f}", metric.show(row["score"])) for row in found
    ]
    columns = ("layer", "density", metric.name)
    return Figure("sensitivity", "Sensitivity of the layers", text, columns, rows, plot)


def robustness(found: Sequence[Mapping[str, Any]], metric: Metric = ACCURACY) -> Figure:
    """Scores of the float networks under attacks and corruptions.

    Parameters
    ----------
    found : ``robustness`` of a record
    metric : of the scores
    """
    names = [f"{label(row['what'])} {row['strength']:g}" for row in found]
    traces = [
        go.Bar(x=names, y=[row[key] for row in found], name=key, marker={"color": colour})
        for key, colour in (("pruned", figure.BLUE), ("dense", figure.GREY))
    ]
    plot = drawing(traces, x="attack or corruption, and its strength", y=label(metric.name))
    if metric.share:
        plot.update_yaxes(tickformat=".0%", range=[0, 1])
    sign = 1 if metric.higher else -1
    lost = max(found, key=lambda row: sign * float(row["dense"] - row["pruned"]))
    text = (
        f"The {metric.name} in float, each network attacked with its own gradients. Pruning costs "
        f"most under {lost['what']} {lost['strength']:g}: {metric.show(lost['dense'])} dense, "
        f"{metric.show(lost['pruned'])} pruned."
    )
    rows: list[tuple[Cell, ...]] = [
        (row["what"], f"{row['strength']:g}", *(metric.show(row[k]) for k in ("dense", "pruned")))
        for row in found
    ]
    columns = ("under", "strength", "dense", "pruned")
    return Figure("robustness", "Robustness", text, columns, rows, plot)


def confusion(truth: Ints, dense: Ints, pruned: Ints) -> Figure:
    """Answers of the pruned network by true class.

    Parameters
    ----------
    truth, dense, pruned : (samples,) true classes, and answers of both networks, from 0 on
    """
    size = 1 + max(int(values.max()) for values in (truth, dense, pruned))
    counts = {"pruned": _confused(truth, pruned, size), "dense": _confused(truth, dense, size)}
    off = counts["pruned"] - np.diag(counts["pruned"].diagonal())
    trace = go.Heatmap(
        z=counts["pruned"], customdata=counts["dense"], colorscale="Blues",
        hovertemplate="true %{y}, answer %{x}: %{z} (dense %{customdata})<extra></extra>",
    )  # fmt: skip
    plot = drawing(trace, x="answer of the pruned network", y="true class", height=460)
    plot.update_yaxes(autorange="reversed", scaleanchor="x", constrain="domain")
    plot.update_xaxes(constrain="domain")
    rights = {what: percent(int(own.trace()), len(truth)) for what, own in counts.items()}
    true, answer = (int(at) for at in np.unravel_index(off.argmax(), off.shape))
    text = (
        f"{rights['pruned']} of {len(truth):,} held-out samples are answered rightly, "
        f"{rights['dense']} dense. The pruned network's most common confusion: "
        f"{int(off[true, answer]):,} samples of class {true} as {answer}."
    )
    order = np.argsort(-off, axis=None, kind="stable")[:30]
    rows: list[tuple[Cell, ...]] = []
    for true, answer in np.stack(np.unravel_index(order, off.shape), axis=1).tolist():
        if off[true, answer]:
            both = int(off[true, answer]), int(counts["dense"][true, answer])
            rows.append((true, answer, *both))
    columns = ("true class", "answer", "pruned", "dense")
    return Figure("confusion", "Confusion matrix", text, columns, rows, plot)


def _confused(truth: Ints, answers: Ints, size: int) -> Ints:
    """(true class, answer) counts."""
    return np.bincount(truth * size + answers, minlength=size * size).reshape(size, size)


def answers(
    samples: npt.NDArray[np.float32], numbers: Ints, truth: Ints, dense: Ints, pruned: Ints
) -> Figure:
    """Samples whose answer pruning changed: images as images, all others as curves.

    Parameters
    ----------
    samples : (count, ...) inputs; (count, C, H, W) are images
    numbers : (count,) of these samples
    truth, dense, pruned : (all samples,) true classes, and answers of both networks
    """
    down = math.ceil(len(samples) / _ACROSS)
    titles = [f"true {truth[i]}:<br>{dense[i]} dense, {pruned[i]} pruned" for i in numbers.tolist()]
    plot = make_subplots(
        rows=down, cols=_ACROSS, subplot_titles=titles, vertical_spacing=0.35 / down,
        horizontal_spacing=0.03,
    )  # fmt: skip
    plot.update_layout(style(80 + 190 * down), showlegend=False)
    plot.update_annotations(font_size=11)
    for at, sample in enumerate(samples):
        plot.add_trace(_sample(sample), row=at // _ACROSS + 1, col=at % _ACROSS + 1)
    plot.update_xaxes(visible=False)
    plot.update_yaxes(visible=False)
    if samples.ndim == 4:
        plot.update_yaxes(autorange="reversed")
    changed = int((dense != pruned).sum())
    better = int(((dense != truth) & (pruned == truth)).sum())
    worse = int(((dense == truth) & (pruned != truth)).sum())
    text = (
        f"Pruning changed the answer to {changed:,} of {len(truth):,} samples: {worse:,} were "
        f"right before, {better:,} are right now. {len(samples)} of them are shown."
    )
    rows: list[tuple[Cell, ...]] = [
        (i, int(truth[i]), int(dense[i]), int(pruned[i])) for i in numbers.tolist()
    ]
    columns = ("sample", "true class", "dense", "pruned")
    return Figure("answers", "Answers that pruning changed", text, columns, rows, plot)


def _sample(sample: npt.NDArray[np.float32]) -> Any:
    """An image of at most _SIDE pixels a side, or curves."""
    if sample.ndim != 3:
        return go.Scatter(y=sample.ravel()[: 1 << 12], mode="lines", line={"color": figure.BLUE})
    step = math.ceil(max(sample.shape[1:]) / _SIDE)
    shown = sample[:, ::step, ::step]
    low, high = float(shown.min()), float(shown.max())
    bytes_ = np.round((shown - low) * (255 / ((high - low) or 1))).astype(np.uint8)
    if len(shown) == 3:
        return go.Image(z=bytes_.transpose(1, 2, 0), hoverinfo="skip")
    return go.Heatmap(z=bytes_[0], colorscale="Greys", showscale=False, hoverinfo="skip")

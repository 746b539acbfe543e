"""A study: accuracy against cycles of all variants and seeds, and what each variant loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from secateur.report.figures import figure
from secateur.report.figures.figure import ACCURACY, Cell, Figure, Metric, drawing, label, labels


@dataclass(frozen=True)
class Point:
    """A run of a study.

    Attributes
    ----------
    variant, seed : of the run
    cycles, score : of its image
    """

    variant: str
    seed: int
    cycles: float
    score: float


def front(
    variants: Mapping[str, Mapping[str, Any]], points: Sequence[Point], metric: Metric = ACCURACY
) -> Figure:
    """The score against cycles: every run, mean and deviation of every variant, and the front.

    Parameters
    ----------
    variants : ``variants`` of a study's result
    points : the runs, as many as are known
    metric : of the scores
    """
    means = {name: (row["cycles"]["mean"], row["int8"]["mean"]) for name, row in variants.items()}
    best = on_front(means, metric.higher)
    traces = [_dense(variants)]
    for at, (name, (cycles, score)) in enumerate(means.items()):
        row, colour = variants[name], figure.COLOURS[at % len(figure.COLOURS)]
        traces.append(
            go.Scatter(
                x=[cycles], y=[score], name=label(name), mode="markers",
                marker={"size": 11, "color": colour}, legendgroup=str(at),
                error_x=_bar(row["cycles"]["deviation"]), error_y=_bar(row["int8"]["deviation"]),
            )
        )  # fmt: skip
        own = [point for point in points if point.variant == name]
        traces.append(
            go.Scatter(
                x=[point.cycles for point in own], y=[point.score for point in own],
                mode="markers", marker={"size": 6, "color": colour, "symbol": "circle-open"},
                legendgroup=str(at), showlegend=False,
                hovertext=[f"{label(name)}, seed {point.seed}" for point in own],
            )
        )  # fmt: skip
    x, y = zip(*(means[name] for name in best), strict=True)
    line = {"color": figure.GREY, "dash": "dot"}
    traces.append(go.Scatter(x=x, y=y, mode="lines", line=line, name="front of the means"))
    title = f"{label(metric.name)}, int8"
    plot = drawing(traces, x="cycles per inference", y=title, height=480)
    plot.update_yaxes(tickformat=".1%" if metric.share else None)
    text = (
        f"{len(means)} variants; bars are standard deviations over the seeds, open circles single "
        f"runs. On the front, where no other variant has fewer cycles and a better score: "
        f"{', '.join(best)}."
    )
    rows: list[tuple[Cell, ...]] = [
        (
            name, _score(row["int8"], metric), _spread(row["cycles"], 1, ",.0f"),
            "yes" if name in best else "",
        )
        for name, row in variants.items()
    ]  # fmt: skip
    columns = ("variant", metric.name, "cycles", "on the front")
    title = f"{metric.name.capitalize()} against cycles"
    return Figure("front", title, text, columns, rows, plot)


def on_front(means: Mapping[str, tuple[float, float]], higher: bool = True) -> list[str]:
    """Names of the variants than which none has fewer cycles and a better score, by cycles.

    Parameters
    ----------
    means : cycles and score by name
    higher : higher scores are better
    """
    sign, found = 1 if higher else -1, list[str]()
    ranked = sorted(means.items(), key=lambda item: (item[1][0], -sign * item[1][1]))
    for name, (_, score) in ranked:
        if not found or sign * score > sign * means[found[-1]][1]:
            found.append(name)
    return found


def variants(found: Mapping[str, Mapping[str, Any]], metric: Metric = ACCURACY) -> Figure:
    """What each variant loses to its dense network, of accuracy in points.

    Parameters
    ----------
    found : ``variants`` of a study's result
    metric : of the scores
    """
    names, factor = labels(list(found)), 100 if metric.share else 1
    unit = "points of accuracy" if metric.share else metric.name
    drops = [factor * row["drop"]["mean"] for row in found.values()]
    trace = go.Bar(
        x=drops, y=names, orientation="h", marker={"color": figure.BLUE},
        error_x={"array": [factor * row["drop"]["deviation"] for row in found.values()]},
    )  # fmt: skip
    plot = drawing(trace, x=f"{label(unit)} lost", y="", height=150 + 34 * len(names))
    plot.update_yaxes(autorange="reversed")
    least = min(found, key=lambda name: float(found[name]["drop"]["mean"]))
    text = (
        f"What is lost of {metric.name} to the dense int8 network; bars are standard deviations "
        f"over the seeds. {least} loses least, {factor * found[least]['drop']['mean']:.3g}"
        f"{' points' if metric.share else ''}."
    )
    scores = ("float", "dense int8", "int8", "drop")
    shares = [
        key for key in ("agreement", "density of dense") if all(key in r for r in found.values())
    ]
    rows: list[tuple[Cell, ...]] = [
        (
            name, *(_score(row[key], metric) for key in scores),
            *(_spread(row[key], 100, ".2f") for key in shares),
            *(_spread(row[key], 1, ",.0f") for key in ("cycles", "rom bytes")),
            int(row["int8"]["runs"]),
        )
        for name, row in found.items()
    ]  # fmt: skip
    columns = ("variant", *scores, *(f"{key}, %" for key in shares), "cycles", "ROM bytes", "runs")
    return Figure("variants", "What each variant loses", text, columns, rows, plot)


def _score(found: Mapping[str, float], metric: Metric) -> str:
    """Mean and deviation of a score, of accuracy in percent."""
    return _spread(found, 100, ".2f") if metric.share else _spread(found, 1, ".4g")


def _dense(variants: Mapping[str, Mapping[str, Any]]) -> go.Scatter:
    """The dense int8 networks of all variants."""
    rows = variants.values()
    return go.Scatter(
        x=[row["cycles dense"]["mean"] for row in rows],
        y=[row["dense int8"]["mean"] for row in rows],
        hovertext=[label(name) for name in variants], name="dense", mode="markers",
        marker={"symbol": "x", "size": 9, "color": figure.GREY},
    )  # fmt: skip


def _bar(deviation: float) -> dict[str, Any]:
    return {"array": [deviation], "visible": deviation > 0}


def _spread(found: Mapping[str, float], factor: float, style: str) -> str:
    """Mean, and deviation where there are several runs."""
    mean = format(factor * found["mean"], style)
    return f"{mean} ± {factor * found['deviation']:{style}}" if found["runs"] > 1 else mean

"""A study: accuracy against cycles of all variants and seeds, and what each variant loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from secateur.report.figures import figure
from secateur.report.figures.figure import Cell, Figure, drawing, label, labels


@dataclass(frozen=True)
class Point:
    """A run of a study.

    Attributes
    ----------
    variant, seed : of the run
    cycles, accuracy : of its image
    """

    variant: str
    seed: int
    cycles: float
    accuracy: float


def front(variants: Mapping[str, Mapping[str, Any]], points: Sequence[Point]) -> Figure:
    """Accuracy against cycles: every run, mean and deviation of every variant, and the front.

    Parameters
    ----------
    variants : ``variants`` of a study's result
    points : the runs, as many as are known
    """
    means = {name: (row["cycles"]["mean"], row["int8"]["mean"]) for name, row in variants.items()}
    best = on_front(means)
    traces = [_dense(variants)]
    for at, (name, (cycles, accuracy)) in enumerate(means.items()):
        row, colour = variants[name], figure.COLOURS[at % len(figure.COLOURS)]
        traces.append(
            go.Scatter(
                x=[cycles], y=[accuracy], name=label(name), mode="markers",
                marker={"size": 11, "color": colour}, legendgroup=str(at),
                error_x=_bar(row["cycles"]["deviation"]), error_y=_bar(row["int8"]["deviation"]),
            )
        )  # fmt: skip
        own = [point for point in points if point.variant == name]
        traces.append(
            go.Scatter(
                x=[point.cycles for point in own], y=[point.accuracy for point in own],
                mode="markers", marker={"size": 6, "color": colour, "symbol": "circle-open"},
                legendgroup=str(at), showlegend=False,
                hovertext=[f"{label(name)}, seed {point.seed}" for point in own],
            )
        )  # fmt: skip
    x, y = zip(*(means[name] for name in best), strict=True)
    line = {"color": figure.GREY, "dash": "dot"}
    traces.append(go.Scatter(x=x, y=y, mode="lines", line=line, name="front of the means"))
    plot = drawing(traces, x="cycles per inference", y="accuracy, int8", height=480)
    plot.update_yaxes(tickformat=".1%")
    text = (
        f"{len(means)} variants; bars are standard deviations over the seeds, open circles single "
        f"runs. On the front, where no other variant has fewer cycles and more accuracy: "
        f"{', '.join(best)}."
    )
    rows: list[tuple[Cell, ...]] = [
        (
            name, _spread(row["int8"], 100, ".2f"), _spread(row["cycles"], 1, ",.0f"),
            "yes" if name in best else "",
        )
        for name, row in variants.items()
    ]  # fmt: skip
    columns = ("variant", "accuracy, %", "cycles", "on the front")
    return Figure("front", "Accuracy against cycles", text, columns, rows, plot)


def on_front(means: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the variants than which none has fewer cycles and more accuracy, by cycles.

    Parameters
    ----------
    means : cycles and accuracy by name
    """
    found = list[str]()
    for name, (_, accuracy) in sorted(means.items(), key=lambda item: (item[1][0], -item[1][1])):
        if not found or accuracy > means[found[-1]][1]:
            found.append(name)
    return found


def variants(found: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Points of accuracy that each variant loses to its dense network.

    Parameters
    ----------
    found : ``variants`` of a study's result
    """
    names = labels(list(found))
    drops = [100 * row["drop"]["mean"] for row in found.values()]
    trace = go.Bar(
        x=drops, y=names, orientation="h", marker={"color": figure.BLUE},
        error_x={"array": [100 * row["drop"]["deviation"] for row in found.values()]},
    )  # fmt: skip
    plot = drawing(trace, x="points of int8 accuracy lost", y="", height=150 + 34 * len(names))
    plot.update_yaxes(autorange="reversed")
    least = min(found, key=lambda name: float(found[name]["drop"]["mean"]))
    text = (
        f"Points of accuracy lost to the dense int8 network; bars are standard deviations over "
        f"the seeds. {least} loses least, {100 * found[least]['drop']['mean']:.2f} points."
    )
    keys = ("float", "dense int8", "int8", "drop", "agreement", "density of dense")
    rows: list[tuple[Cell, ...]] = [
        (
            name, *(_spread(row[key], 100, ".2f") for key in keys),
            *(_spread(row[key], 1, ",.0f") for key in ("cycles", "rom bytes")),
            int(row["int8"]["runs"]),
        )
        for name, row in found.items()
    ]  # fmt: skip
    columns = ("variant", *(f"{key}, %" for key in keys), "cycles", "ROM bytes", "runs")
    return Figure("variants", "What each variant loses", text, columns, rows, plot)


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

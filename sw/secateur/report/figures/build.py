"""A build for a board: resources against the part, clock by seed, slowest path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from secateur.report.figures import figure
from secateur.report.figures.figure import Cell, Figure, drawing, label, labels, percent


def resources(found: Mapping[str, Mapping[str, int]]) -> Figure:
    """Cells that the design takes, in percent of those of the part.

    Parameters
    ----------
    found : ``used`` and ``available``, by name of the resource
    """
    names = labels(list(found))
    shares = [row["used"] / (row["available"] or 1) for row in found.values()]
    trace = go.Bar(x=shares, y=names, orientation="h", marker={"color": figure.BLUE})
    plot = drawing(trace, x="share of the part", y="", height=150 + 30 * len(names))
    plot.update_xaxes(tickformat=".0%", range=[0, max(1.0, *shares)])
    plot.update_yaxes(autorange="reversed")
    fullest = max(found, key=lambda name: found[name]["used"] / (found[name]["available"] or 1))
    row = found[fullest]
    text = (
        f"The scarcest resource is {fullest}: {row['used']:,} of {row['available']:,}, "
        f"{percent(row['used'], row['available'])}."
    )
    rows: list[tuple[Cell, ...]] = [
        (name, row["used"], row["available"], percent(row["used"], row["available"]))
        for name, row in found.items()
    ]
    columns = ("resource", "used", "of the part", "share")
    return Figure("resources", "Resources", text, columns, rows, plot)


def clock(by_seed: Mapping[int, float], wanted: float) -> Figure:
    """Highest clock after routing, by seed of the placer.

    Parameters
    ----------
    by_seed : MHz
    wanted : MHz that the build asks for
    """
    seeds = sorted(by_seed)
    met = [by_seed[seed] >= wanted for seed in seeds]
    trace = go.Bar(
        x=[f"seed {seed}" for seed in seeds], y=[by_seed[seed] for seed in seeds],
        marker={"color": [figure.BLUE if ok else figure.ORANGE for ok in met]},
    )  # fmt: skip
    plot = drawing(trace, x="", y="MHz", showlegend=False)
    plot.add_hline(y=wanted, line_dash="dash", line_color=figure.GREY, annotation_text="wanted")
    best = max(seeds, key=lambda seed: by_seed[seed])
    text = (
        f"{sum(met)} of {len(seeds)} seeds meet {wanted:g} MHz; the best is seed {best}, "
        f"{by_seed[best]:.1f} MHz."
    )
    rows: list[tuple[Cell, ...]] = [
        (seed, f"{by_seed[seed]:.1f}", "met" if ok else "missed")
        for seed, ok in zip(seeds, met, strict=True)
    ]
    columns = ("seed", "MHz", f"{wanted:g} MHz")
    return Figure("clock", "Clock by seed", text, columns, rows, plot)


def path(steps: Sequence[Mapping[str, Any]]) -> Figure:
    """The slowest path, step by step.

    Parameters
    ----------
    steps : ``type``, ``ns`` and ``to`` of each
    """
    at, rows, begins = 0.0, list[tuple[Cell, ...]](), []
    for step in steps:
        begins.append(at)
        at += step["ns"]
        rows.append((step["type"], f"{step['ns']:.2f}", f"{at:.2f}", step["to"]))
    names = [f"{number + 1} {label(step['type'])}" for number, step in enumerate(steps)]
    trace = go.Bar(
        x=[step["ns"] for step in steps], base=begins, y=names, orientation="h",
        marker={"color": figure.BLUE}, hovertext=[label(step["to"]) for step in steps],
    )  # fmt: skip
    plot = drawing(trace, x="ns", y="", height=150 + 24 * len(names))
    plot.update_yaxes(autorange="reversed")
    longest = max(steps, key=lambda step: float(step["ns"]))
    text = (
        f"{at:.2f} ns over {len(steps)} steps; the longest step is {longest['type']}, "
        f"{longest['ns']:.2f} ns, to {longest['to']}."
    )
    columns = ("step", "ns", "sum", "to")
    return Figure("path", "Slowest path", text, columns, rows, plot)

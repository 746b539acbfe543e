"""An exploration: all trials by two of their objectives, and those that no other one beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from secateur.report.figures import figure
from secateur.report.figures.figure import Cell, Figure, drawing, label


def trials(
    objectives: Sequence[str], found: Sequence[Mapping[str, Any]], front: Sequence[int]
) -> Figure:
    """Trials by their last objective along x and their first along y.

    Parameters
    ----------
    objectives : names
    found : of each trial ``number``, ``values``, and its objectives, if it has an image
    front : numbers of the trials that no other one beats in all objectives
    """
    y, x = objectives[0], objectives[-1]
    done = [trial for trial in found if y in trial]
    traces = []
    for what, colour, best in (("beaten", figure.GREY, False), ("front", figure.BLUE, True)):
        own = [trial for trial in done if (trial["number"] in front) == best]
        traces.append(
            go.Scatter(
                x=[trial[x] for trial in own], y=[trial[y] for trial in own], name=what,
                mode="markers", marker={"size": 10, "color": colour},
                hovertext=[label(_spoken(trial)) for trial in own],
            )
        )  # fmt: skip
    plot = drawing(traces, x=label(x), y=label(y), height=460)
    failed, stopped = (sum(why in trial for trial in found) for why in ("problem", "stopped"))
    text = (
        f"{len(found)} trials, of which {failed} have failed, {stopped} were stopped early and "
        f"{len(found) - len(done) - failed - stopped} are not done. No other one beats in all of "
        f"{', '.join(objectives)}: {', '.join(f'trial {number}' for number in front) or 'none'}."
    )
    rows: list[tuple[Cell, ...]] = [
        (
            trial["number"],
            *(f"{trial[name]:,.6g}" if name in trial else "" for name in objectives),
            "yes" if trial["number"] in front else "", _spoken(trial),
        )
        for trial in found
    ]  # fmt: skip
    columns = ("trial", *objectives, "on the front", "values")
    return Figure("trials", "Trials of the exploration", text, columns, rows, plot)


def _spoken(trial: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in trial["values"].items())

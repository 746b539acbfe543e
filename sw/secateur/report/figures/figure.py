"""What all figures share: text, table and plot together; colours; names of layers made safe."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

from secateur.text import name as shortened

#: Colours of Okabe and Ito, which colour-blind readers tell apart (Color Universal Design, 2008).
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
SKY, AMBER, YELLOW, GREY = "#56b4e9", "#e69f00", "#f0e442", "#999999"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER, YELLOW, GREY)
#: Between the colours of light and dark paper.
_LINES = "rgba(128, 128, 128, 0.35)"
#: Settings of all axes.
AXIS = {"gridcolor": _LINES, "zerolinecolor": _LINES, "automargin": True}

Cell = str | int | float


@dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes
    ----------
    name : of letters and hyphens, unique within a report
    title : plain text
    text : what it shows, for those who do not see it
    columns, rows : its numbers
    plot : the Plotly figure
    layer : number of the layer that it is of; None: of the whole
    """

    name: str
    title: str
    text: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    plot: go.Figure = field(repr=False)
    layer: int | None = None

    def _repr_mimebundle_(self, *_: object, **options: Any) -> Any:
        """What notebooks draw."""
        return self.plot._repr_mimebundle_(**options)


@dataclass(frozen=True)
class Metric:
    """What a run is judged by.

    Attributes
    ----------
    name : accuracy, a share; or the name of another function
    higher : more is better
    """

    name: str = "accuracy"
    higher: bool = True

    @property
    def share(self) -> bool:
        """Whether values are shares, shown in percent."""
        return self.name == "accuracy"

    def show(self, value: float) -> str:
        """A value as text."""
        return f"{value:.2%}" if self.share else f"{value:.4g}"


#: Of a classification.
ACCURACY = Metric()


def label(text: object) -> str:
    """A name from a file as Plotly is given it: Plotly reads texts as HTML."""
    return html.escape(shortened(text), quote=False)


def labels(texts: Sequence[object]) -> list[str]:
    """Names for an axis of categories: those that would look the same get a number."""
    found: dict[str, int] = {}
    shown = []
    for text in map(label, texts):
        found[text] = found.get(text, 0) + 1
        shown.append(text if found[text] == 1 else f"{text} ({found[text]})")
    return shown


def drawing(traces: Any, *, x: str, y: str, height: int = 380, **layout: Any) -> go.Figure:
    """A Plotly figure in the style of the report.

    Parameters
    ----------
    traces : a trace, or a list of them
    x, y : titles of the axes, with units
    height : pixels
    layout : further settings of the layout
    """
    found = go.Figure(traces)
    found.update_layout(style(height) | layout)
    found.update_xaxes(AXIS, title=x)
    found.update_yaxes(AXIS, title=y)
    return found


def style(height: int) -> dict[str, Any]:
    """Layout that all figures share: the page sets the colours of paper and text."""
    return {
        "height": height,
        "template": "none",
        "colorway": list(COLOURS),
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "margin": {"l": 60, "r": 20, "t": 30, "b": 50},
        "legend": {
            "orientation": "h",
            "traceorder": "normal",
            "y": 1.0,
            "yanchor": "bottom",
            "x": 0,
        },
        "font": {"family": "system-ui, sans-serif", "size": 13},
    }  # fmt: skip


def counted(count: int) -> dict[str, Any]:
    """Settings of an axis with ``count`` whole numbers: ticks at whole numbers alone."""
    return {"dtick": max(1, count // 10), "tick0": 0}


def percent(part: float, whole: float) -> str:
    """``part`` of ``whole`` in percent."""
    return f"{part / whole:.1%}" if whole else "none"

"""What the drawings share: colours, boxes, arrows, and the way to SVG."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

INK, GREY, PAPER = "#1f2937", "#9ca3af", "#ffffff"
BLUE, GREEN, ORANGE, RED = "#2563eb", "#15803d", "#c2410c", "#b91c1c"
PALE_BLUE, PALE_GREEN, PALE_ORANGE, PALE_GREY = "#dbeafe", "#dcfce7", "#ffedd5", "#f3f4f6"

Point = tuple[float, float]


class Drawing:
    """A sheet with boxes and arrows.

    Parameters
    ----------
    axes : the sheet; its coordinates are those of all methods
    """

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.svg = ""

    def box(
        self, at: Point, size: Point, text: str, fill: str = PALE_BLUE, font: float = 9
    ) -> None:
        """A labelled box.

        Parameters
        ----------
        at : lower left corner
        size : width and height
        text : label in its middle
        fill : colour
        font : size of the label, points
        """
        shape = FancyBboxPatch(
            at, *size, boxstyle="round,pad=0,rounding_size=0.06", fc=fill, ec=INK, lw=0.9
        )
        self.axes.add_patch(shape)
        self.label((at[0] + size[0] / 2, at[1] + size[1] / 2), text, font=font)

    def cell(self, at: Point, size: Point = (1, 1), fill: str = PAPER, text: str = "") -> None:
        """A plain cell of a grid.

        Parameters
        ----------
        at : lower left corner
        size : width and height
        fill : colour
        text : label in its middle
        """
        self.axes.add_patch(Rectangle(at, *size, fc=fill, ec=INK, lw=0.5))
        if text:
            self.label((at[0] + size[0] / 2, at[1] + size[1] / 2), text, font=7)

    def frame(self, at: Point, size: Point, colour: str, width: float = 1.8) -> None:
        """An outline over what is there.

        Parameters
        ----------
        at : lower left corner
        size : width and height
        colour : of the line
        width : of the line, points
        """
        self.axes.add_patch(Rectangle(at, *size, fill=False, ec=colour, lw=width))

    def arrow(self, start: Point, end: Point, colour: str = INK, bend: float = 0.0) -> None:
        """An arrow.

        Parameters
        ----------
        start, end : its ends
        colour : of the line
        bend : 0 straight, positive or negative for an arc to either side
        """
        style = f"arc3,rad={bend}"
        arrow = FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=9, color=colour, lw=1.1,
            connectionstyle=style, shrinkA=0, shrinkB=0,
        )  # fmt: skip
        self.axes.add_patch(arrow)

    def line(self, *points: Point, colour: str = INK, style: str = "-") -> None:
        """A line through points."""
        self.axes.plot(*zip(*points, strict=True), color=colour, lw=1.1, ls=style)

    def label(
        self, at: Point, text: str, font: float = 9, colour: str = INK, side: str = "center"
    ) -> None:
        """A text.

        Parameters
        ----------
        at : its place
        text : the text
        font : its size, points
        colour : its colour
        side : which side of it is at the place: left, center or right
        """
        self.axes.text(*at, text, ha=side, va="center", fontsize=font, color=colour)


@contextmanager
def drawing(width: float, height: float, inches: float = 8.0) -> Iterator[Drawing]:
    """A blank sheet; its ``svg`` is there when the block ends.

    Parameters
    ----------
    width, height : of the sheet, in its own units
    inches : width on the page
    """
    figure = plt.figure(figsize=(inches, inches * height / width))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.set_aspect("equal")
    axes.axis("off")
    sheet = Drawing(axes)
    yield sheet
    sheet.svg = svg_of(figure)


def svg_of(figure: plt.Figure) -> str:
    """A figure as SVG, the same text for the same figure; closes it."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "secateur", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, facecolor=PAPER)
    plt.close(figure)
    return buffer.getvalue()


def panels(count: int, inches: Point = (8.0, 3.2)) -> tuple[plt.Figure, list[Axes]]:
    """A figure of charts side by side.

    Parameters
    ----------
    count : of charts
    inches : width and height of the figure
    """
    figure, axes = plt.subplots(1, count, figsize=inches, layout="constrained", squeeze=False)
    for one in axes[0]:
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(labelsize=8)
    return figure, list(axes[0])

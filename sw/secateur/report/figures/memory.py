"""Bank memory over time: which tensor lies where when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import plotly.graph_objects as go

from secateur.image.image import Image
from secateur.report.figures.cycles import layers_of
from secateur.report.figures.figure import COLOURS, Cell, Figure, drawing, label


@dataclass(frozen=True)
class Life:
    """A tensor in the banks.

    Attributes
    ----------
    tensor : name
    base, words : of its window
    begin, end : numbers of the layers that write it first and read it last; -1: the input
    start, stop : cycles from the first word of ``begin`` to the last of ``end``
    """

    tensor: str
    base: int
    words: int
    begin: int
    end: int
    start: int
    stop: int

    def meets(self, other: Life) -> bool:
        """Whether both lie on common words, at whatever time."""
        return self.base < other.base + other.words and other.base < self.base + self.words


def lives(image: Image) -> list[Life]:
    """Window and lifetime of every tensor that has a window, in the order of the image.

    States of a recurrent network stay from one inference to the next.

    Raises
    ------
    SecateurError : the image carries no metadata
    """
    layers = layers_of(image)
    ends, now = list[int](), image.cycles - sum(layer["cycles"] for layer in layers)
    begins = [0]
    for layer in layers:
        begins.append(now)
        now += layer["cycles"]
        ends.append(now)
    given = {port["tensor"] for port in image.metadata["inputs"]}
    states = set(image.metadata["states"])
    found = []
    for window in image.metadata["memory"]:
        name = window["tensor"]
        writes = [i for i, layer in enumerate(layers) if layer["output"] == name]
        reads = [
            i for i, layer in enumerate(layers) if name in {s["tensor"] for s in layer["sources"]}
        ]
        begin, end = (
            min([-1] * (name in given) + writes, default=-1),
            max(reads + writes, default=-1),
        )
        if name in states:
            begin, end = -1, len(layers) - 1
        start, stop = begins[begin + 1], ends[end] if end >= 0 else begins[1]
        found.append(Life(name, window["base"], window["words"], begin, end, start, stop))
    return found


def sharing(found: list[Life]) -> dict[str, list[str]]:
    """Names of the tensors that lie on words of each tensor, at other times or in its place."""
    shared: dict[str, list[str]] = {life.tensor: [] for life in found}
    for a, b in combinations(found, 2):
        if a.meets(b):
            shared[a.tensor].append(b.tensor)
            shared[b.tensor].append(a.tensor)
    return shared


def memory(image: Image) -> Figure:
    """The windows of all tensors over the cycles of an inference.

    Raises
    ------
    SecateurError : the image carries no metadata
    """
    found = [life for life in lives(image) if life.words]
    depth, shared = image.metadata["bank_words"], sharing(found)
    traces = []
    for at, life in enumerate(found):
        spans = list(_spans(life, depth))
        traces.append(
            go.Bar(
                orientation="h",
                base=[life.start] * len(spans),
                x=[life.stop - life.start] * len(spans),
                y=[base + words / 2 for base, words in spans],
                width=[words for _, words in spans],
                name=label(life.tensor),
                marker={"color": COLOURS[at % len(COLOURS)], "line": {"width": 1, "color": "#000"}},
                opacity=0.85,
                hovertemplate=(
                    f"{label(life.tensor)}<br>words {life.base} to {life.base + life.words - 1}"
                    f"<br>cycles {life.start:,} to {life.stop:,}<extra></extra>"
                ),
            )
        )
    top = max((base + words for life in found for base, words in _spans(life, depth)), default=1)
    plot = drawing(
        traces, x="cycle of an inference", y="word of a bank", barmode="overlay", height=460
    )
    plot.update_layout(showlegend=len(found) <= 24)
    plot.update_yaxes(range=[0, top])
    peak = max((_used(found, life.start, depth) for life in found), default=0)
    text = (
        f"{len(found)} tensors lie in {top:,} of the {depth:,} words of each bank. At most "
        f"{peak:,} words are alive at one time. A tensor is alive from the first word that is "
        f"written to the last that is read."
    )
    rows: list[tuple[Cell, ...]] = [
        (
            life.tensor, life.base, life.words, life.start, life.stop,
            ", ".join(shared[life.tensor]) or "none",
        )
        for life in found
    ]  # fmt: skip
    columns = ("tensor", "first word", "words", "from cycle", "to cycle", "shares words with")
    return Figure("memory", "Bank memory over time", text, columns, rows, plot)


def _used(found: list[Life], time: int, depth: int) -> int:
    """Words that lie in windows of tensors that are alive at a cycle."""
    taken: set[int] = set()
    for life in found:
        if life.start <= time < life.stop:
            for base, words in _spans(life, depth):
                taken.update(range(base, base + words))
    return len(taken)


def _spans(life: Life, depth: int) -> Iterator[tuple[int, int]]:
    """First word and words of a window's pieces: behind the last word of a bank comes its first."""
    base, words = life.base % depth, min(life.words, depth)
    yield base, min(words, depth - base)
    if base + words > depth:
        yield 0, base + words - depth

"""Figures of images, runs, studies and builds, for notebooks and for the page of the report.

Every function returns a `Figure`: a Plotly figure, a text that says what it shows, and its numbers
as a table. A notebook draws it when it is the last value of a cell.

    from secateur.report import figures
    figures.cycles(secateur.load("model.sec"))
"""

from __future__ import annotations

from secateur.errors import SecateurError

try:
    import plotly  # noqa: F401
except ImportError:
    raise SecateurError(
        "reports need Plotly, which is missing; pip install 'secateur[report]'"
    ) from None

from secateur.report.figures.blocks import blocks, density
from secateur.report.figures.build import clock, path, resources
from secateur.report.figures.cycles import Cycles, cycles, layer_cycles, parts
from secateur.report.figures.figure import Figure, Metric
from secateur.report.figures.memory import lives, memory
from secateur.report.figures.network import network
from secateur.report.figures.run import (
    answers,
    confusion,
    learning,
    robustness,
    sensitivity,
)
from secateur.report.figures.search import trials
from secateur.report.figures.study import front, variants
from secateur.report.figures.values import activations, noise, weights

__all__ = [
    "Cycles", "Figure", "Metric", "activations", "answers", "blocks", "clock", "confusion",
    "cycles", "density", "front", "layer_cycles", "learning", "lives", "memory", "network", "noise",
    "parts", "path", "resources", "robustness", "sensitivity", "trials", "variants", "weights",
]  # fmt: skip

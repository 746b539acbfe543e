"""Figures that are measured: from the tables of a page, or from an image compiled here."""

from __future__ import annotations

import copy
import re
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from docs.pictures.style import BLUE, GREEN, GREY, ORANGE, RED, panels, svg_of
from secateur.api import compile
from secateur.pruning import prune
from secateur.quantisation.prepare import quantize
from secateur.report.summary import summary

NETWORKS = Path(__file__).resolve().parents[1] / "explanation" / "networks.md"
Points = dict[str, tuple[float, float, float]]


def study(section: str) -> Points:
    """Cycles, accuracy and its deviation per variant, as a study's table on the page has them."""
    text = NETWORKS.read_text().partition(f"\n### {section}")[2].partition("\n### ")[0]
    found: Points = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        shown = re.match(r"([\d.]+) %, ([\d.]+)", cells[2]) if len(cells) == 7 else None
        if shown:
            name = re.sub(r"[`:].*", "", cells[0].strip("`"))
            found[name] = (float(cells[5].replace(",", "")), *map(float, shown.groups()))
    return found


def budget() -> str:
    """Cycles against accuracy: what each way to spend the same cycles keeps."""
    figure, charts = panels(2, (8.4, 3.6))
    sections = ("ResNet-8 on CIFAR-10", "DS-CNN on keywords")
    for axes, section in zip(charts, sections, strict=True):
        found = study(section)
        for name, (cycles, accuracy, deviation) in found.items():
            if accuracy < 60:
                continue
            first = {"dense": GREY, "the recipe": GREEN}.get(name, BLUE)
            colour = RED if name in ("element", "random") else first
            axes.errorbar(cycles / 1000, accuracy, yerr=deviation, fmt="o", color=colour, ms=4)
            aside = (4, 5) if name != "the recipe" else (-48, 5)
            axes.annotate(
                name, (cycles / 1000, accuracy), aside, textcoords="offset points", fontsize=7
            )
        axes.set_title(section, fontsize=9)
        axes.set_xlabel("thousand cycles per inference", fontsize=8)
        axes.set_ylabel("int8 accuracy, %", fontsize=8)
        axes.margins(x=0.18)
    return svg_of(figure)


class Small(nn.Module):
    """A residual network of five layers, with the sizes that a small camera would use."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.left, self.right = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(2))
        self.wide = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.last = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores."""
        x = torch.relu(self.first(x))
        x = torch.relu(x + self.right(torch.relu(self.left(x))))
        return self.last(torch.relu(self.wide(x)).mean((2, 3)))


@cache
def images() -> tuple[dict, dict]:  # type: ignore[type-arg]
    """Summaries of a network, dense and with a quarter of the blocks of its inner layers."""
    torch.manual_seed(0)
    dense = Small().eval()
    x = torch.rand(16, 3, 24, 24)
    pruned = copy.deepcopy(dense)
    prune(pruned, density=0.25, skip=("first", "last"))
    made = [
        summary(compile(quantize(model, x), target="8x8", check=False)) for model in (dense, pruned)
    ]
    return made[0], made[1]


def layers() -> str:
    """Cycles of each layer, dense beside pruned, with the bound."""
    dense, pruned = images()
    names = [layer["name"] for layer in dense["layers"]]
    places = np.arange(len(names))
    figure, (axes,) = panels(1, (7.0, 3.2))
    for offset, made, colour, label in (
        (-0.2, dense, GREY, "dense"), (0.2, pruned, BLUE, "a quarter of the blocks"),
    ):  # fmt: skip
        by_name = {layer["name"]: layer for layer in made["layers"]}
        cycles = [by_name[name]["cycles"] for name in names]
        bounds = [by_name[name]["bound_cycles"] for name in names]
        axes.bar(places + offset, cycles, 0.38, color=colour, label=label)
        axes.plot(places + offset, bounds, "_", color=ORANGE, ms=14, mew=2)
    axes.plot([], [], "_", color=ORANGE, ms=12, mew=2, label="bound: nonzero MACs / 64")
    axes.set_xticks(places, names, fontsize=8)
    axes.set_ylabel("cycles", fontsize=8)
    axes.set_title(f"{dense['cycles']:,} cycles dense, {pruned['cycles']:,} pruned", fontsize=9)
    axes.legend(fontsize=8, frameon=False)
    return svg_of(figure)


def bank() -> str:
    """The window of every tensor in the words of a bank."""
    _, pruned = images()
    figure, (axes,) = panels(1, (7.0, 2.6))
    for index, window in enumerate(pruned["memory"]):
        colour = GREEN if window["clear"] else BLUE
        axes.barh(index, window["words"], left=window["base"], color=colour, height=0.6)
        axes.text(
            window["base"] + window["words"] + 3, index,
            f"{window['tensor']}, {window['words']} words", va="center", fontsize=7,
        )  # fmt: skip
    axes.invert_yaxis()
    axes.set_yticks([])
    axes.margins(x=0.35)
    axes.set_xlim(left=0)
    axes.set_xlabel("word of the bank", fontsize=8)
    axes.set_title("tensors in the order of the program, top to bottom", fontsize=9)
    return svg_of(figure)

"""Recurrent networks and the streaming wake word on 8 x 8 with filter lanes, and memories that hold
them: ``python -m docs.tables.steps`` prints the table of recurrent.md.

Weights are random. A quarter: a quarter of the blocks of each layer, by magnitude; depthwise layers
and those of fewer than 8 outputs are left whole.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from docs.tables.networks import ROOMY
from secateur.capture.recurrent import decompose
from secateur.capture.streaming import frames_of, streaming
from secateur.pruning import prune
from secateur.report.summary import summary
from tests.support.pipeline import build, compile_for

FRAMES, BINS = 30, 40


class Recurrent(nn.Module):
    """A recurrent layer and a linear one for every step."""

    def __init__(self, kind: type[nn.Module], inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.inner = kind(inputs, hidden, batch_first=True)
        self.last = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(x)[0])


def wake_word() -> nn.Sequential:
    """The streaming wake word of MLPerf Tiny: four depthwise separable layers over time."""
    layers, inputs = list[nn.Module](), BINS
    for kernel, outputs in ((3, 128), (5, 64), (10, 64), (15, 32)):
        layers += [
            nn.Conv1d(inputs, inputs, kernel, groups=inputs, bias=False),
            nn.Conv1d(inputs, outputs, 1, bias=False),
            nn.BatchNorm1d(outputs),
            nn.ReLU(),
        ]
        inputs = outputs
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs, 3))


def windows(model: nn.Module) -> tuple[nn.Module, Tensor]:
    """The model, and what it is calibrated with."""
    return model, torch.randn(4, BINS, FRAMES)


def frames(model: nn.Module) -> tuple[nn.Module, Tensor]:
    """The model of one step, and sequences of frames."""
    example = torch.randn(4, BINS, FRAMES)
    return streaming(model.eval(), example[:2]), frames_of(torch.randn(4, BINS, FRAMES + 4), 2)


def sequences(inputs: int) -> Callable[[nn.Module], tuple[nn.Module, Tensor]]:
    return lambda model: (model, torch.randn(4, 6, inputs))


ROWS: dict[str, tuple[Callable[[], nn.Module], Callable[..., tuple[nn.Module, Tensor]]]] = {
    "LSTM(28, 20), Linear(20, 10)": (lambda: Recurrent(nn.LSTM, 28, 20, 10), sequences(28)),
    "GRU(462, 154), Linear(154, 462)": (
        lambda: Recurrent(nn.GRU, 462, 154, 462),
        sequences(462),
    ),
    "streaming wake word, a window": (wake_word, windows),
    "streaming wake word, a step": (wake_word, frames),
}


def _whole(named: tuple[str, nn.Module]) -> str:
    """The name of a layer that is left whole, else nothing."""
    name, layer = named
    small = isinstance(layer, nn.Linear) and layer.out_features < 8
    return name if small or (isinstance(layer, nn.Conv1d) and layer.groups > 1) else ""


def cycles(name: str, density: float) -> tuple[int, float]:
    """Cycles of an inference, and the bound: weights that are not zero over multipliers."""
    torch.manual_seed(0)
    make, example = ROWS[name]
    model = decompose(make().eval())
    if density < 1:
        prune(
            model, density=density, n=8, skip=list(filter(None, map(_whole, model.named_modules())))
        )
    found = summary(compile_for(build(*example(model)), ROOMY))
    return found["cycles"], found["bound_cycles"]


def main() -> None:
    """Print the table."""
    logging.disable(logging.WARNING)
    print("| network | dense, cycles | of the bound | at a quarter | of the bound |")
    print("| --- | --- | --- | --- | --- |")
    for name in ROWS:
        cells = [name]
        for density in (1.0, 0.25):
            taken, bound = cycles(name, density)
            cells += [f"{taken:,}", f"{bound / taken:.0%}"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

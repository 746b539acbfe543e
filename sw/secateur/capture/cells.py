"""One step of GRU, LSTM and RNN, made of Linear layers.

References
----------
GRU: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
Translation", EMNLP 2014. LSTM: Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural
Computation, 1997. RNN: Elman, "Finding Structure in Time", Cognitive Science, 1990.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

#: Of a gate, the product of its Linear layer with the step's input, (N, hidden).
Side = Callable[[str], Tensor]


class Cell(nn.Module):
    """One step of a recurrent layer; two Linear layers per gate, ``GATE_x`` and ``GATE_h``.

    Parameters
    ----------
    inputs, hidden : widths
    bias : of all Linear layers
    projected : width to which the output is projected; 0 for none

    ``forward`` takes x (N, inputs) and a list of ``states`` tensors, and returns the new ones; the
    first is the output. All are (N, hidden), but the output is (N, projected) if it is projected.
    """

    states = 1
    gates: tuple[str, ...] = ()

    def __init__(self, inputs: int, hidden: int, bias: bool = True, projected: int = 0) -> None:
        super().__init__()
        for gate in self.gates:
            self.add_module(f"{gate}_x", nn.Linear(inputs, hidden, bias=bias))
            self.add_module(f"{gate}_h", nn.Linear(projected or hidden, hidden, bias=bias))
        self.projection = nn.Linear(hidden, projected, bias=False) if projected else None

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the states, without the batch; pruning may change them."""
        hidden = cast(nn.Linear, self.get_submodule(f"{self.gates[0]}_h")).out_features
        first = hidden if self.projection is None else self.projection.out_features
        return [(first,), *[(hidden,)] * (self.states - 1)]

    def of(self, gate: str, side: str, value: Tensor) -> Tensor:
        """One Linear layer of a gate.

        Parameters
        ----------
        gate : one of ``gates``
        side : "x" for the layer of the input, "h" for that of the state
        value : (..., inputs) or (..., outputs)

        Returns
        -------
        product : (..., hidden)
        """
        return cast(Tensor, self.get_submodule(f"{gate}_{side}")(value))

    def forward(self, x: Tensor, states: list[Tensor]) -> list[Tensor]:
        """The next states."""
        return self.step(lambda gate: self.of(gate, "x", x), states)

    def step(self, side: Side, states: list[Tensor]) -> list[Tensor]:
        """The next states, of what the Linear layers of the input give."""
        raise NotImplementedError


class GruCell(Cell):
    """h' = h + (1 - z) * (n - h), as torch.nn.GRUCell.

    Where a state is kept, z is near 1, and so is the error of the rounded difference kept out.
    """

    gates = ("reset", "update", "new")

    def step(self, side: Side, states: list[Tensor]) -> list[Tensor]:
        """As of ``Cell``."""
        (h,) = states
        reset = torch.sigmoid(side("reset") + self.of("reset", "h", h))
        kept = side("update") + self.of("update", "h", h)
        new = torch.tanh(side("new") + reset * self.of("new", "h", h))
        return [h + torch.sigmoid(-kept) * (new - h)]


class LstmCell(Cell):
    """c' = f * c + i * g, h' = o * tanh(c'), as torch.nn.LSTMCell; h' may be projected."""

    states = 2
    gates = ("input", "forget", "cell", "output")

    def step(self, side: Side, states: list[Tensor]) -> list[Tensor]:
        """As of ``Cell``."""
        h, c = states
        taken, kept, shown = (
            torch.sigmoid(side(gate) + self.of(gate, "h", h))
            for gate in ("input", "forget", "output")
        )
        c = kept * c + taken * torch.tanh(side("cell") + self.of("cell", "h", h))
        h = shown * torch.tanh(c)
        return [h if self.projection is None else self.projection(h), c]


class RnnCell(Cell):
    """h' = tanh(x + h), as torch.nn.RNNCell; with ``relu``, ReLU instead of tanh."""

    gates = ("hidden",)
    relu = False

    def step(self, side: Side, states: list[Tensor]) -> list[Tensor]:
        """As of ``Cell``."""
        total = side("hidden") + self.of("hidden", "h", states[0])
        return [torch.relu(total) if self.relu else torch.tanh(total)]


class OneStep(nn.Module):
    """A cell called as torch.nn.GRUCell and its like are."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, hx: Tensor | tuple[Tensor, Tensor] | None = None) -> object:
        """The new state, or the tuple of both; states that are not given are zero."""
        if hx is None:
            zeros = [torch.zeros(1, *shape, device=x.device) for shape in self.cell.shapes]
            hx = zeros[0] if len(zeros) == 1 else (zeros[0], zeros[1])
        if isinstance(hx, tuple | list):
            return tuple(self.cell(x, list(hx)))
        return self.cell(x, [hx])[0]


CELLS: dict[type, type[Cell]] = {
    nn.GRU: GruCell,
    nn.LSTM: LstmCell,
    nn.RNN: RnnCell,
    nn.GRUCell: GruCell,
    nn.LSTMCell: LstmCell,
    nn.RNNCell: RnnCell,
}


def cell_of(part: nn.Module, inputs: int, suffix: str = "") -> Cell:
    """The cell with the weights of a layer of torch.

    Parameters
    ----------
    part : nn.GRU, nn.LSTM, nn.RNN, or one of their cells
    inputs : width of the input
    suffix : of the names of its weights: the layer and the direction

    Returns
    -------
    cell : in Linear layers of its own
    """
    like = cast(nn.RNNBase, part)
    projected = getattr(like, "proj_size", 0)
    cell = CELLS[type(part)](inputs, like.hidden_size, bool(like.bias), projected)
    if isinstance(cell, RnnCell):
        cell.relu = like.nonlinearity in ("relu", "RNN_RELU")
    with torch.no_grad():
        for side, letter in (("ih", "x"), ("hh", "h")):
            for kind in ("weight", "bias"):
                joint = getattr(part, f"{kind}_{side}{suffix}", None)
                if joint is None or isinstance(joint, bool):
                    continue
                # Torch's joint matrices hold the rows of one gate after the other.
                for name, rows in zip(cell.gates, joint.chunk(len(cell.gates)), strict=True):
                    getattr(cell.get_submodule(f"{name}_{letter}"), kind).copy_(rows)
        if cell.projection is not None:
            cell.projection.weight.copy_(getattr(part, f"weight_hr{suffix}"))
    return cell

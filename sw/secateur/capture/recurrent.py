"""GRU, LSTM and RNN made of Linear layers, which can be pruned, quantised and run step by step.

    model = decompose(model)    # in place of nn.GRU, nn.LSTM, nn.RNN and their cells

The array runs one time step per inference, and keeps the state in its banks between them.

References
----------
GRU: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
Translation", EMNLP 2014. LSTM: Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural
Computation, 1997. RNN: Elman, "Finding Structure in Time", Cognitive Science, 1990.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.fx.computed import copied


@dataclass
class Tape:
    """The old and the new states of a step; ``before`` is None outside of steps."""

    before: list[Tensor] | None = None
    after: list[Tensor] | None = None


class Stateful(nn.Module):
    """A module whose state is kept from one time step to the next, zero at first.

    Attributes
    ----------
    tape : state of the present step
    path : name of the module in the model that is decomposed
    """

    def __init__(self) -> None:
        super().__init__()
        self.tape = Tape()
        self.path = ""

    @property
    def state_shapes(self) -> list[tuple[int, ...]]:
        """Of each state, without the batch."""
        raise SecateurError(f"{type(self).__name__} must define state_shapes")

    def begin(self, like: Tensor, batch: int) -> list[Tensor]:
        """The states to begin with, (``batch``, ...) each; ``like`` gives type and device."""
        if self.tape.before is not None:
            return list(self.tape.before)
        return [like.new_zeros(batch, *shape) for shape in self.state_shapes]

    def leave(self, states: list[Tensor]) -> None:
        """Keep the states for the next step.

        Raises
        ------
        SecateurError : the module is called twice in a step
        """
        if self.tape.after is not None:
            raise self.refuse("is called twice", "use a layer for each call")
        if self.tape.before is not None:
            self.tape.after = states

    def refuse(self, reason: str, remedy: str) -> SecateurError:
        """The one-line error for this layer."""
        name = f"layer {self.path!r}" if self.path else type(self).__name__
        return SecateurError(f"{name}: {reason}; {remedy}")


class Cell(nn.Module):
    """One step of a recurrent layer; two Linear layers per gate, ``GATE_x`` and ``GATE_h``.

    Parameters
    ----------
    inputs, hidden : widths
    bias : of all Linear layers

    ``forward`` takes x (N, inputs) and a list of ``states`` tensors (N, hidden), and returns the
    new ones; the first is the output.
    """

    states = 1
    gates: tuple[str, ...] = ()

    def __init__(self, inputs: int, hidden: int, bias: bool = True) -> None:
        super().__init__()
        for gate in self.gates:
            self.add_module(f"{gate}_x", nn.Linear(inputs, hidden, bias=bias))
            self.add_module(f"{gate}_h", nn.Linear(hidden, hidden, bias=bias))

    @property
    def hidden(self) -> int:
        """Width of the states, which pruning may change."""
        return cast(nn.Linear, self.get_submodule(f"{self.gates[0]}_h")).out_features

    def of(self, gate: str, side: str, value: Tensor) -> Tensor:
        """One Linear layer of a gate.

        Parameters
        ----------
        gate : one of ``gates``
        side : "x" for the layer of the input, "h" for that of the state
        value : (N, inputs) or (N, hidden)

        Returns
        -------
        product : (N, hidden)
        """
        return cast(Tensor, self.get_submodule(f"{gate}_{side}")(value))

    def both(self, gate: str, x: Tensor, h: Tensor) -> Tensor:
        """The sum of both Linear layers of a gate.

        Parameters
        ----------
        gate : one of ``gates``
        x : (N, inputs)
        h : (N, hidden)

        Returns
        -------
        sum : (N, hidden)
        """
        return self.of(gate, "x", x) + self.of(gate, "h", h)


class GruCell(Cell):
    """h' = n + z * (h - n), as torch.nn.GRUCell."""

    gates = ("reset", "update", "new")

    def forward(self, x: Tensor, states: list[Tensor]) -> list[Tensor]:
        (h,) = states
        reset, update = (torch.sigmoid(self.both(gate, x, h)) for gate in ("reset", "update"))
        new = torch.tanh(self.of("new", "x", x) + reset * self.of("new", "h", h))
        return [new + update * (h - new)]


class LstmCell(Cell):
    """c' = f * c + i * g, h' = o * tanh(c'), as torch.nn.LSTMCell."""

    states = 2
    gates = ("input", "forget", "cell", "output")

    def forward(self, x: Tensor, states: list[Tensor]) -> list[Tensor]:
        h, c = states
        taken, kept, shown = (
            torch.sigmoid(self.both(gate, x, h)) for gate in ("input", "forget", "output")
        )
        c = kept * c + taken * torch.tanh(self.both("cell", x, h))
        return [shown * torch.tanh(c), c]


class RnnCell(Cell):
    """h' = tanh(x + h), as torch.nn.RNNCell; with ``relu``, ReLU instead of tanh."""

    gates = ("hidden",)
    relu = False

    def forward(self, x: Tensor, states: list[Tensor]) -> list[Tensor]:
        total = self.both("hidden", x, states[0])
        return [torch.relu(total) if self.relu else torch.tanh(total)]


class Recurrent(Stateful):
    """Layers of cells over a sequence, as torch.nn.GRU, LSTM and RNN take and return it.

    Parameters
    ----------
    cells : one per layer
    batch_first : x is (N, T, F), otherwise (T, N, F)
    dropout : between layers, in training
    """

    def __init__(self, cells: Sequence[Cell], *, batch_first: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.cells = nn.ModuleList(cells)
        self.dropout = nn.Dropout(dropout)
        self.batch_first = batch_first

    @property
    def state_shapes(self) -> list[tuple[int, ...]]:
        """Of each layer's states."""
        cells = [cast(Cell, cell) for cell in self.cells]
        return [(cell.hidden,) for cell in cells for _ in range(cell.states)]

    def forward(
        self, x: Tensor, hx: object = None
    ) -> tuple[Tensor, Tensor | tuple[Tensor, Tensor]]:
        """Outputs of all steps, and the last states, (layers, N, hidden)."""
        if hx is not None:
            raise self.refuse(
                "is given a state to begin with", "omit it: the state begins with zeros"
            )
        if not isinstance(x, Tensor) or x.dim() != 3:
            kind = f"{tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise self.refuse(f"is given {kind}", "give a tensor (N, T, F), sequences not packed")
        time = 1 if self.batch_first else 0
        states = self.begin(x, x.shape[1 - time])
        if states[0].shape[0] != x.shape[1 - time]:
            raise self.refuse(
                "takes (T, N, F), is given (N, T, F)", "make it with batch_first=True"
            )
        outputs = []
        for step in x.unbind(time):
            value, at = step, 0
            for index, cell in enumerate(self.cells):
                count = cast(Cell, cell).states
                states[at : at + count] = cell(value, states[at : at + count])
                value, at = states[at], at + count
                if index < len(self.cells) - 1:
                    value = self.dropout(value)
            outputs.append(value)
        self.leave(states)
        count = cast(Cell, self.cells[0]).states
        ends = tuple(torch.stack(states[first::count]) for first in range(count))
        return torch.stack(outputs, time), ends if count == 2 else ends[0]  # type: ignore[return-value]


class Steps(Stateful):
    """A model of one time step, ``(x, *states) -> (y, *states)``, run over a sequence (N, T, F).

    Parameters
    ----------
    model : e.g. one with torch.nn.GRUCell
    state_shapes : of its states, without the batch

    ``forward`` returns y of the last step.
    """

    def __init__(self, model: nn.Module, state_shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.model = model
        self._shapes = [tuple(shape) for shape in state_shapes]

    @property
    def state_shapes(self) -> list[tuple[int, ...]]:
        """As given."""
        return self._shapes

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, F) to the y of the last step."""
        states = self.begin(x, x.shape[0])
        y = x
        for step in x.unbind(1):
            y, *states = self.model(step, *states)
        if len(states) != len(self.state_shapes):
            raise SecateurError(
                f"the model returns {len(states)} states, it was given {len(self.state_shapes)}"
            )
        self.leave(states)
        return y


class _OneStep(nn.Module):
    """A cell called as torch.nn.GRUCell and its like are."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, hx: Tensor | tuple[Tensor, Tensor]) -> object:
        if isinstance(hx, tuple | list):
            return tuple(self.cell(x, list(hx)))
        return self.cell(x, [hx])[0]


_LAYERS: dict[type, type[Cell]] = {nn.GRU: GruCell, nn.LSTM: LstmCell, nn.RNN: RnnCell}
_CELLS: dict[type, type[Cell]] = {
    nn.GRUCell: GruCell,
    nn.LSTMCell: LstmCell,
    nn.RNNCell: RnnCell,
}


def is_recurrent(model: object) -> bool:
    """Whether a module has recurrent layers, decomposed or not."""
    kinds = (Stateful, *_LAYERS)
    return isinstance(model, nn.Module) and any(isinstance(m, kinds) for m in model.modules())


def decompose(model: nn.Module) -> nn.Module:
    """A copy of ``model`` with the same function, its recurrent layers made of Linear ones.

    Raises
    ------
    SecateurError : a layer has two directions, or projections
    """
    if not any(isinstance(m, (*_LAYERS, *_CELLS)) for m in model.modules()):
        return model
    model = copied(model)
    if type(model) in _LAYERS or type(model) in _CELLS:
        return _decomposed(model, type(model).__name__)
    for name, module in list(model.named_modules()):
        for child, part in list(module.named_children()):
            if type(part) in _LAYERS or type(part) in _CELLS:
                path = f"{name}.{child}".strip(".")
                setattr(module, child, _decomposed(part, path).train(part.training))
    return model


def _decomposed(part: nn.Module, path: str) -> nn.Module:
    if type(part) in _CELLS:
        given = cast(nn.GRUCell, part)
        cell = _cell(_CELLS[type(part)], given.input_size, given.hidden_size, given)
        _copy_gates(cell, part, "")
        return _OneStep(cell)
    layers = cast(nn.GRU, part)
    if layers.bidirectional:
        raise SecateurError(
            f"layer {path!r}: runs in both directions, but later steps are not known when a step "
            f"is computed; use bidirectional=False"
        )
    if layers.proj_size:
        raise SecateurError(f"layer {path!r}: has projections; use proj_size=0 and a Linear layer")
    cells = []
    for index in range(layers.num_layers):
        inputs = layers.input_size if index == 0 else layers.hidden_size
        cell = _cell(_LAYERS[type(part)], inputs, layers.hidden_size, layers)
        _copy_gates(cell, part, f"_l{index}")
        cells.append(cell)
    return Recurrent(cells, batch_first=layers.batch_first, dropout=layers.dropout)


def _cell(kind: type[Cell], inputs: int, hidden: int, like: nn.RNNBase | nn.RNNCellBase) -> Cell:
    cell = kind(inputs, hidden, bool(like.bias))
    if isinstance(cell, RnnCell):
        cell.relu = like.nonlinearity in ("relu", "RNN_RELU")
    return cell


def _copy_gates(cell: Cell, part: nn.Module, suffix: str) -> None:
    """The rows of torch's joint matrices are those of the gates, one after the other."""
    with torch.no_grad():
        for side, letter in (("ih", "x"), ("hh", "h")):
            for kind in ("weight", "bias"):
                joint = getattr(part, f"{kind}_{side}{suffix}", None)
                if joint is None or isinstance(joint, bool):
                    continue
                for name, rows in zip(cell.gates, joint.chunk(len(cell.gates)), strict=True):
                    getattr(cell.get_submodule(f"{name}_{letter}"), kind).copy_(rows)

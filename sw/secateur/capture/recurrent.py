"""GRU, LSTM and RNN made of Linear layers, which can be pruned, quantised and run step by step.

    model = decompose(model)    # in place of nn.GRU, nn.LSTM, nn.RNN and their cells

Where a model can run step by step, the array runs one time step per inference, and keeps the state
in its banks between them. Where it cannot, a whole sequence is one inference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from secateur.capture.cells import CELLS, Cell, OneStep, cell_of
from secateur.errors import SecateurError
from secateur.fx.computed import copied

#: Modules of torch that take sequences.
_LAYERS = (nn.GRU, nn.LSTM, nn.RNN)
_States = Tensor | tuple[Tensor, Tensor]


class NoSequences(SecateurError):
    """A recurrent layer is given something else than sequences of its own layout."""


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
    initial : what the states begin with, (1, ...) each, whatever is given; empty for zeros
    path : name of the module in the model that is decomposed
    """

    def __init__(self) -> None:
        super().__init__()
        self.tape = Tape()
        self.path = ""
        self.initial: list[Tensor] | None = None

    @property
    def state_shapes(self) -> list[tuple[int, ...]]:
        """Of each state, without the batch."""
        raise SecateurError(f"{type(self).__name__} must define state_shapes")

    def begin(self, like: Tensor, batch: int = 1) -> list[Tensor]:
        """The states to begin with, (N, ...) each; of a sequence (``batch``, ...).

        On the array states begin with zeros, so what is kept is the difference from ``initial``.
        """
        before, initial = self.tape.before, self.initial
        if not initial:
            shapes = [(batch, *shape) for shape in self.state_shapes]
            zeros = [torch.zeros(shape, device=like.device) for shape in shapes]
            return zeros if before is None else list(before)
        if before is None:
            return list(initial)
        return [kept + first for kept, first in zip(before, initial, strict=True)]

    def leave(self, states: list[Tensor]) -> None:
        """Keep the states for the next step.

        Raises
        ------
        SecateurError : the module is called twice in a step
        """
        if self.tape.after is not None:
            raise self.refuse("is called twice", "use a layer for each call")
        if self.tape.before is None:
            return
        if self.initial:
            states = [s - first for s, first in zip(states, self.initial, strict=True)]
        self.tape.after = states

    def refuse(
        self, reason: str, remedy: str, kind: type[SecateurError] = SecateurError
    ) -> SecateurError:
        """The one-line error for this layer.

        Parameters
        ----------
        reason : what is wrong
        remedy : what to do instead
        kind : of the error
        """
        name = f"layer {self.path!r}" if self.path else type(self).__name__
        return kind(f"{name}: {reason}; {remedy}")


class Recurrent(Stateful):
    """Layers of cells over a sequence, as torch.nn.GRU, LSTM and RNN take and return it.

    Parameters
    ----------
    cells : of each layer one; or two, the second of which runs backwards
    batch_first : x is (N, T, F), otherwise (T, N, F)
    directions : 1 or 2
    dropout : between layers, in training
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        *,
        batch_first: bool,
        directions: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.cells = nn.ModuleList(cells)
        self.dropout = nn.Dropout(dropout)
        self.batch_first, self.directions = batch_first, directions

    @property
    def state_shapes(self) -> list[tuple[int, ...]]:
        """Of each cell's states."""
        return [shape for cell in self.cells for shape in cast(Cell, cell).shapes]

    def forward(self, x: Tensor, hx: _States | None = None) -> tuple[Tensor, _States]:
        """Outputs of all steps, and the last states, (cells, N, width)."""
        states, time = self._begun(x, hx), 1 if self.batch_first else 0
        left: list[Tensor] = []
        for index, cell in enumerate(cast(Iterable[Cell], self.cells)):
            direction = index % self.directions
            if direction == 0:
                x, outputs = self.dropout(x) if index else x, []
            begun = states[index * cell.states : (index + 1) * cell.states]
            steps, last = _over(cell, x, time, begun, backwards=direction == 1)
            outputs.append(steps)
            left += last
            if direction == self.directions - 1:
                x = outputs[0] if self.directions == 1 else torch.cat(outputs, 2)
        self.leave(left)
        count = cast(Cell, self.cells[0]).states
        ends = tuple(torch.stack(left[first::count]) for first in range(count))
        return x, ends if count == 2 else ends[0]  # type: ignore[return-value]

    def _begun(self, x: Tensor, hx: _States | None) -> list[Tensor]:
        """The states to begin with."""
        if not isinstance(x, Tensor) or x.dim() != 3:
            kind = f"{tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            remedy = "give a tensor (N, T, F), sequences not packed"
            raise self.refuse(f"is given {kind}", remedy, NoSequences)
        stepping = self.tape.before is not None
        if stepping and self.directions == 2:
            raise self.refuse("runs in both directions", "run over whole sequences")
        if hx is not None and self.initial is None:
            if stepping:
                raise self.refuse("is given a state to begin with", "run over whole sequences")
            given = hx if isinstance(hx, tuple | list) else (hx,)
            return [part[index] for index in range(len(self.cells)) for part in given]
        states, samples = self.begin(x), x.shape[0 if self.batch_first else 1]
        if stepping and states[0].shape[0] != samples:
            remedy = "make it with batch_first=True"
            raise self.refuse("takes (T, N, F), is given (N, T, F)", remedy, NoSequences)
        return states


def _over(
    cell: Cell, x: Tensor, time: int, states: list[Tensor], *, backwards: bool
) -> tuple[Tensor, list[Tensor]]:
    """A cell over a sequence: its outputs, and the last states.

    The products with the inputs of all steps are one layer of the array, those with the states one
    of each step.
    """
    count = x.shape[time]
    found: dict[int, Tensor] = {}
    if count > 1:
        whole = {gate: cell.of(gate, "x", x).unbind(time) for gate in cell.gates}
    for t in reversed(range(count)) if backwards else range(count):
        if count > 1:
            states = cell.step({gate: whole[gate][t] for gate in cell.gates}.__getitem__, states)
        else:
            states = cell(x.unbind(time)[0], states)
        found[t] = states[0]
    return torch.stack([found[t] for t in range(count)], time), states


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


def is_recurrent(model: object) -> bool:
    """Whether a module has recurrent layers or cells, decomposed or not."""
    kinds = (Stateful, OneStep, *CELLS)
    return isinstance(model, nn.Module) and any(isinstance(m, kinds) for m in model.modules())


def decompose(model: nn.Module) -> nn.Module:
    """A copy of ``model`` with the same function, its recurrent layers made of Linear ones."""
    if not any(isinstance(m, tuple(CELLS)) for m in model.modules()):
        return model
    model = copied(model)
    if type(model) in CELLS:
        return _decomposed(model)
    for module in list(model.modules()):
        for child, part in list(module.named_children()):
            if type(part) in CELLS:
                setattr(module, child, _decomposed(part).train(part.training))
    return model


def _decomposed(part: nn.Module) -> nn.Module:
    if not isinstance(part, _LAYERS):
        return OneStep(cell_of(part, cast(nn.GRUCell, part).input_size))
    directions = 2 if part.bidirectional else 1
    cells, inputs = [], part.input_size
    for index in range(part.num_layers):
        ends = [f"_l{index}", f"_l{index}_reverse"][:directions]
        cells += [cell_of(part, inputs, end) for end in ends]
        inputs = directions * (part.proj_size or part.hidden_size)
    return Recurrent(
        cells, batch_first=part.batch_first, directions=directions, dropout=part.dropout
    )

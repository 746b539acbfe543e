"""Random models for Hypothesis of what only moves values: views, slices, cuts, paddings, ..."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

Move = Callable[[Tensor], Tensor]
#: Values of a map, without samples, at most.
MOST = 2000


@dataclass(frozen=True)
class Step:
    """One step: a move, or a layer that reads what the moves before it have made."""

    name: str
    move: Move | None = None
    layer: str = ""


def _moves(shape: tuple[int, ...], draw: Any) -> dict[str, Move]:
    """Moves of a map (C, H, W), and how they are spelled."""
    channels, height, width = shape
    found: dict[str, Move] = {
        "flip": lambda x: x.flip(draw_dims),
        "roll": lambda x: x.roll(shift, axis),
        "transpose": lambda x: x.transpose(2, 3),
        "heights": lambda x: x.permute(0, 2, 1, 3),
        "slice": lambda x: x[:, low:, :, low if width > low else 0 :],
        "steps": lambda x: x[:, :, ::2, 1::2] if width > 1 else x[:, :, ::2],
        "pad": lambda x: F.pad(x, (0, 1, 1, 0)),
        "value": lambda x: F.pad(x, (1, 0, 0, 1), value=0.25),
        "nearest": lambda x: F.interpolate(x, scale_factor=2),
        "repeat": lambda x: x.repeat(1, 1, 1, 2),
        "cat": lambda x: torch.cat([x, x.flip(3)], cat_axis),
        "stack": lambda x: torch.stack([x, x], 2).flatten(1, 2),
        "chunks": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
        "lines": lambda x: x.flatten(2).view(x.size(0), channels, width, height),
        "swap": lambda x: torch.cat([x[:, :, -1:], x[:, :, :-1]], 2),
    }
    draw_dims = draw(st.sampled_from([(1,), (2,), (3,), (2, 3)]))
    axis, shift = draw(st.sampled_from([1, 2, 3])), draw(st.integers(1, 3))
    low = draw(st.integers(0, min(channels, 3) - 1))
    cat_axis = draw(st.sampled_from([1, 2, 3]))
    if min(height, width) > 1:
        found["reflect"] = lambda x: F.pad(x, (1, 1, 1, 0), mode="reflect")
        found["circular"] = lambda x: F.pad(x, (1, 1, 1, 1), mode="circular")
    if channels % 2 == 0:
        found["shuffle"] = lambda x: (
            x.unflatten(1, (2, channels // 2)).transpose(1, 2).flatten(1, 2)
        )
    if channels % 4 == 0:
        found["pixel shuffle"] = nn.PixelShuffle(2)
    if height % 2 == 0 and width % 2 == 0:
        found["pixel unshuffle"] = nn.PixelUnshuffle(2)
    return found


LAYERS = (
    "conv", "grouped", "transposed", "bilinear", "add", "gate", "mean", "tanh", "pool", "linear",
)  # fmt: skip


class Moves(nn.Module):
    """Steps one after the other, behind a convolution.

    The results of the steps ``returned`` are outputs, too. With ``several``, a second input is
    added to the first.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        steps: list[Step],
        returned: frozenset[int] = frozenset(),
        *,
        several: bool = False,
    ) -> None:
        super().__init__()
        self.returned, self.several = returned, several
        self.shape, self.steps, self.names = shape, steps, [step.name for step in steps]
        self.first = nn.Conv2d(shape[0], shape[0], 3, padding=1)
        self.layers = nn.ModuleList()
        x = torch.zeros(2, *shape)
        for step in steps:
            if step.move is None:
                self.layers.append(_layer(step.layer, x.shape[1], x.shape[3]))
            x = self._step(step, x, self.layers[-1] if self.layers else None)
        self.size = tuple(x.shape[1:])

    def _step(self, step: Step, x: Tensor, layer: nn.Module | None) -> Tensor:
        if step.move is not None:
            return step.move(x)
        assert layer is not None
        if step.layer == "add":
            return x + layer(x)
        if step.layer == "gate":
            return torch.sigmoid(layer(x).mean((2, 3), keepdim=True)) * x
        return layer(x)  # type: ignore[no-any-return]

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        x = x if y is None else x + y
        x, layers, outputs = torch.relu(self.first(x)), iter(self.layers), []
        for index, step in enumerate(self.steps):
            x = self._step(step, x, next(layers) if step.move is None else None)
            if index in self.returned:
                outputs.append(x)
        return (x, outputs) if self.returned else x

    @property
    def inputs(self) -> Any:
        """Four random samples."""
        x = torch.randn(4, *self.shape)
        return {"x": x, "y": torch.rand(4, *self.shape)} if self.several else x


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(3, keepdim=True)


def _layer(kind: str, channels: int, width: int) -> nn.Module:
    if kind == "grouped" and channels % 2 == 0:
        return nn.Conv2d(channels, channels, 3, padding=1, groups=2)
    if kind == "transposed":
        return nn.ConvTranspose2d(channels, 3, 3, 2, 1)
    if kind == "linear":
        return nn.Linear(width, 5)
    made = {
        "mean": Mean(), "tanh": nn.Tanh(), "pool": nn.MaxPool2d(2, 1, 1),
        "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    }  # fmt: skip
    return made.get(kind) or nn.Conv2d(channels, channels, 1)


@st.composite
def models(draw: Any) -> Moves:
    """A model of three to six steps; ``shape`` is that of its input."""
    shape = tuple(draw(st.integers(1, most)) for most in (6, 5, 6))
    x, steps = torch.zeros(2, *shape), list[Step]()
    for _ in range(draw(st.integers(3, 6))):
        if draw(st.booleans()):
            moves = _moves(tuple(x.shape[1:]), draw)
            name = draw(st.sampled_from(sorted(moves)))
            step = Step(name, moves[name])
        else:
            layer = draw(st.sampled_from(LAYERS))
            step = Step(layer, None, layer)
        made = Moves(shape, [*steps, step])
        if 0 < torch.Size(made.size).numel() <= MOST:
            steps.append(step)
            x = torch.zeros(2, *made.size)
    returned = frozenset(i for i in range(len(steps)) if draw(st.booleans()))
    several = draw(st.booleans())
    torch.manual_seed(draw(st.integers(0, 100)))
    return Moves(shape, steps, returned, several=several).eval()

"""Random models of one time step for Hypothesis: what hand-written cells do with states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from secateur.capture.recurrent import Steps

WIDTHS = (4, 8, 11)
FUNCTIONS = {"none": nn.Identity, "relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


@dataclass(frozen=True)
class Call:
    """One operation on earlier values: ``kind`` is add, mul, mix, cat or the name of a function
    behind a Linear of ``width`` outputs."""

    kind: str
    operands: tuple[int, ...]
    width: int


@dataclass(frozen=True)
class Recipe:
    """Values are numbered: 0 the input, then the states, then the results of ``calls``.

    ``after`` names the value that each state becomes, ``output`` what is returned, behind a Linear
    if ``projected``.
    """

    inputs: int
    states: tuple[int, ...]
    calls: tuple[Call, ...]
    after: tuple[int, ...]
    output: int
    projected: bool
    seed: int


class RandomStep(nn.Module):
    """The step that a recipe describes, ``(x, *states) -> (y, *states)``."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        torch.manual_seed(recipe.seed)
        widths = [recipe.inputs, *recipe.states]
        layers = []
        for call in recipe.calls:
            inner: nn.Module = nn.Identity()
            if call.kind in FUNCTIONS:
                linear = nn.Linear(widths[call.operands[0]], call.width)
                inner = nn.Sequential(linear, FUNCTIONS[call.kind]())
            layers.append(inner)
            widths.append(call.width)
        self.layers = nn.ModuleList(layers)
        self.last = nn.Linear(widths[recipe.output], 3) if recipe.projected else nn.Identity()

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        values = [x, *states]
        for call, layer in zip(self.recipe.calls, self.layers, strict=True):
            values.append(_result(call.kind, [values[i] for i in call.operands], layer))
        y = self.last(values[self.recipe.output])
        return (y, *(values[i] for i in self.recipe.after))


def _result(kind: str, operands: Sequence[Tensor], layer: nn.Module) -> Tensor:
    if kind == "add":
        return operands[0] + operands[1]
    if kind == "mul":
        return operands[0] * operands[1]
    if kind == "mix":
        return 0.75 * operands[0] + 0.25 * operands[1]
    if kind == "cat":
        return torch.cat(list(operands), 1)
    result: Tensor = layer(operands[0])
    return result


@st.composite
def recipes(draw: Any) -> Recipe:
    """Recipes with 1 to 4 states, each of them read by something and changed."""
    width = draw(st.sampled_from(WIDTHS))
    inputs = draw(st.sampled_from((width, 5)))
    sizes = st.sampled_from((width, width, width, 6))
    states = draw(st.lists(sizes, min_size=1, max_size=4))
    widths, calls = [inputs, *states], list[Call]()

    def add(kind: str, operands: tuple[int, ...], size: int) -> int:
        calls.append(Call(kind, operands, size))
        widths.append(size)
        return len(widths) - 1

    def index(size: int | None = None) -> int:
        fitting = [i for i, w in enumerate(widths) if size in (None, w)]
        return int(draw(st.sampled_from(fitting)))

    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from((*FUNCTIONS, "add", "mul", "mix", "cat", "cat")))
        first = index()
        if kind == "cat":
            others = draw(st.lists(st.integers(0, len(widths) - 1), min_size=1, max_size=2))
            add(kind, (first, *others), sum(widths[i] for i in (first, *others)))
        elif kind in FUNCTIONS:
            add(kind, (first,), draw(st.sampled_from((width, width, 6))))
        else:
            second = index(widths[first])
            kind = "add" if first == second else kind  # a mix of a value with itself is that value
            add(kind, (first, second), widths[first])
    after = []
    for number, size in enumerate(states, start=1):
        fitting = [i for i, w in enumerate(widths) if w == size and i != number]
        if not fitting or draw(st.booleans()):
            fitting.append(add("tanh", (index(),), size))
        after.append(int(draw(st.sampled_from(fitting))))
    output, projected = index(), draw(st.booleans())
    # What the array does not return as it is: its input and concatenations.
    plain = output > 0 and not (output > len(states) and _call(calls, states, output) == "cat")
    recipe = Recipe(
        inputs, tuple(states), tuple(calls), tuple(after), output, projected or not plain,
        draw(st.integers(0, 99)),
    )  # fmt: skip
    return _with_all_read(recipe)


def _call(calls: list[Call], states: list[int], value: int) -> str:
    return calls[value - len(states) - 1].kind


def _with_all_read(recipe: Recipe) -> Recipe:
    """The input and states that neither the output nor a state depends on become part of the
    output."""
    first_call, live = len(recipe.states) + 1, {recipe.output, *recipe.after}
    for value in range(first_call + len(recipe.calls) - 1, first_call - 1, -1):
        if value in live:
            live |= set(recipe.calls[value - first_call].operands)
    unread = tuple(i for i in range(first_call) if i not in live)
    if not unread:
        return recipe
    widths = [recipe.inputs, *recipe.states, *(call.width for call in recipe.calls)]
    parts = (recipe.output, *unread)
    call = Call("cat", parts, sum(widths[i] for i in parts))
    return replace(recipe, calls=(*recipe.calls, call), output=len(widths), projected=True)


def model_of(recipe: Recipe) -> Steps:
    """The recipe as a model of sequences (N, T, inputs)."""
    return Steps(RandomStep(recipe), [(width,) for width in recipe.states])


def sequences_for(recipe: Recipe, count: int = 3, steps: int = 10) -> Tensor:
    """Inputs (count, steps, inputs) between -1 and 1."""
    generator = torch.Generator().manual_seed(recipe.seed)
    return torch.rand(count, steps, recipe.inputs, generator=generator) * 2 - 1

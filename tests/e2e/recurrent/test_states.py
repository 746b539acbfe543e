"""States of hand-written steps: whatever becomes what, golden = PyTorch in every step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from secateur import api
from secateur.capture.recurrent import Steps
from secateur.errors import SecateurError
from secateur.quantisation.prepare import quantize
from tests.support.pipeline import build, check_image, compile_for, target
from tests.support.step_models import Recipe, model_of, recipes, sequences_for

WIDTH = 8
GEOMETRIES = ((8, 8), (4, 3), (2, 1), (16, 2))


def check_recipe(recipe: Recipe) -> None:
    built = build(model_of(recipe), sequences_for(recipe, steps=10))
    to = target(*GEOMETRIES[recipe.seed % len(GEOMETRIES)], bank_words=256)
    check_image(built, compile_for(built, to), to.geometry)  # outputs, too, where all is copied


@settings(max_examples=50, deadline=None, derandomize=True)
@given(recipes())
def test_random_steps(recipe: Recipe) -> None:
    check_recipe(recipe)


@pytest.mark.long
@settings(max_examples=500, deadline=None)
@given(recipes())
def test_many_random_steps(recipe: Recipe) -> None:
    check_recipe(recipe)


class Step(nn.Module):
    """A function of (step, x, *states) with a layer of its own, ``inner``, and one behind the
    output."""

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], width: int = WIDTH) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.inner, self.last = nn.Linear(width, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        y, *after = self.function(self, x, *states)
        return self.last(y), *after


STEPS: dict[str, tuple[int, Step]] = {
    "a delay line of three": (3, Step(lambda m, x, a, b, c: (c, x, a, b))),
    "a delay line in the other order": (3, Step(lambda m, x, a, b, c: (a, b, c, x))),
    "two that change places": (
        2,
        Step(lambda m, x, a, b: (torch.tanh(m.inner(x) + 0.5 * a + b), b, a)),
    ),
    "three in a circle": (
        3,
        Step(lambda m, x, a, b, c: (torch.tanh(m.inner(x) + 0.5 * a + b + c), c, a, b)),
    ),
    "a state and what it was before": (
        2,
        Step(lambda m, x, h, old: (lambda new: (new + old, new, h))(torch.tanh(m.inner(x) + h))),
    ),
    "one value for two states": (
        2,
        Step(lambda m, x, a, b: (lambda h: (a + b, h, h))(torch.tanh(m.inner(x) + a))),
    ),
    "last in a concatenation": (
        1,
        Step(
            lambda m, x, h: (lambda new: (new, new))(
                torch.tanh(m.inner(torch.cat([torch.relu(x * 0.5), h], 1)))
            ),
            2 * WIDTH,
        ),
    ),
    "beside the input": (
        1,
        Step(
            lambda m, x, h: (lambda new: (h, new))(torch.tanh(m.inner(torch.cat([x, h], 1)))),
            2 * WIDTH,
        ),
    ),
    "becomes its neighbour in a concatenation": (
        2,
        Step(
            lambda m, x, a, b: (lambda both: (x + a, torch.tanh(m.inner(both)), a))(
                torch.cat([b, a], 1)
            ),
            2 * WIDTH,
        ),
    ),
}


def sequences(count: int) -> Tensor:
    return torch.rand(count, 10, WIDTH, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("name", STEPS)
def test_step(name: str) -> None:
    states, step = STEPS[name]
    built = build(Steps(step, [(WIDTH,)] * states), sequences(5))
    for n, p in ((8, 1), (4, 3)):
        to = target(n, p, bank_words=256)
        assert check_image(built, compile_for(built, to), to.geometry) > 0


def test_old_values_as_outputs() -> None:
    """An output that is the old value of a state which is written before the end."""
    step = Step(lambda m, x, h: (h, torch.tanh(m.inner(x) + h)))
    step.last = nn.Identity()
    built = build(Steps(step, [(WIDTH,)]), sequences(4))
    to = target(8, 1, bank_words=256)
    assert check_image(built, compile_for(built, to), to.geometry) > 0


def test_verilator_shifts_states_as_pytorch_does() -> None:
    states, step = STEPS["three in a circle"]
    graph = quantize(Steps(step, [(WIDTH,)] * states), sequences(4))
    image = api.compile(graph, target=target(4, 3, bank_words=256))
    result = api.simulate(image, sequences(2).numpy())
    assert result.mismatches == []
    with torch.no_grad():
        assert torch.equal(torch.from_numpy(result.outputs.values), graph(sequences(2)))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Step(lambda m, x, a: (m.inner(x) + a, a)), "^state 'states_0' is never changed; remove"),
        (Step(lambda m, x, a: (m.inner(x), x)), "^state 'states_0' is never read; remove it"),
        (Step(lambda m, x, a: (a, torch.tanh(a))), "does not depend on the input; give it to"),
    ],
)
def test_refused(step: Step, message: str) -> None:
    graph = quantize(Steps(step, [(WIDTH,)]), sequences(4))
    with pytest.raises(SecateurError, match=message) as caught:
        api.compile(graph, target="8x1")
    assert "\n" not in str(caught.value)

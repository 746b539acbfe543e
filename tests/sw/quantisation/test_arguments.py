"""The argument of a function has the exponent of least error of the function's result."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from secateur.fx.functions import Function
from secateur.fx.graph import LINEAR, MUL, is_call
from secateur.quantisation.exponents.arguments import Argument, arguments_of
from secateur.quantisation.fake_quantise import ActivationFakeQuantize
from secateur.quantisation.prepare import quantize
from tests.support.pipeline import build, check_image, compile_for, target

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": nn.functional.silu,
    "one minus sigmoid": lambda x: 1 - torch.sigmoid(x),
    "softplus of the other side": lambda x: nn.functional.softplus(-x),
}


class Looked(nn.Module):
    """A function of a linear layer's sums, which are of this size; perhaps these go on, too."""

    def __init__(self, name: str, size: float, other: bool = False) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.function, self.first = FUNCTIONS[name], nn.Linear(6, 16)
        self.second = nn.Linear(16, 4) if other else None
        with torch.no_grad():
            self.first.weight.mul_(size)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = self.first(x)
        found = self.function(y)
        return found if self.second is None else (found, self.second(y))


def exponent(graph: GraphModule) -> int:
    """Of what the first linear layer stores."""
    linear = next(node for node in graph.graph.nodes if is_call(node, LINEAR))
    quantise = next(iter(linear.users))
    return round(torch.log2(torch.tensor(quantise.args[1])).item())


def factor(graph: GraphModule) -> float:
    """Of what the first linear layer stores; the function begins with its inverse."""
    linear = next(node for node in graph.graph.nodes if is_call(node, LINEAR))
    first = next(iter(next(iter(next(iter(linear.users)).users)).users))
    return 1 / first.args[1] if is_call(first, MUL) else 1.0


def best(y: Tensor, function: Callable[[Tensor], Tensor], factor: float = 1.0) -> int:
    """The exponent of least error of a function, by trial: of what is stored, y by a factor."""

    def error(exponent: int) -> float:
        step = 2.0**exponent / factor
        codes = (y / step).round().clamp(-128, 127)
        return float((function(codes * step) - function(y)).square().sum())

    return min(range(-12, 8), key=error)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("size", [1.0, 40.0])
def test_least_error_of_the_result(name: str, size: float) -> None:
    model, x = Looked(name, size), torch.randn(256, 6, generator=torch.Generator().manual_seed(1))
    built = build(model, x)
    with torch.no_grad():
        y = model.first(x)
    assert exponent(built.graph) == best(y, FUNCTIONS[name], factor(built.graph))
    image = compile_for(built, target(4, 2))
    check_image(built, image, image.geometry)


def test_where_the_sums_go_on_they_are_not_clipped() -> None:
    model, x = Looked("tanh", 40.0, True), torch.randn(256, 6)
    with torch.no_grad():
        y = model.first(x)
    assert exponent(quantize(model, x)) == best(y, lambda values: values) > best(y, torch.tanh)


#: What a GRU's argument has to be multiplied by, so that 8 bits of it and of 4 have one step.
FACTOR = 1.2


def run_gru(x: Tensor, size: float = 0.0) -> tuple[Tensor, Tensor]:
    """The last state of a GRU that keeps most of it in a step, and the arguments of the gates.

    Parameters
    ----------
    x : (N, T, 6)
    size : of a code of these arguments, the only numbers that are rounded; 0 for none
    """
    torch.manual_seed(6)
    layer, h, seen = nn.GRU(6, 16), torch.zeros(len(x), 16), []
    layer.weight_ih_l0[16:32] *= 4
    layer.bias_ih_l0[16:32] += 3
    for step in x.unbind(1):
        ours = nn.functional.linear(step, layer.weight_ih_l0, layer.bias_ih_l0).chunk(3, 1)
        own = nn.functional.linear(h, layer.weight_hh_l0, layer.bias_hh_l0).chunk(3, 1)
        kept = ours[1] + own[1]
        seen.append(kept)
        if size:
            kept = (kept / size).round().clamp(-128, 127) * size
        new = torch.tanh(ours[2] + torch.sigmoid(ours[0] + own[0]) * own[2])
        h = new + torch.sigmoid(kept) * (h - new)
    return h, torch.stack(seen)


@torch.no_grad()
def test_a_gate_in_a_loop_counts_as_long_as_it_keeps_the_state() -> None:
    """The error of the state after all steps decides; the gate's own would choose another."""
    x = torch.randn(64, 40, 6, generator=torch.Generator().manual_seed(1))
    wanted, arguments = run_gru(x)

    def chosen(steps: int) -> int:
        quantiser = ActivationFakeQuantize()
        share = cast(Function, lambda argument: torch.sigmoid(-FACTOR * argument))
        argument = Argument(quantiser, [share], steps)
        quantiser(arguments / FACTOR)
        argument.choose()
        return int(quantiser.exponent)

    errors = {
        exponent: float((run_gru(x, FACTOR * 2.0**exponent)[0] - wanted).square().mean())
        for exponent in range(-8, 0)
    }
    assert chosen(40) == min(errors, key=lambda exponent: errors[exponent]) > chosen(1)


class Last(nn.Module):
    """The last state of a GRU, from the last frame to the first if flipped."""

    def __init__(self, gru: nn.GRU, *, flipped: bool) -> None:
        super().__init__()
        self.gru, self.flipped = gru, flipped

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.gru(x.flip(1) if self.flipped else x)[0][:, -1])


def test_steps_are_those_of_the_sequence_or_of_the_calls() -> None:
    """Of a step that runs on 9 frames, and of 9 steps in a graph, where some read two tensors."""
    torch.manual_seed(7)
    x = torch.randn(8, 9, 4)
    stepped, unrolled = nn.GRU(4, 6, batch_first=True), nn.GRU(4, 6, batch_first=True)
    found: list[set[int]] = []

    def watched(prepared: GraphModule, steps: int, repeated: dict[str, int]) -> list[Argument]:
        arguments = arguments_of(prepared, steps, repeated)
        found.append({argument.steps for argument in arguments})
        return arguments

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secateur.quantisation.prepare.arguments_of", watched)
        quantize(Last(stepped, flipped=False), x)
        quantize(Last(unrolled, flipped=True), x)
    assert found == [{9}, {1, 9}]

"""The argument of a function has the exponent of least error of the function's result."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from secateur.fx.graph import LINEAR, MUL, is_call
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

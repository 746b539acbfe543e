"""Everyday spellings of models: the canonical graph computes what the model does, by few layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

import secateur
from secateur.canonical.rewrite import canonicalise
from secateur.capture.export import export
from secateur.fx.functions import functions_of
from secateur.image.image import Image
from tests.support.network_blocks import Call

Function = Callable[[Tensor], Tensor]
MATRIX = torch.linspace(-1, 1, 64).view(8, 8)


class Between(nn.Module):
    """``function`` of maps (N, 8, 6, 6) between two convolutions."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.after = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.function(self.before(x)))


def inputs(samples: int = 3) -> Tensor:
    return torch.randn(samples, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def canonical(model: nn.Module) -> GraphModule:
    """The canonical graph, after a comparison with the model on a batch of another size."""
    graph = canonicalise(export(model.eval(), inputs()))
    x = inputs(5)
    with torch.no_grad():
        assert torch.allclose(graph(x), model(x), rtol=1e-4, atol=1e-5)
    return graph


def compiled(function: Function) -> Image:
    return secateur.compile(Between(function), target="8x8", calibration=inputs(16))


def shuffled(x: Tensor) -> Tensor:
    n, c, h, w = x.size()
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


#: No layer more than two convolutions have: a neighbour takes the function in.
NO_LAYER: dict[str, Function] = {
    "h-swish": lambda x: x * F.relu6(x + 3) / 6,
    "h-swish in place": lambda x: x.mul(F.relu6(x.add(3), inplace=True)).div_(6),
    "h-sigmoid": lambda x: x * ((x + 3).clamp(0, 6) / 6),
    "swish": lambda x: x * torch.sigmoid(1.5 * x),
    "mish": lambda x: x * F.softplus(x).tanh(),
    "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)),
    "gelu, tanh": lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * x**3))),
    "leaky": lambda x: torch.maximum(x, 0.1 * x),
    "softsign": lambda x: x / (1 + x.abs()),
    "where": lambda x: torch.where(x > 0, x, 0.2 * (x.exp() - 1)),
    "gate": lambda x: x * (x > 0.5),
    "gates": lambda x: x * ((x > -1).float() - (x >= 1).float()),
    "round": lambda x: torch.round(x * 4) / 4,
    "log1p": lambda x: torch.log1p(x.square()) * x.sign(),
    "half and back": lambda x: x.half().tanh().float(),
    "root of what is never below": lambda x: torch.sqrt(F.relu(x) + 1e-3),
    "affine": lambda x: 2 - (x * 3 - 1) / 4,
    "affine per channel": lambda x: x * MATRIX[0].view(1, 8, 1, 1) + MATRIX[1].view(8, 1, 1),
    "channels last": lambda x: (x.permute(0, 2, 3, 1) * MATRIX[0]).permute(0, 3, 1, 2),
    "channels last, + ": lambda x: (1 - x.movedim(1, -1) / (MATRIX[0] + 2)).movedim(-1, 1),
    "clips": lambda x: x.clip(max=1).clamp(min=-1).clip(-0.5, torch.tensor(0.75)),
    "chunk": lambda x: torch.hstack(x.chunk(2, 1)),
    "mask of ones": lambda x: x * torch.ones(1, 1, 6, 6),
}
#: The layers that are more.
LAYERS: dict[str, tuple[Function, list[str]]] = {
    "1x1": (lambda x: torch.einsum("oc,nc...->no...", MATRIX, x), ["conv"]),
    "1x1, by matmul": (lambda x: (MATRIX @ x.flatten(2)).view(x.shape), ["conv"]),
    "1x1, channels last": (
        lambda x: F.linear(x.permute(0, 2, 3, 1), MATRIX).permute(0, 3, 1, 2), ["conv"],
    ),
    "z and 1 - z": (
        lambda x: torch.sigmoid(x) * 2 + (1 - torch.sigmoid(x)) * x.tanh(), [],
    ),
    "a product of two": (
        lambda x: x.sigmoid() * F.max_pool2d(x, 3, 1, 1), ["table", "maxpool", "mul"],
    ),
    "maximum": (lambda x: torch.maximum(x, x.flip(2)), ["copy", "depthwise", "add"]),
    "mean over channels": (lambda x: x * x.mean(1, keepdim=True), ["conv", "copy", "mul"]),
    "sum of a stack": (lambda x: torch.stack([x, x.flip(2)], 1).sum(1), ["copy", "conv"]),
    "two means": (
        lambda x: x * x.mean(3, keepdim=True).mean(2, keepdim=True), ["avgpool", "avgpool", "mul"],
    ),
    "window": (lambda x: x * (torch.arange(6) % 2), ["copy", "copy", "mul"]),
    "GeM": (
        lambda x: F.avg_pool2d(x.clamp(min=0.1).pow(3), 2).pow(1 / 3), ["avgpool"],
    ),
    "average, not counted": (
        lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), ["avgpool"] * 4,
    ),
    "shuffle": (lambda x: shuffled(F.relu(x)), []),
    "zeros beside": (lambda x: torch.cat([x[:, :6], torch.zeros_like(x[:, :2])], 1), ["copy"]),
    "coordinates": (
        lambda x: torch.cat([x[:, 1:], torch.linspace(-1, 1, 3).repeat_interleave(2)
                             .view(1, 1, 6, 1).expand(x.shape[0], 1, 6, 6)], 1), ["copy"] * 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [*NO_LAYER, *LAYERS])
def test_the_canonical_graph_computes_the_model(name: str) -> None:
    function = NO_LAYER[name] if name in NO_LAYER else LAYERS[name][0]
    canonical(Between(function))


@pytest.mark.parametrize("name", NO_LAYER)
def test_no_layer_more(name: str) -> None:
    kinds = [layer["kind"] for layer in compiled(NO_LAYER[name]).metadata["layers"]]
    assert kinds == ["conv", "conv"]


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    function, more = LAYERS[name]
    kinds = [layer["kind"] for layer in compiled(function).metadata["layers"]]
    assert kinds == ["conv", *more, "conv"]


def test_a_map_of_constants_is_written_before_the_sum() -> None:
    """Two halves of equal rows, and a convolution that adds them."""
    image = compiled(lambda x: x + (torch.arange(6) > 2).view(6, 1))
    kinds = [layer["kind"] for layer in image.metadata["layers"]]
    assert kinds == ["copy", "copy", "conv", "conv"]


def viewed(x: Tensor) -> Tensor:
    flat = x.view(x.shape[0], 8, 1, 36)
    x.relu_()
    return flat.view(x.shape)


def viewed_twice(x: Tensor) -> Tensor:
    flat = x.flatten(2).flatten(1)
    x.relu_()
    return flat.view(x.shape)


def through_two_views(x: Tensor) -> Tensor:
    flat = x.flatten(2).flatten(1)
    return (flat.relu_() + x.flatten(1)).view(x.shape)


def in_part(x: Tensor) -> Tensor:
    x[:, :2].relu_()
    return x


def by_halves(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    a.mul_(0.5)
    return x + torch.cat([b, a], 1)


def assigned(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :, 0], x[:, 1::2], x[x > 1] = 0.5, x[:, ::2].tanh(), 1.0
    return x


@pytest.mark.parametrize(
    "writes", [viewed, viewed_twice, through_two_views, in_part, by_halves, assigned]
)
def test_writes_through_views(writes: Function) -> None:
    canonical(Between(writes).requires_grad_(False))


def test_the_batch_may_be_fixed_by_a_constant() -> None:
    """`len` fixes the batch to that of the example."""
    model = Between(lambda x: torch.cat([x[:, 1:], torch.ones(len(x), 1, 6, 6)], 1)).eval()
    graph = canonicalise(export(model, inputs()))
    with torch.no_grad():
        assert torch.allclose(graph(inputs()), model(inputs()), rtol=1e-4, atol=1e-5)


def test_an_output_that_cancels_is_no_fault() -> None:
    """Equal values minus their mean: rounding, before the graph is rewritten and after."""

    def cancelled(x: Tensor) -> Tensor:
        equal = x.amax((2, 3), keepdim=True).expand(-1, -1, 1, 3)
        return equal - equal.mean(3, keepdim=True)

    model = nn.Sequential(nn.Conv2d(3, 8, 3), Call(cancelled))
    torch.manual_seed(0)
    image = secateur.compile(model.eval(), target="8x8", calibration=inputs())
    assert image.metadata["layers"]


class Nested(nn.Module):
    """A function of a number inside another, which reads what the first is made of, too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.after = nn.Conv2d(3, 8, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        twice = x + x
        square = twice * x
        return self.after(torch.cat([square, twice + square], 1))  # type: ignore[no-any-return]


def test_a_function_inside_another() -> None:
    """Each is one table of what the convolution gives."""
    graph = canonical(Nested())
    functions = functions_of(graph.graph).values()
    assert [len(function.nodes) for function in functions] == [2, 3]
    assert len({function.argument for function in functions}) == 1
    image = secateur.compile(Nested(), target="8x8", calibration=inputs(16))
    assert len(image.metadata["layers"]) == 4

"""Ways to write a network, and the layers that each becomes; all bit-exact."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.errors import SecateurWarning
from secateur.quantisation.prepare import quantize
from tests.support.network_blocks import Call
from tests.support.networks import random_input
from tests.support.pipeline import Built, build, check_image, compile_for, target
from tests.sw.lowering.test_lower import check

SHAPE = (3, 8, 8)
with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    CONV = nn.Conv2d(3, 4, 3, padding=1)
    POINT = nn.Conv2d(3, 4, 1)
    WIDE = nn.Conv2d(4, 4, 3, padding=2, dilation=2)
    MIX = nn.Conv2d(8, 2, 1)
    SEVEN = nn.Conv2d(7, 2, 1)
    DENSE = nn.Linear(4, 3)

ONES = torch.ones(4, 3, 1, 1)

B, L, M = "broadcast", "lanewise", "maximum"
Forms = list[tuple[str, list[str]]]


def twice(y: Tensor) -> Tensor:
    return F.relu(y + y)


FORMS: dict[str, tuple[Callable[[Tensor], Tensor], Forms]] = {
    "concat": (
        lambda x: MIX(torch.concat([CONV(x), POINT(x)], 1)),
        [("conv", [B]), ("conv", [B]), ("conv", [B])],
    ),
    "the input in a concatenation": (
        lambda x: SEVEN(torch.cat([x, CONV(x)], 1)),
        [("copy", [L]), ("conv", [B]), ("conv", [B])],
    ),
    "a tensor twice in a concatenation": (
        lambda x: (lambda y: MIX(torch.cat([y, y], 1)))(CONV(x)),
        [("conv", [B]), ("copy", [L]), ("conv", [B])],
    ),
    "a tensor in two concatenations": (
        lambda x: (lambda y, z: MIX(torch.cat([y, z], 1)) + MIX(torch.cat([z, y], 1)))(
            CONV(x), POINT(x)
        ),
        [("conv", [B]), ("conv", [B]), ("conv", [B, B])],
    ),
    "a concatenation as the output": (
        lambda x: torch.cat([CONV(x), POINT(x)], 1),
        [("conv", [B]), ("conv", [B]), ("copy", [L])],
    ),
    "a part of a concatenation as the output": (
        lambda x: (lambda y: (MIX(torch.cat([y, POINT(x)], 1)), y)[1])(CONV(x)),
        [("conv", [B])],
    ),
    "squeeze": (
        lambda x: DENSE(F.adaptive_avg_pool2d(CONV(x), 1).squeeze()),
        [("conv", [B]), ("avgpool", [L]), ("linear", [B])],
    ),
    "average to the map's size": (
        lambda x: DENSE(F.avg_pool2d(CONV(x), x.shape[2:]).flatten(1)),
        [("conv", [B]), ("avgpool", [L]), ("linear", [B])],
    ),
    "adaptive 2x4": (
        lambda x: F.adaptive_avg_pool2d(CONV(x), (2, 4)),
        [("conv", [B]), ("avgpool", [L])],
    ),
    "maximum with ceil": (
        lambda x: F.max_pool2d(CONV(x), 3, 2, ceil_mode=True),
        [("conv", [B]), ("maxpool", [M])],
    ),
    "average whose ceil adds nothing": (
        lambda x: F.avg_pool2d(CONV(x), 2, 2, ceil_mode=True),
        [("conv", [B]), ("avgpool", [L])],
    ),
    "clamp": (lambda x: CONV(x).clamp(0, 6), [("conv", [B])]),
    "cast to what it is": (
        lambda x: CONV(x.float()).to(torch.float32).type_as(x),
        [("conv", [B])],
    ),
    "clamp from 0": (lambda x: CONV(x).clamp(min=0), [("conv", [B])]),
    "clamp from below": (lambda x: CONV(x).clamp(min=-0.25), [("conv", [B])]),
    "clamp from above": (lambda x: CONV(x).clamp_max(0.25), [("conv", [B])]),
    "maximum of the map": (
        lambda x: DENSE(F.adaptive_max_pool2d(CONV(x), 1).flatten(1)),
        [("conv", [B]), ("maxpool", [M]), ("linear", [B])],
    ),
    "maxima of parts": (
        lambda x: F.adaptive_max_pool2d(CONV(x), (2, 4)),
        [("conv", [B]), ("maxpool", [M])],
    ),
    "amax": (
        lambda x: DENSE(CONV(x).amax((-1, -2))),
        [("conv", [B]), ("maxpool", [M]), ("linear", [B])],
    ),
    "amax, kept": (lambda x: CONV(x).amax((2, 3), True), [("conv", [B]), ("maxpool", [M])]),
    "divided by constants": (
        lambda x: CONV((x - 0.5) / torch.full((1, 3, 1, 1), 0.25)),
        [("depthwise", [L]), ("conv", [B])],
    ),
    "two activations": (lambda x: F.relu(F.relu6(CONV(x))), [("conv", [B])]),
    "three terms": (
        lambda x: F.relu(CONV(x) + POINT(x) + POINT(x)),
        [("conv", [B, B]), ("conv", [B, L])],
    ),
    "twice the same": (lambda x: twice(CONV(x)), [("conv", [B])]),
    "padded residual": (
        lambda x: F.relu(
            F.pad(CONV(x), (1, 1, 1, 1)) + F.conv2d(x, torch.ones(4, 3, 1, 1), padding=1)
        ),
        [("conv", [B]), ("conv", [B, L])],
    ),
    "norm first": (
        lambda x: CONV(F.batch_norm(x, torch.full((3,), 0.3), torch.full((3,), 2.0))),
        [("depthwise", [L]), ("conv", [B])],
    ),
    "a mask of bool": (
        lambda x: CONV(x * torch.tensor([True, False, True]).view(1, 3, 1, 1)),
        [("depthwise", [L]), ("conv", [B])],
    ),
    "whole numbers": (
        lambda x: CONV(x + torch.arange(3).view(1, 3, 1, 1)),
        [("depthwise", [L]), ("conv", [B])],
    ),
    "a double": (
        lambda x: CONV(x * torch.tensor(0.4, dtype=torch.float64)),
        [("depthwise", [L]), ("conv", [B])],
    ),
    "only relu": (F.relu, [("depthwise", [L])]),
    "only pooling": (lambda x: F.max_pool2d(x, 3, 2, 1), [("maxpool", [M])]),
    "relu behind pooling": (
        lambda x: F.relu(F.max_pool2d(CONV(x), 2)),
        [("conv", [B]), ("maxpool", [M])],
    ),
    "padding before pooling": (
        lambda x: F.max_pool2d(F.pad(F.relu(CONV(x)), (1, 0, 1, 0)), 2),
        [("conv", [B]), ("maxpool", [M])],
    ),
    "convolution read twice": (
        lambda x: (lambda y: F.relu(y) + WIDE(y))(CONV(x)),
        [("conv", [B]), ("depthwise", [L]), ("conv", [B, L])],
    ),
    "sum of flattened maps": (
        lambda x: F.relu(CONV(x).flatten(1) + F.relu(POINT(x)).flatten(1)),
        [("conv", [B]), ("conv", [B]), ("add", [L, L])],
    ),
    "vector to map": (
        lambda x: F.conv2d(DENSE(CONV(x).mean((2, 3))).view(-1, 3, 1, 1), torch.ones(2, 3, 1, 1)),
        [("conv", [B]), ("avgpool", [L]), ("linear", [B]), ("conv", [B])],
    ),
    "unused branch": (lambda x: (WIDE(CONV(x)), CONV(x))[1], [("conv", [B])]),
    "in place": (
        lambda x: CONV(x).relu_().add_(POINT(x)).clamp_(0, 4),
        [("conv", [B]), ("conv", [B, L])],
    ),
    "in place under other names": (
        lambda x: (lambda y: WIDE(F.dropout(y, 0.3, False).detach().relu_()) + y)(POINT(x)),
        [("conv", [B]), ("conv", [B, L])],
    ),
    "in place in a copy": (
        lambda x: (lambda y: WIDE(y.clone().relu_()) + y)(POINT(x)),
        [("conv", [B]), ("depthwise", [L]), ("conv", [B, L])],
    ),
    "in place before a view": (
        lambda x: (lambda y: (y.relu_(), y.flatten(1))[1])(CONV(x)),
        [("conv", [B])],
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_form(name: str) -> None:
    function, expected = FORMS[name]
    model = Call(function).eval()
    model.parts = nn.ModuleList([CONV, POINT, WIDE, MIX, SEVEN, DENSE])
    graph = quantize(model, random_input(1, SHAPE, 8))
    network = check(graph, random_input(5, SHAPE, 3))
    found = [(layer.kind, [s.mode for s in layer.sources]) for layer in network.layers]
    assert sorted(found) == sorted(expected)
    if ("copy", [L]) in expected:
        to = target(4, 3)
        built = Built(graph, network, random_input(5, SHAPE, 3))
        assert check_image(built, compile_for(built, to), to.geometry) > 0


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "hardshrink": lambda x: F.hardshrink(x, 0.2),
    "softshrink": lambda x: F.softshrink(x, 0.2),
    "threshold": lambda x: F.threshold(x, 0.1, -0.3),
    "softsign": F.softsign,
    "square": lambda x: x**2,
    "cube": lambda x: x**3,
    "root": lambda x: F.relu(x).sqrt(),
    "reciprocal": lambda x: 2 / (F.relu(x) + 1),
    "quotient": lambda x: x / (x.square() + 1),
    "inverse root": lambda x: x.clamp(0.125, 8).rsqrt(),
    "logarithm": lambda x: x.clamp(0.125, 8).log(),
    "arctangent": torch.atan,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_one_number_are_looked_up(name: str) -> None:
    model = Call(lambda x: FUNCTIONS[name](CONV(x))).eval()
    model.parts = nn.ModuleList([CONV])
    x = random_input(1, SHAPE, 8)
    graph = quantize(model, x)
    assert any(layer.table is not None for layer in check(graph, random_input(5, SHAPE, 3)).layers)
    with torch.no_grad():
        expected = model(x)
        error = (graph(x) - expected).square().mean().sqrt()
    assert error < 0.03 * expected.abs().max()


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    ("size", "pool"),
    [
        ((8, 8), {"kernel_size": 3, "stride": 2}),
        ((7, 5), {"kernel_size": 2, "stride": 2}),
        ((9, 6), {"kernel_size": (2, 3), "stride": (3, 2), "padding": (1, 1)}),
        # Rows: a third window would begin in the padding behind the map, and is left out.
        ((5, 6), {"kernel_size": (2, 3), "stride": 3, "padding": 1}),
        ((10, 7), {"kernel_size": 3, "stride": 4, "dilation": 2, "padding": 1}),
    ],
)
def test_ceil_mode_is_exact_on_the_array(
    size: tuple[int, int], pool: dict[str, int], relu: bool
) -> None:
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 12, 3, padding=1), nn.MaxPool2d(ceil_mode=True, **pool)]
    model = nn.Sequential(layers[0], *[nn.ReLU()] * relu, layers[1], nn.Conv2d(12, 5, 1))
    x = random_input(1, (3, *size), 3)
    floor = nn.MaxPool2d(**pool)(model[0](x)).shape
    assert model[:-1](x).shape[2:] != floor[2:]  # the mode matters
    built = build(model, x)
    for n, p in ((8, 4), (4, 3)):
        assert check_image(built, compile_for(built, target(n, p)), target(n, p).geometry) > 0


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (nn.Softmax(1), "softmax"),
        (nn.LogSoftmax(1), "log_softmax"),
    ],
)
def test_the_last_softmax_is_left_to_the_host(host: nn.Module, name: str) -> None:
    torch.manual_seed(0)
    logits = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    x = random_input(1, (3, 2, 2), 5)
    with pytest.warns(SecateurWarning, match=rf"\({name}\): the last {name} is left to the host"):
        graph = quantize(nn.Sequential(logits, host), x)
    assert torch.equal(graph(x), quantize(logits, x)(x))

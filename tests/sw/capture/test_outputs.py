"""A model's one tensor, alone or in a tuple, list or dictionary."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import secateur
from secateur.capture.outputs import only_tensor
from secateur.errors import SecateurError
from secateur.pruning import remove_channels, reorder

Result = namedtuple("Result", ["logits"])
WRAPPED: dict[str, Callable[[Tensor], Any]] = {
    "dictionary": lambda y: {"logits": y},
    "tuple": lambda y: (y,),
    "list": lambda y: [y],
    "nested": lambda y: {"out": [(y,)]},
    "with nothing": lambda y: (None, y),
    "ordered": lambda y: OrderedDict(logits=y),
    "named": lambda y: Result(y),
}
SEVERAL: dict[str, Callable[[Tensor], Any]] = {
    "two": lambda y: (y, y + 1),
    "dictionary of two": lambda y: {"logits": y, "more": [y * 2]},
}


class Wrapped(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.first, self.second, self.wrap = nn.Linear(8, 16), nn.Linear(16, 5), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.second(self.first(x).relu()))


class Spoken(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.gru, self.head, self.wrap = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 3), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.head(self.gru(x)[0][:, -1]))


def made(kind: type[nn.Module], wrap: Callable[[Tensor], Any]) -> nn.Module:
    torch.manual_seed(0)
    return kind(wrap).eval()


X = torch.rand(8, 8, generator=torch.Generator().manual_seed(1))
PLAIN = secateur.compile(made(Wrapped, lambda y: y), target="8x1", calibration=X)


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_tensor_in_a_container_is_that_tensor(kind: str) -> None:
    model = made(Wrapped, WRAPPED[kind])
    graph = secateur.quantize(model, X)
    values = graph(X)
    assert isinstance(values, Tensor)
    image = secateur.compile(graph, target="8x1")
    assert image.stream == PLAIN.stream
    assert np.array_equal(secateur.run(image, X.numpy()).values, values.numpy())


@pytest.mark.parametrize("kind", ["dictionary", "with nothing"])
def test_exported_before_in_both_forms(kind: str) -> None:
    program = torch.export.export(made(Wrapped, WRAPPED[kind]), (X,))
    for model in (program, program.module()):
        image = secateur.compile(model, target="8x1", calibration=X)
        assert image.stream == PLAIN.stream
    converted = secateur.quantize(made(Wrapped, WRAPPED[kind]), X)
    again = torch.export.export(converted, (X,))
    assert secateur.compile(again, target="8x1").stream == PLAIN.stream


@pytest.mark.parametrize("kind", ["dictionary", "tuple"])
def test_a_recurrent_model_too(kind: str) -> None:
    x = torch.rand(6, 4, 4, generator=torch.Generator().manual_seed(2))
    plain, wrapped = (made(Spoken, wrap) for wrap in (lambda y: y, WRAPPED[kind]))
    images = [secateur.compile(m, target="8x1", calibration=x) for m in (plain, wrapped)]
    assert images[0].stream == images[1].stream


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_outputs_of_a_recurrent_model(kind: str) -> None:
    """All steps in one inference."""
    x = torch.rand(6, 4, 4)
    graph = secateur.quantize(made(Spoken, SEVERAL[kind]), x)
    image = secateur.compile(graph, target="8x1")
    found = tree_leaves(secateur.run(image, x.numpy()).values)
    for values, wanted in zip(found, tree_leaves(graph(x)), strict=True):
        assert np.array_equal(values, wanted.numpy())


def test_what_is_no_tensor() -> None:
    for found, kind in (("text", "str"), (None, "NoneType"), ([], "list"), ({"a": 3}, "dict")):
        with pytest.raises(SecateurError, match=f"must return one tensor, not {kind}"):
            only_tensor(found)


def test_channels_of_such_models_are_removed_and_reordered() -> None:
    wrapped, plain = (made(Wrapped, wrap) for wrap in (WRAPPED["dictionary"], lambda y: y))
    order = list(reversed(range(16)))
    for model in (wrapped, plain):
        reorder(model, X, {"first": order})
        report = remove_channels(model, X, density=0.5)
        assert [(row.before, row.after) for row in report.layers] == [(16, 8), (5, 5)]
    assert torch.equal(wrapped(X)["logits"], plain(X))

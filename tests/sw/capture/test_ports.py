"""Calibration data of several inputs, in all forms; softmax of each output; saved graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import secateur
from secateur.capture.ports import input_keys, nested
from secateur.errors import SecateurError, SecateurWarning

A, B = torch.rand(2, 70, 6, generator=torch.Generator().manual_seed(0)).unbind(0)
B = B - 0.5


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.a(x) + self.b(y), self.b(x)


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 4)

    def forward(self, x: Tensor, y: Tensor | None = None, *, labels: Any = None) -> Tensor:
        x = x if y is None else x - y
        return self.a(x) if labels is None else self.a(x).softmax(-1)


def made(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def stream(model: Any, calibration: Any) -> bytes:
    return secateur.compile(model, target="8x1", calibration=calibration).stream


PLAIN = stream(made(Two), (A, B))


@pytest.mark.parametrize(
    "calibration",
    [
        [A, B],
        {"y": B, "x": A},
        [(A, B)],
        [[A[:9], B[:9]], [A[9:], B[9:]]],
        [{"x": A, "y": B}],
        DataLoader(TensorDataset(A, B), batch_size=32),
        ((a, b) for a, b in zip(A.split(30), B.split(30), strict=True)),
    ],
    ids=["list", "names", "batch", "batches", "named batches", "loader", "generator"],
)
def test_calibration_in_all_forms(calibration: Any) -> None:
    assert stream(made(Two), calibration) == PLAIN


def test_exported_before() -> None:
    program = torch.export.export(made(Two), (A[:2], B[:2]))
    assert stream(program, (A, B)) == PLAIN
    graph = secateur.quantize(made(Two), (A, B))
    again = torch.export.export(graph, (A[:2], B[:2]))
    assert stream(again, None) == PLAIN
    assert len(graph(x=A, y=B)) == 2


def test_the_same_tensor_twice_is_two_inputs() -> None:
    graph = secateur.quantize(made(Two), (A, A))
    with torch.no_grad():
        wanted, found = made(Two)(A, B.abs()), graph(A, B.abs())
    assert (found[0] - wanted[0]).abs().max() < 0.05


def test_optional_arguments() -> None:
    model, alone = made(Optional), stream(made(Optional), A)
    for given in ({"x": A}, [(A,)], [(A, None)], {"x": A, "y": None}):
        assert stream(model, given) == alone
    both = secateur.compile(model, target="8x1", calibration=[(A, B)])
    assert both.metadata["arguments"] == ["x", "y"]
    unread = secateur.compile(made(Unread), target="8x1", calibration=[(A, B)])
    assert unread.metadata["arguments"] == ["x"]


class Unread(Optional):
    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:  # type: ignore[override]
        return self.a(x)


@pytest.mark.parametrize(
    ("calibration", "says"),
    [
        (A, r"takes 2 inputs, not one tensor: give \(x, y\) in a tuple, or by name"),
        ((A, B[:3]), r"'x' 70, 'y' 3 samples; give as many of each"),
        ((A, B.long()), r"reads the integers of input 'y'; .* or give floats"),
        ((A, B.short()), r"input 'y' is torch.int16; give floats in model units"),
        ((A, B * float("nan")), r"input 'y' has infinite or NaN values; clean"),
        ([(A, B), (A, B[:, :3])], r"samples of shape \(3,\), the model takes \(6,\) for 'y'"),
        ({"x": A}, r"missing a required argument: 'y'"),
        ((A, 3), r"input 'y' is int, not a tensor"),
        ([(A, B, B)], r"too many positional arguments.*\[x for x, y in loader\], not tuple"),
    ],
)
def test_calibration_that_does_not_fit(calibration: Any, says: str) -> None:
    with pytest.raises(SecateurError, match=says):
        secateur.quantize(made(Two), calibration)


class Softmaxes(Two):
    def forward(self, x: Tensor, y: Tensor) -> Any:
        return {"p": self.a(x).softmax(-1), "q": self.b(y).log_softmax(-1), "h": self.a(y)}


def test_the_host_computes_the_softmax_of_each_output() -> None:
    with pytest.warns(SecateurWarning) as caught:
        graph = secateur.quantize(made(Softmaxes), (A, B))
    assert sum("left to the host" in str(warning.message) for warning in caught) == 2
    with torch.no_grad():
        wanted, found = made(Softmaxes)(A, B), graph(A, B)
    assert (found["p"].softmax(-1) - wanted["p"]).abs().max() < 0.05
    assert (found["h"] - wanted["h"]).abs().max() < 0.05


class Constant(Two):
    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.a(x), self.b.bias


def test_an_output_that_depends_on_no_input_is_refused() -> None:
    with pytest.raises(SecateurError, match="the output does not depend on the input"):
        stream(made(Constant), (A, B))


def test_keys_of_files() -> None:
    assert input_keys(made(Two), ["y", "x", "labels"]) == ["y", "x"]
    assert input_keys(made(Optional), ["x", "seed"]) == ["x"]
    assert input_keys(nn.Linear(2, 2), ["anything"]) == ["x"]
    found = nested({"a": 1, "m.1": 3, "m.0": 2, "d.k": 4})
    assert found == {"a": 1, "m": [2, 3], "d": {"k": 4}}

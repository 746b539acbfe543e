"""Embeddings of inputs: the host looks integers up, the array gets what it finds."""

from __future__ import annotations

import base64
import copy
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from secateur import api
from secateur.capture.onnx.convert import load_onnx
from secateur.cli.main import app
from secateur.errors import SecateurError
from secateur.image import image as images
from secateur.quantisation.prepare import quantize
from tests.support.pipeline import simulated

ROWS = 30
NANS = base64.b64encode(np.full(8 * ROWS, np.nan, "<f4").tobytes()).decode()


class Words(nn.Module):
    """The mean of the rows that a few integers stand for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.last = nn.Embedding(ROWS, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.last(torch.relu(self.table(x).mean(1))))


class Signal(Words):
    """A convolution over the rows as a signal."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 16, 3)
        self.last = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        found = self.conv(self.table(x.long()).transpose(1, 2))
        return cast(Tensor, self.last(torch.relu(found).amax(2)))


class Read(Words):
    """A GRU over the rows, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.last = nn.GRU(8, 12, batch_first=True), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.last(self.gru(self.table(x))[0][:, -1]))


class Kinds(Words):
    """A kind, one integer, and measurements."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(16, 3)

    def forward(self, kind: Tensor, x: Tensor) -> Tensor:
        found = torch.cat([self.table(kind), torch.relu(self.first(x))], 1)
        return cast(Tensor, self.last(found))


class Both(Kinds):
    """Two kinds, of one table, in a dictionary."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        found = torch.cat([self.table(batch["a"]), torch.relu(self.table(batch["b"]))], 1)
        return cast(Tensor, self.last(found))


MODELS: dict[str, type[nn.Module]] = {"words": Words, "signal": Signal, "read": Read}


def integers(*shape: int) -> Tensor:
    return torch.randint(0, ROWS, shape, generator=torch.Generator().manual_seed(1))


def check(model: nn.Module, inputs: dict[str, Tensor], tmp_path: Path) -> None:
    """Float, quantised graph, a saved image and Verilator."""
    model = model.eval()
    calibration: Any = inputs if len(inputs) > 1 else inputs["x"]
    graph = quantize(model, calibration)
    image = api.compile(graph, target=simulated(4, 2))
    image.save(tmp_path / "model.sec")
    given: Any = {name: x[:3].numpy() for name, x in inputs.items()}
    found = api.run(images.load(tmp_path / "model.sec"), given if len(inputs) > 1 else given["x"])
    with torch.no_grad():
        wanted, converted = (m(**{k: x[:3] for k, x in inputs.items()}) for m in (model, graph))
    assert np.array_equal(found.values, converted)
    noise = float((wanted - converted).square().sum() / wanted.square().sum())
    assert 10 * np.log10(noise) < -28
    result = api.simulate(image, given if len(inputs) > 1 else given["x"], stalls=0.2)
    assert result.mismatches == []
    assert result.outputs is not None
    assert np.array_equal(result.outputs.values, found.values)


@pytest.mark.parametrize("name", MODELS)
def test_exact(name: str, tmp_path: Path) -> None:
    check(MODELS[name](), {"x": integers(32, 7)}, tmp_path)


def test_beside_another_input(tmp_path: Path) -> None:
    inputs = {"kind": integers(32), "x": torch.randn(32, 5)}
    check(Kinds(), inputs, tmp_path)


def test_in_a_dictionary() -> None:
    model, batch = Both().eval(), {"a": integers(32), "b": integers(32).flip(0)}
    graph = quantize(model, (batch,))
    image = api.compile(graph, target="8x1")
    found = api.run(image, {f"batch.{key}": x.numpy() for key, x in batch.items()})
    with torch.no_grad():
        assert np.array_equal(found.values, graph(batch))
        assert float((graph(batch) - model(batch)).abs().max()) < 0.05


def test_rows_are_those_of_the_table() -> None:
    """What the host packs is the rounded row of the model's own table."""
    model = Words().eval()
    image = api.compile(quantize(model, integers(32, 7)), target="8x1")
    (meta,) = image.metadata["inputs"]
    table = np.frombuffer(base64.b64decode(meta["lookup"]["values"]), "<f4").reshape(ROWS, 8)
    assert np.array_equal(table, model.table.weight.detach().numpy())
    assert meta["shape"] == [7, 8]


@pytest.mark.parametrize("dynamo", [False, True])
def test_in_onnx(dynamo: bool, tmp_path: Path) -> None:
    model, x = Signal().eval(), integers(32, 7)
    torch.onnx.export(model, (x[:1],), tmp_path / "m.onnx", dynamo=dynamo)
    images_of = [
        api.compile(m, target="8x1", calibration=x) for m in (model, load_onnx(tmp_path / "m.onnx"))
    ]
    first, second = (api.run(image, x.numpy()).values for image in images_of)
    assert np.abs(first - second).max() < 0.02 * np.abs(first).max()


def test_from_the_command_line(tmp_path: Path) -> None:
    x = integers(32, 7)
    torch.export.save(torch.export.export(Signal().eval(), (x[:2],)), tmp_path / "m.pt2")
    np.savez(tmp_path / "x.npz", x=x.numpy())
    run = CliRunner().invoke
    made = run(app, ["compile", str(tmp_path / "m.pt2"), "--calibrate", str(tmp_path / "x.npz"),
                     "-o", str(tmp_path / "m.sec"), "--target", "8x1"])  # fmt: skip
    assert made.exit_code == 0, made.output
    found = run(app, ["run", str(tmp_path / "m.sec"), "--input", str(tmp_path / "x.npz"),
                      "-o", str(tmp_path / "y.npz")])  # fmt: skip
    assert found.exit_code == 0, found.output
    image = images.load(tmp_path / "m.sec")
    assert np.array_equal(np.load(tmp_path / "y.npz")["values"], api.run(image, x.numpy()).values)


def test_a_table_is_trained() -> None:
    """Training with fake quantisers changes rows, and the image has those."""
    model, x = Words(), integers(32, 7)
    before = copy.deepcopy(model.table.weight.detach())

    def train(graph: Any) -> None:
        for name, parameter in graph.named_parameters():
            if "table" in name:
                with torch.no_grad():
                    parameter.mul_(0.5)

    image = api.compile(quantize(model, x, qat=train), target="8x1")
    values = image.metadata["inputs"][0]["lookup"]["values"]
    table = np.frombuffer(base64.b64decode(values), "<f4").reshape(ROWS, 8)
    assert np.allclose(table, before.numpy() / 2)


class Twice(Words):
    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.last(self.table(x).mean(1) + x.float().mean(1, keepdim=True)))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(8, 7), "input 'x' is torch.float32; its embedding takes integers"),
        (torch.full((8, 7), ROWS), "input 'x' has integers from 30 to 30; its embedding has rows"),
        (torch.zeros(8, 7, dtype=torch.int16), "calibration inputs must be floats, or integers"),
    ],
    ids=["floats", "no row", "int16"],
)
def test_calibration_files_are_named(x: Tensor, message: str, tmp_path: Path) -> None:
    program = torch.export.export(Words().eval(), (integers(2, 7),))
    torch.export.save(program, tmp_path / "m.pt2")
    np.savez(tmp_path / "x.npz", x=x.numpy())
    made = CliRunner().invoke(
        app, ["compile", str(tmp_path / "m.pt2"), "--calibrate", str(tmp_path / "x.npz"),
              "-o", str(tmp_path / "m.sec"), "--target", "8x1"])  # fmt: skip
    assert made.exit_code != 0
    assert str(made.exception).startswith(f"{tmp_path / 'x.npz'}: {message}")
    assert not (tmp_path / "m.sec").exists()


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (Twice(), integers(8, 7), "reads the integers of input 'x'"),
        (
            Words(),
            torch.full((8, 7), ROWS),
            "integers from 30 to 30; its embedding has rows 0 to 29",
        ),
        (Words(), torch.rand(8, 7), "Long, Int; but got"),
        (nn.Conv2d(1, 1, 3), integers(8, 1, 5, 5), "torch.int64 data; give floats"),
        (nn.ReLU(), integers(8, 7), "torch.int64 data; give floats|reads the integers"),
    ],
    ids=["read twice", "no row", "floats", "convolution", "activation"],
)
def test_refused_when_quantised(model: nn.Module, x: Tensor, message: str) -> None:
    with pytest.raises(SecateurError, match=message):
        quantize(model.eval(), x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 7), np.float32), "is float32; the model takes integers"),
        (np.zeros((2, 6), np.int64), r"has shape \(2, 6\), the model takes \(batch, 7\)"),
        (np.full((2, 7), -1), r"from -1 to -1; the model's embedding has rows 0 to 29"),
        (np.full((2, 7), ROWS), "from 30 to 30"),
    ],
    ids=["floats", "shape", "negative", "no row"],
)
def test_refused_when_run(x: Any, message: str) -> None:
    image = api.compile(quantize(Words().eval(), integers(32, 7)), target="8x1")
    with pytest.raises(SecateurError, match=message):
        api.run(image, x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 0}, "lookup.rows is 0"),
        ({"rows": 31}, "lookup.values has 240 numbers, expected 31 rows of 8"),
        ({"values": "%"}, "lookup.values is not base64"),
        (
            {"values": base64.b64encode(np.full(240, np.nan, "<f4")).decode()},
            "lookup.values are not finite",
        ),
    ],
    ids=["rows", "size", "text", "nan"],
)
def test_damaged_tables_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    image = api.compile(quantize(Words().eval(), integers(32, 7)), target="8x1")
    image.metadata["inputs"][0]["lookup"] |= change
    image.save(tmp_path / "model.sec")
    with pytest.raises(SecateurError, match=rf"inputs\[0\]\.{message}"):
        images.load(tmp_path / "model.sec")

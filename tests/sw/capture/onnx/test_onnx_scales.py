"""Networks that are quantised already: with powers of two as scales they keep their codes."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx.reference import ReferenceEvaluator
from torch import nn
from typer.testing import CliRunner

from secateur import api
from secateur.capture.onnx.convert import convert_onnx
from secateur.cli.main import app
from secateur.errors import SecateurError
from secateur.lowering.lower import lower
from secateur.quantisation.prequantised import keep_scales
from secateur.sources import load_model
from tests.support.pipeline import Built, check_image, compile_for, target
from tests.sw.capture.onnx.qdq import RNG, Qdq, maps, moves, signals


def same_codes(proto: onnx.ModelProto, shape: tuple[int, ...]) -> None:
    """Bit for bit, on the golden model of the array, against onnx's reference evaluator."""
    x = RNG(3).normal(size=(24, *shape)).astype(np.float32)
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    assert len(np.unique(expected)) > 10
    model = convert_onnx(proto, keep=True)
    graph = keep_scales(model, model.shape)
    with torch.no_grad():
        np.testing.assert_array_equal(graph(torch.from_numpy(x)).numpy(), expected)
    built = Built(graph, lower(graph), torch.from_numpy(x))
    to = target(8, 4)
    image = compile_for(built, to)
    assert check_image(built, image, to.geometry) > 0
    np.testing.assert_array_equal(api.run(image, x).values, expected)


@pytest.mark.parametrize("made", [maps(), signals(), moves()])
def test_codes_are_those_of_onnx(made: tuple[onnx.ModelProto, tuple[int, ...]]) -> None:
    same_codes(*made)


_ODD = np.array([[3, -5, 89], [87, 1, 2], [-77, 4, 5], [1, 1, 127]]) / 512
_ONES = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 1]])


@pytest.mark.parametrize(
    ("rows", "added"),
    [
        (np.where([[1], [0], [0], [1]], _ONES, _ODD), None),  # some channels, finer than they need
        (np.repeat([[0], [1], [0], [0.25]], 3, 1), None),  # channels of zeros
        (_ONES, -8),  # weights finer than they need, for a tensor that is finer
        (np.where([[1], [0], [0], [1]], _ONES, _ODD), -7),  # a tensor with WSHIFT
        (_ODD / 2, -6),
    ],
)
def test_exponents_of_weights_are_chosen(rows: np.ndarray, added: int | None) -> None:
    q = Qdq(7)
    x = q.store("x", -6)
    y = q.call("Conv", f"{x} {q.hold(rows.reshape(4, 3, 1, 1).astype(np.float32))}")
    if added is not None:
        other = q.call("Conv", f"{x} {q.weight(4, 3, 1, 1, exponents=(-9, -7))}")
        y = q.call("Add", f"{y} {q.store(other, added)}")
    same_codes(q.finish(q.store(y, -4), (3, 4, 4), 4), (3, 4, 4))


def test_codes_move_through_one_pooling_after_another() -> None:
    """Both change the scale; the second one reads what the first one left."""
    q = Qdq(8)
    x = q.call("Conv", f"{q.store('x', -6)} {q.weight(4, 3, 1, 1, exponents=(-9, -7))}")
    for exponent in (-6, -5):
        x = q.call("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        x = q.store(x, exponent)
    same_codes(q.finish(q.store(q.call("Relu", x), -5, np.uint8), (3, 8, 8), 4), (3, 8, 8))


def pools(count: int) -> onnx.ModelProto:
    """Codes that are quantised again after every pooling; each would move before all of these."""
    q = Qdq(9)
    x = q.store("x", -6)
    for index in range(count):
        x = q.call("MaxPool", x, kernel_shape=[1, 1])
        x = q.store(x, -5 + index % 2)
    return q.finish(x, (3, 4, 4), 4)


def a_layer(
    *,
    scale: float = 2.0**-6,
    zero: object = np.int8(0),
    bias: float = 0.0,
    weights: np.ndarray | None = None,
    last: bool = True,
    sum_codes: bool = False,
    average: int = 0,
    channels: int = 1,
) -> onnx.ModelProto:
    """x, quantised, through one convolution, quantised; each parameter spoils one thing."""
    q = Qdq(4)
    step, offset = q.hold(np.float32(scale)), q.hold(zero)
    codes = q.call("QuantizeLinear", f"x {step} {offset}")
    if sum_codes:
        codes = q.call("Add", f"{codes} {codes}")
    x = q.call("DequantizeLinear", f"{codes} {step} {offset}")
    if average:
        x = q.call("AveragePool", x, kernel_shape=[average, average])
        x = q.store(x, -6)
    if weights is None:
        weights = q.rng.integers(-90, 91, (4, 3, 1, 1)) / 128
    y = q.call("Conv", f"{x} {q.hold(weights.astype(np.float32))} "
               f"{q.hold(np.full(4, bias, np.float32))}")  # fmt: skip
    return q.finish(q.store(y, -5) if last else y, (3, 4, 4), 4)


def kept(proto: onnx.ModelProto) -> None:
    model = convert_onnx(proto, keep=True)
    lower(keep_scales(model, model.shape))


_SPAN = np.ldexp(np.full((4, 3, 1, 1), 1 / 128 + 1 / 2), [[[[e]]] for e in (0, 0, 0, -9)])


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (a_layer(scale=0.02), r"node 'n_quantizelinear0' \(QuantizeLinear\): scale 0.02 is not"),
        (a_layer(zero=np.uint8(128)), r"\(QuantizeLinear\): zero point 128 instead of 0"),
        (a_layer(zero=np.int16(0)), "codes of int16"),
        (a_layer(bias=2.0**-9), r"layers.conv_2.*, 'n_conv2' in the file\): bias is not on"),
        (a_layer(weights=np.full((4, 3, 1, 1), 1 / 3)), "layers.conv_2.*not 8-bit codes"),
        (a_layer(weights=np.full((4, 3, 1, 1), 255 / 256)), "channel 0 are not 8-bit codes"),
        (a_layer(weights=_SPAN), "layers.conv_2.*at least 8 to 17 .*a span of 7"),
        (a_layer(weights=np.full((4, 3, 1, 1), 512.0)), "at most -2 to -2, the array has 0"),
        (a_layer(last=False), "the output is not quantised"),
        (a_layer(sum_codes=True), r"node 'n_add\d+' \(Add\): computes with codes"),
        (pools(30), "quantises again and again behind views and poolings; quantise once"),
        (a_layer(average=3), "layers.averagepool_2.*not 8-bit codes"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_named(made: onnx.ModelProto, message: str) -> None:
    kept(a_layer(average=2, bias=2.0**-8))  # what nothing spoils is kept
    with pytest.raises(SecateurError, match=message) as caught:
        kept(made)
    assert "\n" not in str(caught.value)


def test_the_command_keeps_scales_or_asks_for_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    x = RNG(5).normal(size=(16, 3, 4, 4)).astype(np.float32)
    np.savez("x.npz", x=x)
    onnx.save(a_layer(), "kept.onnx")
    onnx.save(a_layer(scale=0.02), "other.onnx")
    runner = CliRunner()

    def compiled(model: str, *options: str) -> tuple[object, str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            command = ["compile", model, "--target", "8x8", "-o", "net.sec", "--json", *options]
            return runner.invoke(app, command), " ".join(str(w.message) for w in caught)

    (expected,) = ReferenceEvaluator(a_layer()).run(None, {"x": x})
    for options, said in (((), False), (("--calibrate", "x.npz"), True)):
        found, notes = compiled("kept.onnx", *options)
        assert found.exit_code == 0, found.output  # type: ignore[attr-defined]
        assert json.loads(found.stdout)["cycles"] > 0  # type: ignore[attr-defined]
        assert ("its own scales are kept" in notes) == said
        np.testing.assert_array_equal(api.run(api.load("net.sec"), x).values, expected)
    found, _ = compiled("other.onnx")
    error = str(found.exception)  # type: ignore[attr-defined]
    assert re.match(r"other.onnx: its scales cannot be kept: node 'n_quantizelinear0'", error)
    assert "--calibrate" in error
    found, notes = compiled("other.onnx", "--calibrate", "x.npz")
    assert found.exit_code == 0, found.output  # type: ignore[attr-defined]
    assert "scales are chosen again" in notes
    assert "scale 0.02 is not a power of two" in notes


class Trained(nn.Module):
    """As networks are trained with PyTorch's own fake quantisers; two convolutions are added."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.Linear(72, 6)])
        self.bias = nn.Parameter(torch.randint(-40, 40, (6,)) * 2.0**-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, last = (
            torch.fake_quantize_per_channel_affine(
                layer.weight, torch.full((len(layer.weight),), 2.0**-9),
                torch.zeros(len(layer.weight), dtype=torch.int32), 0, -128, 127,
            )
            for layer in self.layers
        )  # fmt: skip
        x = torch.fake_quantize_per_tensor_affine(x, 2.0**-5, 0, -128, 127)
        x = torch.relu(F.conv2d(x, first) + F.conv2d(x, second))
        x = torch.fake_quantize_per_tensor_affine(F.max_pool2d(x, 2), 2.0**-6, 0, 0, 255)
        x = F.linear(x.flatten(1), last, self.bias)
        return torch.fake_quantize_per_tensor_affine(x, 2.0**-5, 0, -128, 127)


def test_what_torchs_exporter_writes_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Trained().eval(), torch.randn(16, 3, 8, 8)
    file = tmp_path / "net.onnx"
    torch.onnx.export(model, (x,), str(file), dynamo=False, dynamic_axes={"x": {0: "n"}},
                      input_names=["x"], opset_version=13)  # fmt: skip
    proto = onnx.load(str(file))
    assert [n.op_type for n in proto.graph.node].count("QuantizeLinear") > 2
    proto.opset_import[0].version = 21  # of which the evaluator has all operators
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x.numpy()})
    assert len(np.unique(expected)) > 50
    graph, notes = load_model(str(file))
    assert notes == []
    with torch.no_grad():
        np.testing.assert_array_equal(graph(x).numpy(), expected)
    image = api.compile(graph, target="8x8")
    np.testing.assert_array_equal(api.run(image, x.numpy()).values, expected)


def test_weights_alone_in_codes_are_a_float_model(tmp_path: Path) -> None:
    q = Qdq(6)
    y = q.call("Conv", f"x {q.weight(4, 3, 1, 1, exponents=(-9, -6))}")
    onnx.save(q.finish(y, (3, 4, 4), 4), tmp_path / "net.onnx")
    model, notes = load_model(str(tmp_path / "net.onnx"))
    assert isinstance(model, torch.nn.Module)
    assert notes == []

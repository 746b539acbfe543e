"""Damaged ONNX files, from the file to the image: a refusal in one line, or a result."""

from __future__ import annotations

import io
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import secateur
from secateur.errors import SecateurError
from secateur.sources import load_model
from tests.fuzz.damage import damaged
from tests.fuzz.onnx_fields import changed
from tests.sw.capture.onnx.qdq import Qdq
from tests.sw.capture.onnx.test_onnx import model_of, node

SHAPE = (2, 6, 6)
#: Of memory, for one file: far above what any takes.
_BYTES = 2 << 30


def plain() -> bytes:
    """In float: a layer of each kind, constants that are computed, and a constant as a node."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / 3).astype(np.float32)

    held = numpy_helper.from_array(np.array([0, -1]), "held")
    nodes = [
        node("Conv", "x w0 b0", "a", pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        node("BatchNormalization", "a gamma beta mean var", "b"),
        node("Relu", "b", "c"),
        node("MaxPool", "c", "d", kernel_shape=[2, 2], strides=[2, 2]),
        node("Clip", "d zero six", "e"),
        node("Concat", "e d", "f", axis=1),
        node("Transpose", "turned", "w1", perm=[1, 0]),
        node("Constant", "", "flat", value=held),
        node("GlobalAveragePool", "f", "g"),
        node("Reshape", "g flat", "h"),
        node("Gemm", "h w1 b1", "i", transB=1, alpha=1.5),
        node("Mul", "i half", "j"),
        node("Sigmoid", "j", "y"),
    ]
    made = model_of(
        nodes, SHAPE, 2, w0=normal(4, 2, 3, 3), b0=normal(4), gamma=normal(4) + 1, beta=normal(4),
        mean=normal(4), var=np.abs(normal(4)) + 0.5, zero=np.float32(0), six=np.float32(6),
        turned=normal(8, 3), b1=normal(3), half=np.float32(0.5),
    )  # fmt: skip
    return bytes(made.SerializeToString())


def quantised() -> bytes:
    """With scales that are kept: layers, a depthwise one, a maximum of codes."""
    q = Qdq(1)
    x = q.store("x", -6)
    a = q.call("Conv", f"{x} {q.weight(4, 2, 3, 3, exponents=(-9, -7))} {q.bias(4, -8)}",
               pads=[1, 1, 1, 1])  # fmt: skip
    a = q.store(q.call("Relu", a), -5, np.uint8)
    b = q.call("Conv", f"{a} {q.weight(4, 1, 3, 3, exponents=(-9, -6))}", pads=[1, 1, 1, 1],
               group=4)  # fmt: skip
    c = q.call("MaxPool", q.store(b, -4), kernel_shape=[2, 2], strides=[2, 2])
    c = q.call("Flatten", q.store(c, -4))
    y = q.call("Gemm", f"{c} {q.weight(3, 36, exponents=(-9, -7))} {q.bias(3, -7)}", transB=1)
    return bytes(q.finish(q.store(y, -3), SHAPE, 2).SerializeToString())


def exported() -> bytes:
    """By torch, with the nodes that it writes for padding."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU6(), nn.ZeroPad2d((0, 1, 0, 1)),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 5), nn.Tanh(), nn.Linear(5, 3),
    )  # fmt: skip
    file = io.BytesIO()
    torch.onnx.export(nn.Sequential(*layers).eval(), (torch.randn(2, *SHAPE),), file,
                      dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}})  # fmt: skip
    return file.getvalue()


KINDS: dict[str, Callable[[], bytes]] = {
    "plain": plain, "quantised": quantised, "exported": exported,
}  # fmt: skip


def compiles(data: bytes, file: Path) -> bool:
    """Whether the file gives an image; if not, it is refused as it should be."""
    file.write_bytes(data)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(8, *SHAPE)).astype(np.float32))
    try:
        model, _ = load_model(str(file), calibrated=True)
        secateur.compile(model, target="8x1", calibration=x)
    except SecateurError as error:
        text = str(error)
        assert text.isprintable(), text
        assert len(text) < 5000
        return False
    return True


def damage(data: bytes, seed: int) -> bytes:
    """By turns of bytes, and of fields."""
    return damaged(data, seed) if seed % 2 else changed(data, seed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = KINDS[kind]()
    assert compiles(data, tmp_path / "net.onnx")
    capfd.readouterr()
    found = [compiles(damage(data, seed), tmp_path / "net.onnx") for seed in range(20)]
    assert not all(found)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_many_damaged_files(
    kind: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    data, grown, good = KINDS[kind](), 0, 0
    compiles(data, tmp_path / "net.onnx")
    for seed in range(100, 500):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        good += compiles(damage(data, seed), tmp_path / "net.onnx")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        grown = max(grown, peak << 10)
    for name, value in (("grown", grown), ("compiled", good)):
        record_property(name, value)
        print(f"{kind}: {name} {value:,}")
    assert 0 < good < 400
    assert grown < _BYTES

"""ONNX: the format's own tests, what PyTorch's exporter writes, and refusals by name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn
from typer.testing import CliRunner

from docs.tables.onnx_backend import page
from secateur.capture.onnx.convert import convert_onnx, load_onnx
from secateur.capture.onnx.fold import dequantised
from secateur.capture.onnx.node import nodes_of
from secateur.capture.onnx.operators.table import LAYERS
from secateur.cli.main import app
from secateur.errors import SecateurError
from secateur.models import DSCNN, Autoencoder, MobileNetV1, ResNet8
from secateur.pruning import prune
from tests.support.pipeline import build, check_image, compile_for, target


def test_the_formats_own_tests_pass_or_are_refused() -> None:
    """A wrong result raises."""
    written = Path(__file__).parents[4] / "docs" / "reference" / "onnx-tests.md"
    assert page() == written.read_text()


def test_the_page_lists_the_operators() -> None:
    text = (Path(__file__).parents[4] / "docs" / "reference" / "onnx.md").read_text()
    listed = text.split("Operators that are read:")[1].split("Each is tested")[0]
    assert re.findall(r"`(\w+)`", listed) == sorted(
        {*LAYERS, "CastLike", "Constant", "Shape", "Size"}
    )


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (ResNet8, (3, 32, 32)),
        (DSCNN, (1, 49, 10)),
        (MobileNetV1, (3, 96, 96)),
        (Autoencoder, (640,)),
    ],
)
def test_networks_of_torchs_exporter(
    kind: type[nn.Module], shape: tuple[int, ...], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, x = kind().eval(), torch.rand(2, *shape)
    file = tmp_path / "model.onnx"
    torch.onnx.export(model, (x,), str(file), dynamo=False, dynamic_axes={"x": {0: "n"}},
                      input_names=["x"])  # fmt: skip
    found = load_onnx(file)
    torch.testing.assert_close(found(x), model(x))
    layers = [m for m in found.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules())


def node(kind: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=f"n_{output}", **attributes)


def model_of(
    nodes: list[onnx.NodeProto],
    shape: tuple[int, ...],
    rank: int,
    opset: int = 17,
    **constants: np.ndarray,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [f"d{i}" for i in range(rank)])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    onnx.checker.check_model(made)
    return made


def a_network() -> onnx.ModelProto:
    """Bias and batch norm beside the layers, a residual, a concatenation, quantised weights."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32) / 3

    nodes = [
        node("DequantizeLinear", "codes scale", "w1", axis=0),
        node("Conv", "x w1", "a0", pads=[0, 0, 1, 1], kernel_shape=[2, 2]),
        node("Add", "a0 b1", "a1"),
        node("Clip", "a1 zero six", "a2"),
        node("QuantizeLinear", "a2 step", "q"),
        node("DequantizeLinear", "q step", "a3"),
        node("Conv", "a3 w2", "b0", auto_pad="SAME_UPPER", kernel_shape=[3, 3]),
        node("BatchNormalization", "b0 gamma beta mean var", "b1_"),
        node("Add", "b1_ a3", "c0"),
        node("Relu", "c0", "c1"),
        node("Conv", "c1 w4", "c2", kernel_shape=[1, 1]),
        node("Relu", "c2", "c3"),
        node("Concat", "c1 c3", "d0", axis=1),
        node("MaxPool", "d0", "d1", kernel_shape=[2, 2], strides=[2, 2]),
        node("ReduceMean", "d1", "e0", axes=[2, 3], keepdims=1),
        node("Reshape", "e0 flat", "e1"),
        node("MatMul", "e1 w3", "e2"),
        node("Add", "b3 e2", "y"),
    ]
    return model_of(
        nodes, (3, 8, 8), 2, codes=rng.integers(-127, 128, (8, 3, 2, 2)).astype(np.int8),
        scale=np.exp2(rng.integers(-8, -4, 8)).astype(np.float32), step=np.float32(1 / 64),
        b1=normal(8, 1, 1), zero=np.float32(0), six=np.float32(6),
        w2=normal(8, 8, 3, 3), gamma=normal(8) + 1, beta=normal(8), mean=normal(8),
        var=np.abs(normal(8)) + 0.5, flat=np.array([-1, 16]), w3=normal(16, 5), b3=normal(5),
        w4=normal(8, 8, 1, 1),
    )  # fmt: skip


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("zero", [False, True])
def test_weights_are_dequantised(axis: int | None, zero: bool) -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(-100, 100, (4, 3, 2, 2)).astype(np.int8)
    shape = () if axis is None else (codes.shape[axis],)
    scale = rng.random(shape).astype(np.float32)
    offset = rng.integers(-9, 9, shape).astype(np.int8)
    made = node("DequantizeLinear", "c s z" if zero else "c s", "y", axis=axis or 0)
    (given,) = nodes_of(helper.make_graph([made], "g", [], []), [])
    found = dequantised(given, [codes, scale, *([np.array(offset)] if zero else [])])
    with_opset = helper.make_model(
        helper.make_graph(
            [made], "g",
            [helper.make_tensor_value_info(n, t, None) for n, t in zip(
                made.input, (TensorProto.INT8, TensorProto.FLOAT, TensorProto.INT8), strict=False)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
    )  # fmt: skip
    feeds = {"c": codes, "s": scale} | ({"z": offset} if zero else {})
    np.testing.assert_array_equal(found, ReferenceEvaluator(with_opset).run(None, feeds)[0])


def test_a_network_runs_on_the_array() -> None:
    proto = a_network()
    model = convert_onnx(proto)
    (note,) = model.notes
    assert "scales are chosen again" in note
    x = np.random.default_rng(1).random((4, 3, 8, 8), dtype=np.float32)
    # Quantisation of the file's activations is left out on purpose; so is it in the oracle.
    plain = onnx.ModelProto()
    plain.CopyFrom(proto)
    kept = [n for n in plain.graph.node if n.output[0] not in ("w1", "q", "a3")]
    constants = {t.name: numpy_helper.to_array(t) for t in plain.graph.initializer}
    w1 = constants["codes"].astype(np.float32) * constants["scale"].reshape(8, 1, 1, 1)
    plain.graph.initializer.append(numpy_helper.from_array(w1, "w1"))
    del plain.graph.node[:]
    for each in kept:
        each.input[:] = ["a2" if name == "a3" else name for name in each.input]
        plain.graph.node.append(each)
    (expected,) = ReferenceEvaluator(plain).run(None, {"x": x})
    with torch.no_grad():
        torch.testing.assert_close(model(torch.from_numpy(x)), torch.from_numpy(expected))
    prune(model, density=0.5, n=8)
    to = target(8, 4)
    built = build(model, torch.from_numpy(x))
    assert check_image(built, compile_for(built, to), to.geometry) > 0


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Det", "x", "y")], r"node 'n_y' \(Det\): is not supported; supported are Abs"),
        ([node("LRN", "x", "y", size=3)], r"\(LRN\): normalises .*use BatchNormalization"),
        ([node("Shape", "x", "y")], "output 'y' is constant"),
        (
            [node("Mul", "x row", "a"), node("Add", "a two", "y")],
            r"node 'n_y' \(Add\): RuntimeError",
        ),
        ([node("Div", "x none", "y")], "divides by zero"),
        ([node("PRelu", "x two", "y")], "2 values for 3 channels"),
        ([node("Squeeze", "x first", "y")], r"squeezes the axes \[0\] of .*keep samples"),
        ([node("Conv", "x x", "y")], "input 'x' that is not constant"),
        ([node("ArgMax", "x", "y", select_last_index=1)], "take the first of equal values"),
        ([node("LpNormalization", "x", "y")], r"\(LpNormalization\): normalises"),
        ([node("MaxPool", "x", "y", kernel_shape=[2, 2, 2])], "a 3-D pooling; use 1-D or 2-D"),
        (
            [node("Reshape", "x size", "y")],
            r"node 'n_y' \(Reshape\): .*shape '\[5, 2\]' is invalid",
        ),
        ([node("Gather", "row x", "y")], "'x' is not a tensor of integers, which Gather"),
        ([node("Cast", "x", "y", to=TensorProto.INT64)], "makes whole numbers of activations"),
    ],
)
def test_refused_by_name(nodes: list[onnx.NodeProto], message: str) -> None:
    with pytest.raises(SecateurError, match=message):
        convert_onnx(
            model_of(
                nodes, (3, 8, 8), 4, one=np.float32(1), none=np.float32(0),
                row=np.ones(8, np.float32), two=np.ones((2, 1, 1), np.float32),
                first=np.array([0]), size=np.array([5, 2]),
            )
        )  # fmt: skip


def test_the_command_takes_onnx_and_import_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(a_network(), "net.onnx")
    np.savez("x.npz", x=np.random.default_rng(2).random((8, 3, 8, 8), dtype=np.float32))
    (tmp_path / "mine_here.py").write_text(
        "from torch import nn\n\ndef net(seed):\n    return nn.Sequential(nn.Conv2d(3, 8, 3))\n"
        "\ndef number(seed):\n    return 3\n"
        "\nclass Net(nn.Linear):\n    def __init__(self, width=8):\n"
        "        super().__init__(width, 8)\n\nmade = Net()\n"
    )
    runner = CliRunner()

    def compiled(model: str) -> object:
        command = ["compile", model, "--calibrate", "x.npz", "--target", "8x8", "-o", "net.sec"]
        return runner.invoke(app, [*command, "--json"])

    found = compiled("net.onnx")
    assert found.exit_code == 0, found.output  # type: ignore[attr-defined]
    assert json.loads(found.stdout)["cycles"] > 0  # type: ignore[attr-defined]
    np.savez("x.npz", x=np.zeros((8, 3, 9, 8), np.float32))
    assert "samples of shape (3, 9, 8), the ONNX file has (3, 8, 8)" in str(
        compiled("net.onnx").exception  # type: ignore[attr-defined]
    )
    found = compiled("mine_here:net")
    assert json.loads(found.stdout)["dense_weights"] == 216  # type: ignore[attr-defined]
    for source, message in (
        ("mine_here:number", "must return a torch.nn.Module"),
        ("mine_here:none", "mine_here has no 'none'"),
        ("mine_here:Net", "'mine_here:Net' is a class; give a function of the seed"),
        ("mine_here:made", "'mine_here:made' is a module; give a function of the seed"),
        ("none.onnx", "none.onnx: no such file"),
        ("x.npz", "not a torch.export archive"),
    ):
        found = compiled(source)
        assert found.exit_code == 1  # type: ignore[attr-defined]
        assert message in str(found.exception)  # type: ignore[attr-defined]
    Path("bad.onnx").write_bytes(b"not a model")
    assert "not an ONNX model" in str(compiled("bad.onnx").exception)  # type: ignore[attr-defined]

"""What an ONNX file from a stranger may not do: run code, take memory, or end in a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import secateur
from secateur.capture.onnx.convert import convert_onnx, load_onnx
from secateur.capture.onnx.file import read_onnx
from secateur.cli.main import app
from secateur.errors import SecateurError
from secateur.image.image import Image
from secateur.sources import load_model
from tests.sw.capture.onnx.onnx_files import little_memory, named, ones
from tests.sw.capture.onnx.test_onnx import model_of, node

#: Runs a command that makes the file RAN, without a dot, which torch.export would split at.
_RUN = 'getattr(__import__("os"), "system")("touch RAN")'
HOSTILE = [
    f'w", None) or {_RUN} or getattr(self, "w',
    f'x") if {_RUN} else getattr(self, "x',
    f"\n    {_RUN}\n",
    "forward", "keys", "training", "None", "a.b", "..", "\\", "'", "\x1b[31m\u202e\U0001f600",
    "n" * 100_000,
]  # fmt: skip


def compiled(proto: onnx.ModelProto) -> Image:
    onnx.save(proto, "net.onnx")
    model, _ = load_model("net.onnx", calibrated=True)
    x = torch.from_numpy(np.random.default_rng(1).random((8, 1, 5, 6), np.float32))
    return secateur.compile(model, target="8x8", calibration=x)


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Image:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("harmless"))
        return compiled(named("n"))


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_names_are_not_code(
    name: str, harmless: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = compiled(named(name))
    assert not Path("RAN").exists()
    assert image.stream == harmless.stream
    labels = [layer.pop("label") for layer in image.metadata["layers"]]
    others = [{**layer, "label": None} for layer in harmless.metadata["layers"]]
    assert [{**layer, "label": None} for layer in image.metadata["layers"]] == others
    assert all(label.isprintable() and len(label) < 500 for label in labels)


def test_layers_are_shown_by_the_names_that_the_file_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = compiled(named("/block/[red]conv"))
    image.save("net.sec")
    assert [layer["name"] for layer in image.metadata["layers"]] == ["layers.conv_0"]
    shown = CliRunner().invoke(app, ["inspect", "net.sec"]).stdout
    assert "layers.conv_0" in shown
    assert "/block/[red]conv" in shown
    data = json.loads(CliRunner().invoke(app, ["inspect", "net.sec", "--json"]).stdout)
    assert data["layers"][0]["label"] == "/block/[red]conv"
    # A refusal of the compiler, behind the importer.
    monkeypatch.setattr("secateur.lowering.values.MOST_COPIES", 0)
    nodes = [node("Conv", "x w", "a"), node("Pad", "a pads", "b"), node("Sigmoid", "b", "y")]
    pads = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    model = convert_onnx(model_of(nodes, (3, 4, 4), 4, w=ones(4, 3, 1, 1), pads=pads))
    with pytest.raises(SecateurError, match=r"layer 'layers.pad_1' \(.*, 'n_b' in the file\)"):
        secateur.compile(model, target="8x8", calibration=torch.rand(4, 3, 4, 4))


_MANY = 1 << 40


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("MaxPool", "x", "a", kernel_shape=[1, 1]),
          node("Pad", "a wide", "y")], r"node 'n_y' \(Pad\): all tensors of 64 samples: .* bytes"),
        ([node("Pad", "x broad", "a"), node("MaxPool", "a", "y", kernel_shape=[400, 400])],
         r"node 'n_y' \(MaxPool\): [0-9,]+ operations for one sample"),
        ([node("Pad", "x far", "y")], r"pads by \[0, 0, 1099511627776"),
        ([node("Conv", "x w", "y", pads=[_MANY, 0, 0, 0])], "attribute 'pads' is"),
        ([node("Conv", "x w", "y", strides=[0, 1])], r"'strides' is \[0, 1\], expected 2 numbers"),
        ([node("Conv", "x w", "y", dilations=[1])], r"'dilations' is \[1\], expected 2 numbers"),
        ([node("Conv", "x w", "y", group=_MANY)], "in 1099511627776 groups"),
        ([node("Conv", "x w", "y", kernel_shape=[3, 3])], "another kernel_shape"),
        ([node("Conv", "x w five", "y")], "a bias of shape .* for 4 channels"),
        ([node("Conv", "x narrow", "y")], r"node 'n_y' \(Conv\): RuntimeError: "),
        ([node("MaxPool", "x", "y", kernel_shape=[9, 9])], r"node 'n_y' \(MaxPool\): RuntimeError"),
        ([node("Conv", "x spoilt", "y")], r"node 'n_y' \(Conv\): .* infinite or NaN"),
        ([node("Conv", "x w", "a"), node("Mul", "a huge", "b"), node("Mul", "b huge", "y")],
         r"node 'n_a' \(Conv\): .* infinite or NaN"),
        ([node("LeakyRelu", "x", "y", alpha=float("nan"))], "attribute 'alpha' is nan"),
        ([node("Gelu", "x", "y", approximate="exec")], "expected one of none, tanh"),
        ([node("BatchNormalization", "x four four four less", "y")], "variance .* not above 0"),
        ([node("BatchNormalization", "x four five four four", "y")], "give four of one value"),
        ([node("Clip", "x four six", "y")], r"input 1 of shape \(4,\)"),
        ([node("Squeeze", "x axes", "y")], r"axes \[1099511627776\] of 4 dimensions"),
        ([node("Constant", "", "y", value_string="y")], "not a number or a tensor"),
        ([node("Identity", "one", "y")], "output 'y' is constant"),
    ],
    ids=range(21),
)  # fmt: skip
def test_a_node_is_refused_by_name(nodes: list[onnx.NodeProto], message: str) -> None:
    """Without the checker of the package onnx, which refuses some of these itself."""
    spoilt = ones(4, 3, 1, 1)
    spoilt[2] = np.inf
    proto = model_of([node("Relu", "x", "y")], (3, 4, 4), 4)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    for name, value in {
        "broad": np.array([0, 0, 400, 400, 0, 0, 400, 400]),
        "wide": np.array([0, 0, 9000, 0, 0, 0, 0, 9000]), "w": ones(4, 3, 1, 1),
        "far": np.array([0, 0, _MANY, 0, 0, 0, 0, 0]), "narrow": ones(4, 2, 1, 1),
        "spoilt": spoilt, "five": ones(5), "four": ones(4), "less": -ones(4), "one": ones(1),
        "huge": np.float32(1e30), "six": np.float32(6), "axes": np.array([_MANY]),
    }.items():  # fmt: skip
        proto.graph.initializer.append(numpy_helper.from_array(value, name))
    proto.opset_import[0].version = 20
    with little_memory(), pytest.raises(SecateurError, match=message) as caught:
        convert_onnx(proto)
    assert "\n" not in str(caught.value)


def changed(change: str) -> onnx.ModelProto:
    """A model with one thing wrong that the package onnx may not look at."""
    proto = named("n")
    graph, conv = proto.graph, proto.graph.node[0]
    if change == "attribute":
        conv.attribute[0].CopyFrom(helper.make_attribute("pads", "[1, 1, 1, 1]"))
    elif change == "twice":
        conv.attribute.append(conv.attribute[0])
    elif change == "cycle":
        conv.input[0] = "ny"
    elif change == "made again":
        graph.node[1].output[0] = "nc"
    elif change == "not made":
        graph.output[0].name = "other"
    elif change == "no output":
        del graph.node[1].output[:]
    elif change == "type":
        graph.initializer[0].data_type = 77
    elif change == "text":
        graph.initializer[0].CopyFrom(helper.make_tensor("nw", TensorProto.STRING, [1], [b"x"]))
    elif change == "size":
        graph.initializer[0].dims[0] = 5
    elif change == "huge":
        graph.initializer[0].dims[0] = 1 << 60
    elif change == "negative":
        graph.initializer[0].dims[0] = -4
    elif change == "integers":
        graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    elif change == "no shape":
        graph.input[0].type.tensor_type.ClearField("shape")
    elif change == "large":
        graph.input[0].type.tensor_type.shape.dim[2].dim_value = 1 << 30
    elif change == "empty":
        del graph.node[:]
    elif change == "outside":
        graph.initializer[0].data_location = TensorProto.EXTERNAL
    elif change == "function":
        inner = [helper.make_node("Neg", ["a"], ["b"])]
        imports = [helper.make_opsetid("", 17)]
        made = helper.make_function("", "Relu", ["a"], ["b"], inner, imports)
        proto.functions.append(made)
    else:
        body = helper.make_graph([helper.make_node("Identity", ["nc"], ["q"])], "b", [], [])
        conv.CopyFrom(helper.make_node("Loop", ["", ""], ["nc"], name="endless", body=body))
    return proto


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("attribute", r"node 'n' \(Conv\): attribute 'pads' is STRING, expected INTS"),
        ("twice", "has an attribute twice"),
        ("cycle", r"node 'n' \(Conv\): reads 'ny', which nothing before it makes"),
        ("made again", r"node 'n' \(Relu\): makes 'nc', which is already defined"),
        ("not made", "output 'other' is not made"),
        ("no output", "has no output"),
        ("type", "tensor 'nw': holds type 77"),
        ("text", "tensor 'nw': holds STRING"),
        ("size", "tensor 'nw': ValueError: cannot reshape"),
        ("huge", "tensor 'nw', with all constants before it: [0-9,]+ bytes"),
        ("negative", "tensor 'nw': a dimension below 0"),
        ("integers", "input 'n' is not a tensor of floats"),
        ("no shape", "input 'n' is not a tensor of floats of a known rank"),
        ("large", "the input: 64 samples of .* bytes"),
        ("empty", "output 'ny' is not made"),
        ("outside", "tensor 'nw': its data are in another file"),
        ("function", r"node 'n' \(Relu\): calls a function of the file"),
        ("loop", r"node 'endless' \(Loop\): has a graph in it"),
    ],
)
def test_what_no_model_has_is_refused(change: str, message: str) -> None:
    with little_memory(), pytest.raises(SecateurError, match=message):
        convert_onnx(changed(change))


@pytest.mark.parametrize("change", ["function", "loop"])
def test_graphs_in_nodes_are_not_run(change: str, tmp_path: Path) -> None:
    """Those that the package onnx takes for a model."""
    onnx.save(changed(change), tmp_path / "net.onnx")
    with pytest.raises(SecateurError, match=r"net\.onnx: "):
        load_onnx(tmp_path / "net.onnx")


def test_a_name_is_text(tmp_path: Path) -> None:
    data = named("QQQQ").SerializeToString().replace(b"QQQQ", b"\xff\xed\xa0\x80")
    (tmp_path / "net.onnx").write_bytes(data)
    with pytest.raises(SecateurError) as caught:
        load_onnx(tmp_path / "net.onnx")
    assert str(caught.value).isprintable()
    with pytest.raises(SecateurError, match="node 0: a name that is not UTF-8"):
        convert_onnx(onnx.ModelProto.FromString(data))


def test_cut_fields_are_refused(tmp_path: Path) -> None:
    data = named("n").SerializeToString()
    for size in range(0, len(data), 7):
        (tmp_path / "net.onnx").write_bytes(data[:size])
        with pytest.raises(SecateurError, match="not an ONNX model"):
            read_onnx(tmp_path / "net.onnx")

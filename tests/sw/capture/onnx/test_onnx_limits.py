"""What an ONNX file claims is checked before it is allocated: nodes, fields, constants, files."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from secateur.capture.onnx.convert import convert_onnx, load_onnx
from secateur.capture.onnx.file import read_onnx
from secateur.cli.main import app
from secateur.disk.limits import Limits
from secateur.errors import SecateurError
from tests.sw.capture.onnx.onnx_files import little_memory, named, ones
from tests.sw.capture.onnx.test_onnx import model_of, node

_MANY = 1 << 40
_HALF = numpy_helper.from_array(np.array([0.5], np.float32))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("ConstantOfShape", "size", "b", value=_HALF)], r"\(ConstantOfShape\), .* bytes"),
        ([node("ConstantOfShape", "below", "b", value=_HALF)], r"a tensor of shape \[-1\]"),
        ([node("Expand", "one", "b")], "has no input 1"),
        ([node("Expand", "one size", "b")], r"\(Expand\), .* bytes"),
        ([node("Add", "row column", "b")], r"\(Add\): 16,777,216 numbers are computed"),
        ([node("Clip", "row column", "b")], r"\(Clip\): 16,777,216 numbers are computed"),
        ([node("Gather", "row zeros", "b")], r"\(Gather\): 16,777,216 numbers are computed"),
        ([node("DequantizeLinear", "codes scales", "b", axis=1)], "scales of shape"),
        ([node("QuantizeLinear", "column scales", "b", axis=1)], "scales of shape"),
        ([node("Cast", "row", "b", to=TensorProto.STRING)], "holds STRING"),
        ([node("RandomNormal", "", "b", shape=[2])], r"\(RandomNormal\): makes a constant by an"),
        ([node("Tile", "row size", "b")], "makes a constant by an operator"),
        ([node("Range", "one one one", "b")], "makes a constant by an operator"),
        ([node("Concat", " ".join(["row"] * 40), "r0", axis=0),
          *(node("Concat", f"r{i} r{i}", f"r{i + 1}", axis=0) for i in range(12)),
          node("Identity", "r12", "b")], r"'n_r3' \(Concat\): 2,457,600 numbers are computed"),
    ],
    ids=range(14),
)  # fmt: skip
def test_constants_are_bounded_before_they_are_made(
    nodes: list[onnx.NodeProto], message: str
) -> None:
    nodes = [*nodes, node("Add", "x b", "y")]
    proto = model_of([node("Add", "x one", "y")], (3, 4, 4), 4, one=ones(1))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    for name, value in {
        "size": np.array([_MANY]), "below": np.array([-1]), "row": ones(1, 4096),
        "column": ones(4096, 1), "zeros": np.zeros(4096, np.int64),
        "codes": np.zeros((4096, 1), np.int8), "scales": ones(4096),
    }.items():  # fmt: skip
        proto.graph.initializer.append(numpy_helper.from_array(value, name))
    with little_memory(), pytest.raises(SecateurError, match=message):
        convert_onnx(proto)


def chain(count: int) -> onnx.ModelProto:
    names = ["x", *(f"t{i}" for i in range(count - 1)), "y"]
    nodes = [node("Relu", a, b) for a, b in itertools.pairwise(names)]
    return model_of(nodes, (3, 4, 4), 4)


def test_nodes_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(chain(21), "net.onnx")
    few = Limits(nodes=20)
    for read in (read_onnx, load_onnx):
        with pytest.raises(SecateurError, match=r"net.onnx: 21 nodes, at most 20 .*--max-nodes"):
            read("net.onnx", limits=few)
    with pytest.raises(SecateurError, match="the model: 21 nodes, at most 20"):
        convert_onnx(chain(21), limits=few)
    with pytest.raises(SecateurError, match="the model: 3 operations on its input, at most 2"):
        convert_onnx(chain(3), limits=few)
    convert_onnx(chain(2), limits=few)
    with pytest.raises(SecateurError, match="the model: 3 operations on its input, at most 2"):
        convert_onnx(model_of([node("Sum", "x x x x", "y")], (3, 4, 4), 4), limits=few)
    # Nodes of a graph in a node count, too.
    proto, inner = named("n"), chain(30).graph
    proto.graph.node[1].attribute.append(helper.make_attribute("body", inner))
    onnx.save(proto, "net.onnx")
    with pytest.raises(SecateurError, match="32 nodes, at most 20"):
        read_onnx("net.onnx", limits=few)
    onnx.save(chain(3), "net.onnx")
    np.savez("x.npz", x=np.random.default_rng(0).random((4, 3, 4, 4), np.float32))
    command = ["compile", "net.onnx", "--calibrate", "x.npz", "--target", "8x8", "-o", "net.sec"]
    found = CliRunner().invoke(app, [*command, "--max-nodes", "2"])
    assert "3 nodes, at most 2" in str(found.exception)
    found = CliRunner().invoke(app, [*command, "--max-nodes", "30"])
    assert found.exit_code == 0, found.output


def field(number: int, content: bytes) -> bytes:
    """A field of a message with a content, as protobuf writes it."""
    size, length = len(content), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


@pytest.mark.parametrize("inner", [field(1, b""), field(5, b""), field(11, b"")])
def test_a_file_that_unpacks_to_much_is_not_unpacked(inner: bytes, tmp_path: Path) -> None:
    """Empty nodes, tensors, inputs: two bytes are hundreds in memory, twice."""
    (tmp_path / "net.onnx").write_bytes(field(7, inner * 9_000))
    with little_memory(), pytest.raises(SecateurError, match=r"unpacked: .* bytes"):
        read_onnx(tmp_path / "net.onnx", limits=Limits(megabytes=4))


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "net.onnx").open("wb") as file:
        file.truncate(3 << 30)  # takes no room on the disk
    with little_memory(), pytest.raises(SecateurError, match=r"3,221,225,472 bytes.*megabytes"):
        read_onnx(tmp_path / "net.onnx")


@pytest.mark.parametrize("depth", [20, 200])
def test_deep_graphs_do_not_crash(depth: int, tmp_path: Path) -> None:
    data = b""
    for _ in range(depth):  # a graph in an attribute of a node of a graph
        data = field(1, field(5, field(6, data)))
    (tmp_path / "net.onnx").write_bytes(field(7, data))
    with pytest.raises(SecateurError, match="not an ONNX model"):
        read_onnx(tmp_path / "net.onnx")


class TestWeightsInOtherFiles:
    """Data beside the model are read; no other file is."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "secret").write_bytes(ones(36).tobytes())
        made = tmp_path / "models"
        (made / "weights").mkdir(parents=True)
        (made / "weights" / "w.bin").write_bytes(bytes(16) + ones(36).tobytes())
        (made / "link.bin").symlink_to(tmp_path / "secret")
        return made

    def load(self, folder: Path, limits: Limits | None = None, **entries: str) -> torch.Tensor:
        proto = named("n")
        tensor = proto.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
        (folder / "net.onnx").write_bytes(proto.SerializeToString())
        model = load_onnx(folder / "net.onnx", limits=limits or Limits())
        return model.layers["conv_0"].weight

    def test_beside_the_model(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        where = {"location": "weights/w.bin", "offset": "16"}
        assert torch.equal(self.load(folder, **where, length="144"), torch.ones(4, 1, 3, 3))
        assert torch.equal(self.load(folder, **where), torch.ones(4, 1, 3, 3))
        monkeypatch.chdir(folder)
        assert torch.equal(self.load(Path(), **where), torch.ones(4, 1, 3, 3))

    @pytest.mark.parametrize(
        "location", ["../secret", "weights/../../secret", "link.bin", "weights", "", "none", "\0",
                     "/etc/hostname", "w" * 5000],
    )  # fmt: skip
    def test_elsewhere(self, location: str, folder: Path) -> None:
        with pytest.raises(SecateurError, match="not a file in the model's folder") as caught:
            self.load(folder, location=location)
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize(
        ("entries", "message"),
        [
            ({"offset": "17"}, "raw_data size"),
            ({"length": "143"}, "raw_data size"),
            ({"offset": "161"}, "should be bytes 161 to 160"),
            ({"offset": "-16"}, "should be bytes -1"),
            ({"offset": "9" * 30}, "should be bytes -1"),
            ({"length": "1000000000000"}, "1,000,000,000,000 of 'weights/w.bin', which has 160"),
            ({"length": "0x90"}, "should be bytes"),
        ],
    )
    def test_of_another_size(self, entries: dict[str, str], message: str, folder: Path) -> None:
        with little_memory(), pytest.raises(SecateurError, match=message):
            self.load(folder, location="weights/w.bin", **entries)

    def test_of_too_many_bytes(self, folder: Path) -> None:
        with (folder / "large.bin").open("wb") as file:
            file.truncate(2 << 20)
        with pytest.raises(SecateurError, match=r"'nw', and all before it: .* at most 1 MB"):
            self.load(folder, Limits(megabytes=1), location="large.bin")

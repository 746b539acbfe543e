"""TorchScript modules compile; files of other kinds are named, with the way that works."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateur
from secateur.capture.archive.archive import load_archive
from secateur.errors import SecateurError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.each = nn.Conv2d(8, 8, 3, stride=2, groups=8)
        self.wide = nn.ConvTranspose2d(8, 4, 3, stride=2, output_padding=1)
        self.line = nn.Conv1d(4, 4, 3, dilation=2)
        self.last = nn.Linear(4 * 60, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.each(F.relu(self.norm(self.first(x)))))
        x = self.line(F.relu(self.wide(x)).flatten(2))
        return self.last(x.view(x.size(0), -1))


X = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(1)
    return Net().eval()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["scripted", "traced"])
def test_torchscript_is_quantised_as_the_module_it_was_made_of(kind: str, net: Net) -> None:
    made = torch.jit.script(net) if kind == "scripted" else torch.jit.trace(net, X[:1])
    graph, expected = secateur.quantize(made, X), secateur.quantize(net, X)
    assert torch.equal(graph(X), expected(X))
    assert graph(X).std() > 0.05
    cycles = [secateur.compile(g, target="8x8").metadata["cycles"] for g in (graph, expected)]
    assert cycles[0] == cycles[1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_that_cannot_be_converted() -> None:
    class Sorts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            while bool(x.sum() > 0):
                x = x - 1
            return x

    with pytest.raises(SecateurError, match=r"convert the TorchScript module: .*dynamo=False"):
        secateur.quantize(torch.jit.script(Sorts()), X)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_file_is_converted_as_its_message_says(net: Net, tmp_path: Path) -> None:
    file, onnx_file = tmp_path / "net.pt", tmp_path / "model.onnx"
    torch.jit.save(torch.jit.trace(net, X[:1]), str(file))
    with pytest.raises(SecateurError, match=r"net\.pt: a TorchScript file; convert it") as caught:
        load_archive(file)
    call = str(caught.value).split("convert it: ")[1].split(", where")[0]
    assert call == (
        f"torch.onnx.export(torch.jit.load('{file}'), (x,), 'model.onnx', dynamo=False)"
    )
    torch.onnx.export(torch.jit.load(str(file)), (X[:1],), str(onnx_file), dynamo=False)
    torch.testing.assert_close(secateur.load_onnx(onnx_file)(X), net(X))


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1c\0\0\0TFL3" + bytes(8), "a TensorFlow Lite model; .*tf2onnx.* --dequantize"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file, of Keras perhaps; .*tf2onnx.* --keras"),
        (pickled({"weight": torch.ones(2)}), "never unpickled; give the code .*package.module"),
        (b"\x80\x04.", "never unpickled; give the code"),
    ],
)
def test_files_of_other_kinds_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(SecateurError, match=message) as caught:
        load_archive(tmp_path / "model")
    assert "\n" not in str(caught.value)

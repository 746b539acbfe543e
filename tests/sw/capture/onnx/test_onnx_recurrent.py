"""GRU, LSTM and RNN of ONNX: the layers of PyTorch, and the same image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur.capture.onnx.convert import convert_onnx
from secateur.errors import SecateurError
from tests.sw.capture.onnx.test_onnx import model_of, node

X = torch.rand(16, 6, 5, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two layers, of which the last state, or one, of which all steps are read."""

    def __init__(self, kind: Any, layers: int, **more: Any) -> None:
        super().__init__()
        self.cells = kind(5, 8, num_layers=layers, batch_first=True, **more)
        self.head, self.last = nn.Linear(8, 3), layers > 1

    def forward(self, x: Tensor) -> Tensor:
        y, states = self.cells(x)
        last = states[0] if isinstance(states, tuple) else states
        return self.head(last[-1] if self.last else y)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("any_number", [False, True])
@pytest.mark.parametrize(
    ("kind", "layers", "more"),
    [(nn.GRU, 2, {}), (nn.LSTM, 2, {}), (nn.RNN, 1, {"nonlinearity": "relu"}),
     (nn.GRU, 1, {"bias": False})],
)  # fmt: skip
def test_what_torchs_exporter_writes_gives_the_same_image(
    kind: Any, layers: int, more: dict[str, Any], any_number: bool, tmp_path: Path
) -> None:
    """With states to begin with that are zeros of a shape that the file computes."""
    torch.manual_seed(0)
    model, file = Net(kind, layers, **more).eval(), tmp_path / "net.onnx"
    names = {"input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}} if any_number else {}
    torch.onnx.export(model, (X[:1],), str(file), dynamo=False, **names)
    found = secateur.load_onnx(file)
    torch.testing.assert_close(found(X), model(X))
    images = [secateur.compile(m, target="8x1", calibration=X) for m in (found, model)]
    assert images[0].stream == images[1].stream


def gru(**more: Any) -> list[onnx.NodeProto]:
    return [node("GRU", "x w r b", "y", **{"hidden_size": 4, "linear_before_reset": 1, **more})]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (gru(linear_before_reset=0), r"'n_y' \(GRU\): resets the state before .*reset_after=True"),
        (gru(clip=1.0), "clips its gates, or couples them"),
        (gru(activations=["Relu", "Tanh"]), "activations Relu, Tanh; use Sigmoid, Tanh"),
        (gru(hidden_size=5), r"weights of shapes \(1, 12, 3\) and \(1, 12, 4\) for 5 states"),
        ([node("GRU", "x w r b  h", "y", hidden_size=4, linear_before_reset=1)],
         "is given a state to begin with; begin with zeros"),
    ],
)  # fmt: skip
def test_other_cells_are_refused(nodes: list[onnx.NodeProto], message: str) -> None:
    if "h" in nodes[0].input:
        nodes[0].input[:] = ["x", "w", "r", "b", "", "h"]
    proto = model_of(
        nodes, (6, 3), 4, w=np.ones((1, 12, 3), np.float32), r=np.ones((1, 12, 4), np.float32),
        b=np.ones((1, 24), np.float32), h=np.ones((1, 1, 4), np.float32),
    )  # fmt: skip
    with pytest.raises(SecateurError, match=message):
        convert_onnx(proto)


def test_lengths_of_sequences_that_are_the_same() -> None:
    """Given as a constant, they are those of the tensor; others are refused."""
    lengths = np.array([6, 6], np.int32)
    for given, fine in ((lengths, True), (lengths - [0, 1], False)):
        nodes = gru()
        nodes[0].input.append("lengths")
        proto = model_of(
            nodes, (6, 3), 4, w=np.ones((1, 12, 3), np.float32), r=np.ones((1, 12, 4), np.float32),
            b=np.ones((1, 24), np.float32), lengths=given.astype(np.int32),
        )  # fmt: skip
        if fine:
            assert convert_onnx(proto).layers["gru_0"].layer.hidden_size == 4
        else:
            with pytest.raises(SecateurError, match="takes lengths of sequences"):
                convert_onnx(proto)

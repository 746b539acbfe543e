"""An image that computes something else than PyTorch is found before it is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secateur import api
from secateur.agreement import check_image, some_inputs
from secateur.capture.recurrent import Steps
from secateur.compiler import dataflow, prepare
from secateur.errors import SecateurError
from secateur.image.image import Image
from secateur.lowering.lower import lower
from secateur.quantisation.prepare import quantize
from tests.sw.compiler.test_dataflow import DelayLine


def delay_line(seed: int = 0) -> Steps:
    """A model, for the command line."""
    return Steps(DelayLine(), [(8,), (8,)])


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that moves states in a wrong order, and does not prove its plans."""
    monkeypatch.setattr(prepare, "_readers", lambda state, waiting: [])
    monkeypatch.setattr(dataflow, "check", lambda network, plan: None)


def sequences() -> Tensor:
    return torch.randn(5, 20, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.usefixtures("faulty")
def test_compile_refuses_it_by_name() -> None:
    torch.manual_seed(0)
    message = "^layer 'model.last': .* codes of the image differ from PyTorch's: a fault of Secat"
    with pytest.raises(SecateurError, match=message):
        api.compile(delay_line(), target="8x1", calibration=sequences())
    graph = quantize(delay_line(), sequences())
    with pytest.raises(SecateurError, match=message):
        api.compile(graph, target="8x1")  # no calibration: random codes
    assert isinstance(api.compile(graph, target="8x1", check=False), Image)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.mark.usefixtures("faulty")
def test_the_command_line_writes_no_image(secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    np.savez(folder / "s.npz", x=sequences().numpy())
    line = "compile tests.sw.test_agreement:delay_line --calibrate s.npz --target 8x1 -o m.sec"
    status, _, stderr = secateur(line)
    assert status == 1
    assert "differ from PyTorch's" in stderr
    assert not (folder / "m.sec").exists()
    assert secateur(f"{line} --no-check")[0] == 0
    assert (folder / "m.sec").exists()


def convolution() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)).eval()


def test_the_sign_of_a_weight_is_found() -> None:
    x = torch.rand(3, 1, 5, 5)
    graph = quantize(convolution(), x)
    image = api.compile(graph, target="8x1")
    assert check_image(image, graph, x) == 2 * 3
    network = lower(graph)
    other = quantize(convolution(), x)
    weight = next(value for value in other.state_dict().values() if value.dtype == torch.int8)
    weight.view(-1)[0] = -weight.view(-1)[0]
    with pytest.raises(SecateurError, match=r"^layer '0': \d+ of \d+ codes"):
        check_image(image, other, x, network)


def test_inputs_of_a_fixed_batch() -> None:
    """As many as the graph takes, from the data or drawn in the range of the input's codes."""
    x = torch.rand(3, 1, 5, 5) - 0.5
    program = torch.export.export(convolution(), (x[:1].expand(5, 1, 5, 5),))
    graph = quantize(program, x)
    network = lower(graph)
    tried = some_inputs(graph, network, x).one
    assert torch.equal(tried, x[[0, 1, 2, 0, 1]])
    drawn = some_inputs(graph, network).one
    codes = drawn * 2.0 ** -network.given[0].exponent
    assert drawn.shape == (5, 1, 5, 5)
    assert codes.min() >= -128
    assert codes.max() <= 127
    assert torch.equal(codes, codes.round())
    assert codes.min() < 0 < codes.max()

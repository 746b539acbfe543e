"""Arguments of the Python functions that are something else: one line that says what to give."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.capture.onnx.convert import load_onnx
from secateur.errors import SecateurError, SecateurWarning
from secateur.image.image import Image
from secateur.pruning import density_of


@pytest.fixture(scope="module")
def image() -> Image:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    return secateur.compile(model, target="8x1", calibration=torch.rand(4, 3, 6, 6))


def test_names_that_an_editor_offers() -> None:
    assert dir(secateur) == sorted(secateur.__all__)


def test_a_session_prints_nothing_of_its_own() -> None:
    """Neither torchao's import nor torch's export has news; the user's own logging is heard."""
    code = (
        "import logging, secateur\n"
        "import torch\n"
        "model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval()\n"
        "secateur.quantize(model, torch.rand(4, 3, 8, 8))\n"
        "logging.getLogger('torchao').warning('heard')"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("", "heard\n")


@pytest.mark.parametrize("run", [secateur.run, secateur.simulate])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(2, 3, 6, 6), "NumPy array, not Tensor; give np.asarray"),
        ([[1.0]], "NumPy array, not list"),
        (np.zeros((0, 3, 6, 6), np.float32), r"shape \(0, 3, 6, 6\); give samples first"),
        (np.float32(1), "must be a NumPy array"),
    ],
)
def test_inputs(run: Callable[..., object], x: object, message: str, image: Image) -> None:
    with pytest.raises(SecateurError, match=message):
        run(image, x)


def test_models_and_targets() -> None:
    model, x = nn.Linear(4, 4), torch.rand(4, 4)
    with pytest.raises(
        SecateurError, match="target must be a Target, or the name of one, not None"
    ):
        secateur.compile(model, target=None, calibration=x)  # type: ignore[arg-type]
    for path in ("model.pt2", Path("model.onnx")):
        for call in (
            lambda path: secateur.compile(path, target="8x8", calibration=x),
            lambda path: secateur.quantize(path, x),
        ):
            with pytest.raises(
                SecateurError, match=r"not .*'model\..*; read files by secateur.load_archive"
            ):
                call(path)
    with pytest.raises(SecateurError, match="no such file"):
        load_onnx("none.onnx")


def test_graphs_that_torch_makes_of_a_model() -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), torch.rand(4, 3, 6, 6)
    expected = secateur.quantize(model, x)(x)
    for same in (
        torch.fx.symbolic_trace(model),
        torch.export.export(model, (x,)),
        torch.export.export(model, (x,)).module(),
    ):
        assert torch.equal(secateur.quantize(same, x)(x), expected)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    for wrapped in (
        torch.compile(model),
        nn.DataParallel(model),
        averaged,
        nn.DataParallel(averaged),
    ):
        assert torch.equal(secateur.quantize(wrapped, x)(x), expected)


def test_what_is_no_image(image: Image, tmp_path: Path) -> None:
    image.save(f"{tmp_path}/model.sec")
    assert secateur.load(f"{tmp_path}/model.sec").stream == image.stream
    x = np.zeros((1, 3, 6, 6), np.float32)
    for given, name in (("model.sec", "'model.sec'"), (nn.Linear(3, 3), "Linear")):
        with pytest.raises(SecateurError, match=rf"must be an Image, not {name}; secateur\.load"):
            secateur.run(given, x)  # type: ignore[arg-type]
    with pytest.raises(SecateurError, match=r"what secateur\.prepare returned, not Linear"):
        secateur.finalize(nn.Linear(3, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("calibration", "kind"), [(None, "NoneType"), (5, "int"), ([(torch.rand(2, 4), 1)], "tuple")]
)
def test_calibration(calibration: object, kind: str) -> None:
    with pytest.raises(SecateurError, match=rf"\[x for x, y in loader\], not {kind}"):
        secateur.quantize(nn.Linear(4, 4), calibration)  # type: ignore[arg-type]


def test_recurrent_layers_are_to_be_decomposed_first() -> None:
    model = nn.ModuleDict({"gru": nn.GRU(4, 8), "head": nn.Linear(8, 8)})
    with pytest.warns(SecateurWarning, match=r"'gru' \(GRU\) is not pruned; .*decompose"):
        secateur.prune(model, density=0.5)


def test_criteria_and_granularities_by_name() -> None:
    model = nn.Sequential(nn.Linear(8, 8))
    secateur.prune(model, density=0.5, criterion="l1", granularity="filter")
    assert (model[0].weight.any(dim=1).sum(), density_of(model, 8).layers[0].kept) == (4, 8)
    secateur.prune(model, granularity="2:4")
    assert int((model[0].weight != 0).sum()) == 4 * 4
    with pytest.raises(
        SecateurError, match=r"'taylor' needs data: .*criterion_of\('taylor', batch"
    ):
        secateur.prune(model, density=0.5, criterion="taylor")
    with pytest.raises(SecateurError, match="criterion 'best' is unknown"):
        secateur.prune(model, density=0.5, criterion="best")
    with pytest.raises(SecateurError, match="granularity must be one of 'block'"):
        secateur.prune(model, density=0.5, granularity="row")

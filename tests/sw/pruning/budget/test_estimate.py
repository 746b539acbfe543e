"""What a model would take on boards, against the compiler and against plain loops."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import secateur
from secateur.boards.catalogue.catalogue import BOARDS
from secateur.cli.main import app
from secateur.errors import SecateurError
from secateur.hw.spec import Geometry
from secateur.pruning.budget.estimate import Engine, _strongest, estimate
from secateur.target import Target
from tests import parts

X = torch.rand(4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
SMALL = Geometry(n=8, p=8, weight_words=1024, bank_words=1024)


def test_cycles_are_those_of_the_image() -> None:
    model = parts.model(0)
    secateur.prune(model, density=0.5)  # zeros that a density of 1 leaves as they are
    geometries = (SMALL, replace(SMALL, n=4, p=3), replace(SMALL, p=1))
    engines = [Engine(str(i), geometry, 100.0) for i, geometry in enumerate(geometries)]
    rows = estimate(model, X, engines, densities=[1.0])
    for row in rows:
        target = Target(name="mine", geometry=row.engine.geometry)
        image = secateur.compile(model, target=target, calibration=X)
        assert (row.cycles, row.problem) == (image.metadata["cycles"], None)
        assert row.words == len(image.stream) // row.engine.geometry.word_bytes
        assert row.milliseconds == image.metadata["cycles"] / 100_000


def test_fewer_blocks_take_fewer_cycles_and_words() -> None:
    rows = estimate(parts.model(0), X, [Engine("a", SMALL, 100.0)])
    assert [row.density for row in rows] == [1, 0.5, 0.25, 0.125]
    for more, fewer in pairwise(rows):
        assert fewer.cycles < more.cycles
        assert fewer.words < more.words


@pytest.mark.parametrize("shape", [(16, 3, 3, 3), (10, 7), (5, 3, 3), (9, 4, 1, 1)])
@pytest.mark.parametrize("density", [0.125, 0.3, 0.9])
def test_the_strongest_blocks_stay(shape: tuple[int, ...], density: float) -> None:
    weight = np.random.default_rng(1).integers(-127, 128, shape)
    found = _strongest(weight, 4, density).reshape(shape[0], -1)
    flat, kept, gone = weight.reshape(shape[0], -1), [], []
    for first in range(0, shape[0], 4):
        for place in range(flat.shape[1]):
            block = flat[first : first + 4, place]
            stays = found[first : first + 4, place].any()
            assert (found[first : first + 4, place] == (block if stays else 0)).all()
            (kept if stays else gone).append(int((block**2).sum()))
    assert len(kept) == max(1, round(density * (len(kept) + len(gone))))
    assert min(kept) >= max(gone, default=0)


def test_why_it_does_not_fit() -> None:
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3))
    narrow = Engine("narrow", replace(SMALL, bank_words=16), 100.0)
    short = Engine("short", replace(SMALL, weight_words=128), 100.0)
    rows = estimate(model, X, [narrow, short], densities=[1, 0.25])
    assert [row.milliseconds is None for row in rows] == [True, True, True, False]
    assert all(row.problem and "banks" in row.problem for row in rows[:2])
    assert rows[2].problem == f"the image takes {rows[2].words:,} of 128 words"
    for density in (0, 1.5, float("nan")):
        with pytest.raises(SecateurError, match="density must be above 0 and at most 1"):
            estimate(model, X, [short], densities=[density])


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "x.npz", x=X.numpy())
    command = ["estimate", "tests.parts:model", "--calibrate", str(tmp_path / "x.npz")]
    command += ["--density", "1", "--density", "0.2"]
    ran = CliRunner().invoke(app, [*command, "--json"])
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)["estimates"]
    assert {row["engine"]["name"] for row in found} == {*BOARDS}
    assert len(found) == 2 * len(BOARDS)
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0
    assert max(map(len, shown.stdout.splitlines())) <= 80
    for row in found:
        assert row["problem"] is None
        assert f"{row['milliseconds']:.3f}" in shown.stdout

"""The demo: what it checks, and what it shows while it runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from secateur import api
from secateur.cli.main import app
from secateur.errors import SecateurError
from secateur.examples import demo, demo_model

EPOCHS = 2, 3


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A small demo without Verilator; the geometries that a simulator was built for."""
    asked: list[object] = []
    whole = demo_model.data(0)
    few = replace(
        whole,
        train_x=whole.train_x[::20], train_y=whole.train_y[::20],
        test_x=whole.test_x[::20], test_y=whole.test_y[::20],
    )  # fmt: skip

    def simulate(image: api.Image, x: np.ndarray) -> api.Simulation:
        assert asked == [image.geometry]
        cycles = image.metadata["cycles"]
        return api.Simulation(None, cycles, cycles, [], len(x) * 9, len(x))

    monkeypatch.setattr(demo_model, "data", lambda seed: few)
    monkeypatch.setattr(demo_model, "EPOCHS", EPOCHS[0])
    monkeypatch.setattr(demo_model, "PRUNE_EPOCHS", EPOCHS[1])
    monkeypatch.setattr(api, "build_simulator", asked.append)
    monkeypatch.setattr(api, "simulate", simulate)
    return asked


def test_progress_is_seen_without_a_terminal(built: list[object], tmp_path: Path) -> None:
    """A line on stderr for every epoch and stage; on stdout the results alone."""
    done = CliRunner().invoke(app, ["demo", "-o", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    begins = [line.partition(":")[0] for line in done.stderr.splitlines()]
    assert begins == [
        *(f"train {epoch}/{EPOCHS[0]}" for epoch in (1, 2)),
        "dense 1/1",
        *(f"prune {epoch}/{EPOCHS[1]}" for epoch in (1, 2, 3)),
        "pruned 1/1",
        "golden, dense 50/50",
        "golden, pruned 50/50",
        "Verilator 0/1",
        "Verilator 1/1",
    ]
    data = json.loads(done.stdout)
    assert data["golden_images"] == 100
    assert data == json.loads((tmp_path / "summary.json").read_text())
    for file in data["files"]:
        assert Path(file).is_file()


def test_what_it_prints_at_the_end(built: list[object], tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    done = CliRunner().invoke(app, ["demo", "-o", str(folder)])
    assert done.exit_code == 0, done.output
    assert "Verilator 1/1: 9 layers x 8 images equal golden's" in done.stderr
    text = " ".join(done.stdout.split())
    assert (
        "Checked: 2 models x 50 images PyTorch = golden (results), 8 images on every layer" in text
    )
    assert text.endswith(f"Next: secateur inspect '{folder}/pruned.sec'")


def test_a_simulator_that_cannot_be_built(
    built: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(geometry: object) -> None:
        built.append(geometry)
        raise SecateurError("no compiler")

    monkeypatch.setattr(api, "build_simulator", fail)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(SecateurError, match="no compiler"):
            demo.run_demo(tmp_path, 0)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert not (tmp_path / "summary.json").exists()

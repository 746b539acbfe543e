"""A study on processes: the images of a study without any, whatever dies."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from distributed import LocalCluster
from typer.testing import CliRunner

from secateur.cli.main import app
from secateur.errors import SecateurError
from secateur.pruning.explore import study
from secateur.pruning.explore.study import load_study, run_study
from secateur.pruning.recipes.task.device import one_thread
from tests import killing

DATA = Path(__file__).parents[3] / "data"
#: Two runs of one dense network.
SMALL = 'recipe = "tiny-one-shot.toml"\nseeds = [3]\n[variants.uniform.prune]\nmethod = "uniform"\n'


@pytest.fixture(autouse=True)
def modules_on_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", killing.PATHS)


def small(folder: Path) -> Path:
    (folder / "tiny-one-shot.toml").write_text((DATA / "tiny-one-shot.toml").read_text())
    (folder / "study.toml").write_text(SMALL)
    return folder / "study.toml"


def images(folder: Path) -> dict[str, bytes]:
    found = sorted(folder.glob("*/*.sec"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


def table(folder: Path) -> dict[str, object]:
    return json.loads((folder / "study.json").read_text())


def same(here: Path, there: Path) -> None:
    assert images(here)
    assert images(here) == images(there)
    assert table(here) == table(there)


def test_a_worker_that_dies_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, killed = small(tmp_path), tmp_path / "killed"
    with one_thread():
        run_study(load_study(file), tmp_path / "here")
    monkeypatch.setenv(killing.VARIABLE, str(killed))
    line = ["study", str(file), "-o", str(tmp_path / "there"), "--workers", "2", "--json"]
    ran = CliRunner().invoke(app, line)
    assert killed.exists()
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["variants"] == table(tmp_path / "there")["variants"]
    same(tmp_path / "here", tmp_path / "there")
    record = json.loads((tmp_path / "there" / "uniform-3" / "record.json").read_text())
    assert record["environment"]["threads"] == 1
    again: list[str] = []
    run_study(load_study(file), tmp_path / "there", progress=lambda stage, *_: again.append(stage))
    assert again == []  # all is done


@pytest.mark.long
def test_the_whole_study_on_a_scheduler_resumes_and_is_the_same(tmp_path: Path) -> None:
    """Over TCP, interrupted after the first run; with networks of their own and shared ones."""
    found = load_study(DATA / "tiny-study.toml")
    with one_thread():
        run_study(found, tmp_path / "here")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with LocalCluster(
        n_workers=2, threads_per_worker=1, protocol="tcp", host="127.0.0.1",
        dashboard_address=":0", silence_logs=logging.CRITICAL,
    ) as cluster:  # fmt: skip
        address = cluster.scheduler_address
        with pytest.raises(KeyboardInterrupt):
            run_study(found, tmp_path / "there", scheduler=address, progress=stop)
        assert not (tmp_path / "there" / "study.json").exists()
        run_study(found, tmp_path / "there", scheduler=address)
    same(tmp_path / "here", tmp_path / "there")


class Noted:
    """A client of Dask's that only notes what waits for what, and makes nothing."""

    def __init__(self) -> None:
        self.given: list[tuple[str, str | None]] = []

    def submit(self, call: object, run: study.Run, source: str | None, **_: object) -> str:
        self.given.append((run.place.name, source))
        return run.place.name


def test_runs_wait_for_the_dense_network_that_they_share(tmp_path: Path) -> None:
    runs = study._runs(load_study(DATA / "tiny-study.toml"), tmp_path)
    client = Noted()
    with pytest.raises(SecateurError, match="recipe-3: its workers died, or the run did"):
        next(study._there(runs, client, lambda *_: None))  # a name has no result
    assert client.given == [
        ("recipe-3", None), ("uniform-3", "recipe-3"), ("channels-3", "recipe-3"),
        ("narrow-3", None),
        ("recipe-4", None), ("uniform-4", "recipe-4"), ("channels-4", "recipe-4"),
        ("narrow-4", None),
    ]  # fmt: skip


@pytest.mark.long
def test_a_run_that_does_not_work_out_is_one_line(tmp_path: Path) -> None:
    file = small(tmp_path)
    recipe = tmp_path / "tiny-one-shot.toml"
    recipe.write_text(recipe.read_text().replace("cycles = 1500", "cycles = 10"))
    with pytest.raises(SecateurError, match="10 cycles cannot be reached"):
        run_study(load_study(file), tmp_path / "there", workers=1)


def test_torch_gets_its_threads_back() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)

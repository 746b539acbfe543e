"""One run a folder: between processes, however they end, and without a trace."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from secateur.cli.boards import build, swap
from secateur.cli.main import app
from secateur.disk.lock import FILE, held, release, take
from secateur.errors import SecateurError
from secateur.examples import run as example
from secateur.examples.demo import run_demo
from secateur.pruning.explore import study
from secateur.pruning.explore.study import load_study, run_study
from secateur.pruning.recipes.recipe import load_recipe
from secateur.pruning.recipes.run import run_recipe
from tests.sw.image.image_files import image_file, random_words

DATA = Path(__file__).parents[2] / "data"
#: Runs the tiny recipe, says so when it has begun, and waits there.
RUN = """
import sys
from pathlib import Path
from secateur.pruning.recipes.recipe import load_recipe
from secateur.pruning.recipes.run import run_recipe

def progress(stage, *rest):
    print(stage, flush=True)
    sys.stdin.read()

sys.path.insert(0, sys.argv[1])
run_recipe(load_recipe(Path(sys.argv[2])), Path(sys.argv[3]), progress=progress)
"""


#: Only holds the folder.
HOLD = """
import sys
from pathlib import Path
from secateur.disk.lock import held

with held(Path(sys.argv[3])):
    print("budget", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another(folder: Path, program: str) -> Iterator[subprocess.Popen[str]]:
    """A process in the folder."""
    arguments = [str(DATA.parent), str(DATA / "tiny.toml"), str(folder)]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "budget\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("program", [HOLD, pytest.param(RUN, marks=pytest.mark.long)])
def test_a_second_run_is_refused_and_takes_over_from_a_dead_one(
    program: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ["prune", str(DATA / "tiny.toml"), "-o", str(out)]
    with another(out, program) as process:
        before = {path: path.read_bytes() for path in out.iterdir()}
        for extra in ([], ["--resume"], ["--cycles", "1600"]):
            refused = CliRunner().invoke(app, [*command, *extra])
            assert refused.exit_code == 1
            assert refused.stdout == ""
            assert re.fullmatch(
                rf"{out}: in use by process {process.pid} on .*, since [0-9: -]+; wait until it "
                rf"has ended, or choose another folder",
                str(refused.exception),
            )
        assert {path: path.read_bytes() for path in out.iterdir()} == before
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (out / FILE).exists()
    with held(out):
        pass
    assert list(out.iterdir()) == []


def run_all(folder: Path, image: Path = Path()) -> dict[str, Any]:
    recipe = load_recipe(DATA / "tiny.toml")
    return {
        "a recipe": lambda: run_recipe(recipe, folder),
        "a study": lambda: run_study(load_study(DATA / "tiny-study.toml"), folder),
        "an example": lambda: example.run_example("home", folder, clock_mhz=1.0),
        "the demo": lambda: run_demo(folder, 0),
        "a build": lambda: build("ulx3s-25f", folder),
        "a swap": lambda: swap(image, folder),
    }


@pytest.mark.parametrize("name", run_all(Path()))
def test_whatever_runs_in_a_folder_holds_it(name: str, tmp_path: Path) -> None:
    out, image = tmp_path / "out", tmp_path / "m.sec"
    image.write_bytes(image_file(random_words(300, 2, 0), None))
    with held(out), pytest.raises(SecateurError, match="in use by process"):
        run_all(out, image)[name]()
    assert [path.name for path in tmp_path.iterdir()] == ["m.sec"]


def test_a_run_may_wait_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order, waits, asked = list[str](), list[bool](), threading.Event()

    def noted(file: Path, *, wait: bool = False) -> int | None:
        waits.append(wait)
        asked.set()
        return take(file, wait=wait)

    def second() -> None:
        with held(tmp_path / "out", wait=True):
            order.append("second")

    waiting = threading.Thread(target=second)
    with held(tmp_path / "out"):
        monkeypatch.setattr("secateur.disk.lock.take", noted)
        waiting.start()
        asked.wait()
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]
    assert set(waits) == {True}  # more than once if the first has taken its file along


def test_an_example_is_held_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only while its recipe runs."""
    seen: list[bool] = []

    def run(*_: object, **__: object) -> None:
        seen.append((tmp_path / FILE).exists())
        raise KeyboardInterrupt

    monkeypatch.setattr(example, "run_held", lambda *_, **__: {})
    monkeypatch.setattr(example, "load", run)
    with pytest.raises(KeyboardInterrupt):
        example.run_example("home", tmp_path, clock_mhz=1.0)
    assert seen == [True]
    assert not (tmp_path / FILE).exists()


def test_a_run_within_a_study_is_held_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def run(recipe: object, place: Path, **_: object) -> None:
        seen.extend(str(f.relative_to(tmp_path)) for f in sorted(tmp_path.rglob(FILE)))
        raise SecateurError("no")

    monkeypatch.setattr(study, "run_held", run)
    with pytest.raises(SecateurError, match="no"):
        run_study(load_study(DATA / "tiny-study.toml"), tmp_path / "out")
    assert seen == ["out/recipe-3/run.lock", "out/run.lock"]
    assert list(tmp_path.iterdir()) == []


def test_folders_that_were_made_for_nothing_go(tmp_path: Path) -> None:
    with held(tmp_path / "a" / "b"):
        assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == [FILE]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    with held(tmp_path / "empty"):
        pass
    assert (tmp_path / "empty").is_dir()
    with held(tmp_path / "full"):
        (tmp_path / "full" / "file").touch()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]


def test_a_lock_on_a_file_that_is_gone_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder removes the file between another's opening and locking of it."""
    file, original = tmp_path / "lock", fcntl.flock
    first = take(file)
    assert first is not None
    calls = 0

    def flock(handle: int, how: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            release(file, first)
        original(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    second = take(file)
    assert second is not None
    assert calls == 2
    assert take(file) is None
    release(file, second)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_goes_while_it_is_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run has made it, is refused, and takes it away again."""
    original, calls = os.open, 0

    def opened(file: Path, *rest: int) -> int:
        nonlocal calls
        if Path(file).name == FILE:
            calls += 1
            if calls == 1:
                Path(file).parent.rmdir()
        return original(file, *rest)

    monkeypatch.setattr(os, "open", opened)
    with held(tmp_path / "out"):
        assert (tmp_path / "out" / FILE).exists()
    assert calls == 2


def test_what_cannot_be_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SecateurError, match="file: cannot be made: File exists"):
        with held(tmp_path / "file"):
            pass
    with pytest.raises(SecateurError, match="file/in: cannot be made: Not a directory"):
        with held(tmp_path / "file" / "in"):
            pass

    def flock(*_: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(SecateurError, match="new: cannot be locked: Operation not supported"):
        with held(tmp_path / "new"):
            pass

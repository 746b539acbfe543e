"""Two commands at once in one folder: one runs, the other is refused, and nothing is mixed."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.boards.flow import fake_tools
from tests.support import gate
from tests.sw.image.image_files import image_file, random_words

pytestmark = pytest.mark.long

TARGET = "n = 2\np = 1\nweight_words = 2304\nbank_words = 16\ntables = 0\n"
RECIPE = """
seed = {seed}
target = "8x8"
model.build = "tests.parts:narrow"
data.load = "tests.parts:gated"
budget.cycles = 1500
train = {{epochs = 1, learning_rate = 1e-2}}
prune.epochs = 1
qat.epochs = 1
"""
BUILD = "build --board ulx3s-25f --target ../t.toml -o out --image"
#: Each with two inputs.
COMMANDS = {
    "build": (f"{BUILD} ../a.sec", f"{BUILD} ../b.sec"),
    "swap": ("swap -o out --image ../a.sec", "swap -o out --image ../b.sec"),
    "prune": ("prune ../a.toml -o out", "prune ../b.toml -o out"),
    "study": ("study ../a-study.toml -o out", "study ../b-study.toml -o out"),
}
PAIRS = [
    (COMMANDS[first][turn], COMMANDS[second][1 - turn])
    for first, second in itertools.combinations_with_replacement(COMMANDS, 2)
    for turn in (0, 1)
]
Contents = dict[str, bytes]


def start(line: str, place: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "secateur", *line.split()],
        cwd=place, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def contents(folder: Path) -> Contents:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs, and in ``built`` the folder of a build."""
    place = tmp_path_factory.mktemp("pairs")
    fake_tools.install(place / "bin")
    (place / "t.toml").write_text(TARGET)
    for seed, name in enumerate("abc"):
        (place / f"{name}.sec").write_bytes(image_file(random_words(2200, 2, seed), None))
        (place / f"{name}.toml").write_text(RECIPE.format(seed=seed))
        (place / f"{name}-study.toml").write_text(f'recipe = "{name}.toml"\nseeds = [{seed}]\n')
    (place / "built").mkdir()
    alone(f"{BUILD} ../c.sec", place / "built", environment(place))
    return place


def environment(place: Path) -> dict[str, str]:
    found = {name: text for name, text in os.environ.items() if name != gate.VARIABLE}
    return found | {
        "PATH": f"{place / 'bin'}:/bin:/usr/bin",
        "PYTHONPATH": os.pathsep.join([str(fake_tools.ROOT), os.environ.get("PYTHONPATH", "")]),
        "AMARANTH_USE_YOSYS": "builtin",  # not the fake one
        "FAKE_FMAX": "151.2",
    }


def alone(line: str, place: Path, environment: dict[str, str]) -> Contents:
    with start(line, place, environment) as process:
        assert process.wait() == 0, process.communicate()
    return contents(place / "out")


@pytest.fixture(scope="module")
def expected(place: Path) -> dict[str, Contents]:
    """What each command leaves if it runs alone."""
    found = {}
    for number, line in enumerate(itertools.chain(*COMMANDS.values())):
        where = place / f"alone-{number}"
        shutil.copytree(place / "built", where)
        found[line] = alone(line, where, environment(place))
    assert all(found[first] != found[second] for first, second in COMMANDS.values())
    return found


@pytest.mark.parametrize("pair", PAIRS, ids=" | ".join)
def test_one_of_two_runs(
    pair: tuple[str, str], place: Path, expected: dict[str, Contents], tmp_path: Path
) -> None:
    where = place / f"pair-{PAIRS.index(pair)}"
    shutil.copytree(place / "built", where)
    gate.make(where / "gate")
    both = environment(place) | {gate.VARIABLE: str(where / "gate")}
    processes = [start(line, where, both) for line in pair]
    try:
        ended = list(gate.first_ended(processes, where / "gate"))
        assert ended, "both run"
        refused, running = processes[ended[0]], processes[1 - ended[0]]
        out, err = refused.communicate()
        assert (refused.returncode, out) == (1, "")
        says = rf"secateur: out: in use by process {running.pid} on .*; wait until it has ended, .*"
        assert re.fullmatch(says, err.removesuffix("\n"))
        gate.open_gate(where / "gate")
        said = running.communicate()
        assert running.returncode == 0, said
    finally:
        for process in processes:
            process.kill()
    assert contents(where / "out") == expected[pair[1 - ended[0]]]

"""The cache of simulators, with tools that do nothing: keys, owners, builds side by side."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import pytest

from secateur.sim import cache, verilator
from secateur.sim.verilator import SimulationError


def fake(command: list[str], folder: Path) -> None:
    """What is left of a build."""
    if command[0] == "make":
        (folder / "bench").write_text("program")
        (folder / "verilated.o").write_text("library")


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An empty cache; the tools that are run."""
    run: list[str] = []
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(verilator, "_command", lambda c, f: (run.append(c[0]), fake(c, f)))
    return run


def test_a_build_is_made_once_and_kept(commands: list[str], tmp_path: Path) -> None:
    program = verilator.build("module bench; endmodule", "control")
    assert program.read_text() == "program"
    made = list(commands)
    assert made == ["verilator", "make"]
    assert verilator.build("module bench; endmodule", "control") == program
    assert commands == made
    place = tmp_path / "cache" / "verilator"
    assert [stat.S_IMODE(p.stat().st_mode) for p in (place.parent, place)] == [0o700, 0o700]
    kept = {path.name for path in place.iterdir()}
    assert program.parent.name in kept
    assert len(kept) == 2  # and the library


def test_a_damaged_simulator_is_built_again(commands: list[str]) -> None:
    program = verilator.build("verilog", "control")
    for damage in (lambda: program.write_text("pro"), program.unlink):
        commands.clear()
        damage()
        assert verilator.build("verilog", "control") == program
        assert commands == ["verilator", "make"]
        assert program.read_text() == "program"


class Wheel:
    version = "1.0"

    def read_text(self, name: str) -> str:
        return f"another {name}"


CHANGES: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "options": lambda patch: patch.setattr(verilator, "_OPTIONS", verilator._OPTIONS + " -O0"),
    "variables of make": lambda patch: patch.setitem(verilator._MAKE, "OPT_FAST", "-O3"),
    "LZ4": lambda patch: patch.setattr(verilator, "_LZ4", ""),
    "Python": lambda patch: patch.setattr(sys, "prefix", "/elsewhere"),
    "version of Python": lambda patch: patch.setattr(sys.implementation, "cache_tag", "cpython-0"),
    "processor": lambda patch: patch.setattr("platform.machine", lambda: "riscv64"),
    "library of C": lambda patch: patch.setattr("platform.libc_ver", lambda: ("musl", "1")),
    "compiler": lambda patch: patch.setattr(verilator, "_compiler", lambda path: "another"),
    "flags": lambda patch: patch.setenv("CXXFLAGS", "-O3"),
    "content of a wheel": lambda patch: patch.setattr(metadata, "distribution", lambda _: Wheel()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_all_that_matters_is_in_the_key(
    name: str, commands: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = verilator.build("verilog", "control")
    CHANGES[name](monkeypatch)
    assert verilator.build("verilog", "control") != before


def test_sources_are_in_the_key(commands: list[str]) -> None:
    programs = {
        verilator.build(*sources, waves=waves)
        for *sources, waves in [
            ("verilog", "control", False),
            ("verilog2", "control", False),
            ("verilog", "control2", False),
            ("verilog", "control", True),
            ("verilogc", "ontrol", False),
        ]
    }
    assert len(programs) == 5


def test_the_compiler_is_asked_what_it_is(tmp_path: Path) -> None:
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        compiler = tmp_path / version / "c++"
        compiler.write_text(f"#!/bin/sh\necho version {version}\n")
        compiler.chmod(0o755)
    found = [verilator._compiler(str(tmp_path / v)) for v in ("one", "two", "none")]
    assert "version one" in found[0]
    assert "version two" in found[1]
    assert found[2] == ""


@pytest.mark.parametrize(("part", "mode"), [("cache", 0o777), ("cache/verilator", 0o770)])
def test_a_folder_that_others_write_to_is_refused(
    part: str, mode: int, commands: list[str], tmp_path: Path
) -> None:
    program = verilator.build("verilog", "control")
    (tmp_path / part).chmod(mode)
    with pytest.raises(cache.CacheError, match=f"{part}: others may write to it, .*SECATEUR_CACHE"):
        verilator.build("verilog", "control")
    (tmp_path / part).chmod(0o700)
    assert verilator.build("verilog", "control") == program
    (tmp_path / "cache").chmod(0o1777)  # as /tmp is
    assert verilator.build("verilog", "control") == program


def test_a_folder_of_another_user_is_refused(
    commands: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    verilator.build("verilog", "control")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(cache.CacheError, match="others may write to it"):
        verilator.build("verilog", "control")


def test_a_place_that_is_no_folder(commands: list[str], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(cache.CacheError, match="cache: no place for simulators: File exists"):
        verilator.build("verilog", "control")


def test_a_build_within_a_build(commands: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither disturbs the other."""
    inner: list[Path] = []

    def command(line: list[str], folder: Path) -> None:
        if not inner:
            inner.append(folder)
            inner[:] = [verilator.build("another", "control")]
        assert folder.is_dir()
        fake(line, folder)

    monkeypatch.setattr(verilator, "_command", command)
    program = verilator.build("verilog", "control")
    assert inner != [program]
    assert program.read_text() == inner[0].read_text() == "program"
    assert not list(program.parents[1].glob("build-*"))


def test_of_many_at_once_one_builds(commands: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait for it. Its tools go on when all have begun."""
    build = verilator.build.__wrapped__  # the tests' own lock would hide the cache's
    begun, folder = threading.Semaphore(0), cache.folder
    monkeypatch.setattr(cache, "folder", lambda: (begun.release(), folder())[1])
    all_there = threading.Event()

    def command(line: list[str], work: Path) -> None:
        if not commands:
            commands.append(line[0])
            for _ in range(5):
                begun.acquire()
            all_there.set()
        else:
            commands.append(line[0])
        all_there.wait()
        fake(line, work)

    monkeypatch.setattr(verilator, "_command", command)
    with ThreadPoolExecutor(5) as pool:
        made = list(pool.map(lambda _: build("verilog", "control"), range(5)))
    assert len(set(made)) == 1
    assert commands == ["verilator", "make"]
    assert not list(made[0].parents[1].glob("*.lock"))


KILLED = """
import sys
from secateur.sim import verilator

def command(line, folder):
    print(folder, flush=True)
    sys.stdin.read()

verilator._command = command
verilator.build("verilog", "control")
"""


def test_what_a_killed_build_leaves_goes(commands: list[str], tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        left = Path(child.stdout.readline().strip())
        verilator.build("another", "control")
        assert left.is_dir()  # it is still being built
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert (left / "bench.sv").read_text() == "verilog"
    verilator.build("a third", "control")
    assert not left.exists()
    assert not (tmp_path / "cache" / "verilator" / cache.LOCK).exists()


def test_a_failure_is_one_line_and_a_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(verilator, "environment", lambda: {"PATH": str(tmp_path)})
    with pytest.raises(SimulationError, match=r"^make cannot be run: No such file or directory$"):
        verilator._command(["make"], tmp_path)
    monkeypatch.undo()
    said = "echo begin; printf 'x.cpp:1: \\377error: no\\nmake: *** Error 1\\n' >&2; exit 2"
    with pytest.raises(SimulationError) as caught:
        verilator._command(["sh", "-c", said], tmp_path)
    assert str(caught.value) == "sh failed: x.cpp:1: \ufffderror: no"
    assert caught.value.__notes__[0].startswith("begin\n")

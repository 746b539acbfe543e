"""What holds for every command of the command line, those to come included."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from secateur.cli.common import IN_FOLDER, REPLACED, Command
from tests.support.commands import ALL

CLASHES = [
    (name, output, input)
    for name, given in ALL.items()
    for output in given.outputs
    for input in given.inputs
    if REPLACED.get(name) != input
]
IN_FOLDERS = [
    (name, pattern, input)
    for name, patterns in IN_FOLDER.items()
    for pattern in patterns
    for input in ALL[name].inputs
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def test_all_commands_are_seen() -> None:
    assert {"compile", "patch", "prune", "build", "device run"} <= set(ALL)
    assert ("run", "output", "input") in CLASHES
    assert ("compile", "output", "model") in CLASHES
    assert ("patch", "output", "patch") in CLASHES
    assert ("patch", "output", "old") not in CLASHES
    assert all(isinstance(given.command, Command) for given in ALL.values())


def refused(secateur: Any, line: str, file: Path, written: Path) -> None:
    """One line, nothing on stdout, and all files as they were."""
    before = {path: path.read_bytes() for path in file.parent.rglob("*") if path.is_file()}
    status, out, err = secateur(line)
    assert (status, out) == (1, ""), line
    assert err.startswith(f"secateur: {written}: is an input ({file}) and would be lost"), line
    assert err.count("\n") == 1
    after = {path: path.read_bytes() for path in file.parent.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize(("name", "output", "input"), CLASHES)
def test_no_command_writes_over_an_input(
    name: str, output: str, input: str, secateur: Any, folder: Path
) -> None:
    file, link, hard = folder / "in", folder / "link", folder / "hard"
    file.write_text("content")
    link.symlink_to("in")
    os.link(file, hard)
    for other in (file, link, hard, Path("in"), Path("../") / folder.name / "in"):
        values = {output: other, input: file}
        refused(secateur, ALL[name].line(**values), file, other)
    if "as_json" in ALL[name].kinds:
        refused(secateur, ALL[name].line(**values) + " --json", file, other)


@pytest.mark.parametrize(("name", "pattern", "input"), IN_FOLDERS)
def test_no_command_writes_over_an_input_in_its_folder(
    name: str, pattern: str, input: str, secateur: Any, folder: Path
) -> None:
    file = folder / "out" / pattern.replace("*", "1")
    file.parent.mkdir()
    file.write_text("content")
    refused(secateur, ALL[name].line(output="out", **{input: file}), file, file.relative_to(folder))


def test_commands_that_write_to_a_folder_say_what() -> None:
    """Those with an input that they could write over."""
    folders = {name for name, given in ALL.items() if given.help_of("output").startswith("Folder")}
    assert folders >= {"build", "swap", "verilog", "prune", "study", "demo", "example"}
    assert set(IN_FOLDER) == folders - {"demo", "example"}
    assert not ALL["demo"].inputs
    assert ALL["example"].inputs == ["name"]


def test_the_signature_is_written_over_no_input(secateur: Any, folder: Path) -> None:
    key = folder / "m.sec.sig"
    key.write_text("content")
    refused(secateur, f"sign m.sec --key {key}", key, Path("m.sec.sig"))
    assert "m.sec: cannot be read" in secateur(f"sign m.sec --key {key} -o other")[2]


@pytest.mark.parametrize("name", ALL)
def test_names_that_no_file_can_have(name: str, secateur: Any, folder: Path) -> None:
    given = ALL[name]
    for parameter in given.named(Path, str):
        status, out, err = secateur(given.line(**{parameter: "n" * 300}))
        assert status in (1, 2), parameter  # 2: Typer's, of an option that it misses
        assert out == ""
        assert status == 2 or err.count("\n") == 1
    assert list(folder.iterdir()) == []

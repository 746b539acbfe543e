"""The table of all boards: what is measured, kept, and written into a document."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from secateur.boards.catalogue.catalogue import BOARDS
from secateur.boards.measure import measure
from secateur.hw.spec import Geometry
from tests.boards.flow import fake_tools

TINY = Geometry(n=2, p=1, weight_words=64, bank_words=16, tables=0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two boards with tiny engines and clocks of this test, and fake tools."""
    fake_tools.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    monkeypatch.setenv("AMARANTH_USE_YOSYS", "builtin")  # not the fake one
    monkeypatch.setenv("FAKE_FMAX", "145.5")
    boards = {
        name: replace(BOARDS[name], geometry=TINY, clock=clock)
        for name, clock in (("ulx3s-25f", 150_000_000), ("ecpix5-45f", 140_000_000))
    }
    monkeypatch.setattr(measure, "BOARDS", boards)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, line: str) -> int:
    monkeypatch.setattr(sys, "argv", ["measure", *line.split()])
    with pytest.raises(SystemExit) as stopped:
        measure.main()
    return int(stopped.value.code or 0)


def test_measured_once_and_written_between_the_marks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = folder / "doc.md"
    document.write_text(f"before\n{measure.BEGIN}old\n{measure.END}after\n")
    line = f"-o {folder / 'out'} --document {document} --seeds 1 2"
    # 145.5 MHz is enough for the ECPIX-5's 140, not for the ULX3S' 150.
    assert run(monkeypatch, f"{line} --boards ecpix5-45f") == 0
    monkeypatch.setenv("FAKE_FMAX", "146.5")
    assert run(monkeypatch, line) == 1
    results = json.loads((folder / "out" / "results.json").read_text())
    found = [(r["board"], r["seed"], r["fmax_mhz"], r["passed"]) for r in results]
    assert found == [
        ("ecpix5-45f", 1, 145.5, True),
        ("ecpix5-45f", 2, 145.5, True),
        ("ulx3s-25f", 1, 146.5, False),
        ("ulx3s-25f", 2, 146.5, False),
    ]
    before, _, after = document.read_text().partition("| board ")
    assert before == f"before\n{measure.BEGIN}"
    assert after.endswith(f"ecppack 9.3.\n{measure.END}after\n")
    lines = after.splitlines()
    assert lines[2].startswith("| `ulx3s-25f` | LFE5U-25F, 6 | 2 x 1 | ")
    assert lines[2].endswith(" | 150 | 146.5 (1), 146.5 (2) |")
    assert lines[3].startswith("| `ecpix5-45f` | LFE5UM5G-45F, 8 | 2 x 1 | ")
    assert lines[3].endswith(" | 140 | 145.5 (1), 145.5 (2) |")


def test_marks_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "doc.md").write_text(f"{measure.BEGIN}old\n")
    with pytest.raises(ValueError, match=r"doc\.md must have the lines <!-- measured: begin -->"):
        measure.insert(tmp_path / "doc.md", "new")
    assert (tmp_path / "doc.md").read_text() == f"{measure.BEGIN}old\n"

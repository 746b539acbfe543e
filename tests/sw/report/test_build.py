"""The report of a build that was placed and routed, beside what nextpnr printed in its logs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from secateur.boards.catalogue.board import BoardError
from secateur.boards.catalogue.catalogue import BOARDS
from secateur.boards.flow.build import build
from secateur.boards.flow.design import Design
from secateur.hw.spec import Geometry
from secateur.report.page.contents import Contents, contents

#: A clock that this engine misses.
MHZ = 96
SMALL = Geometry(n=2, p=1, weight_words=1024, bank_words=256, tables=0, extended=False)


def rows(found: Contents, name: str) -> list[tuple[object, ...]]:
    (figure,) = [figure for figure in found.figures if figure.name == name]
    return figure.rows


def clocks(log: str) -> dict[str, float]:
    """Of the last time that nextpnr printed them, after routing."""
    printed = re.findall(r"Max frequency for clock +'(\S+)': ([\d.]+) MHz", log)
    return {name: float(mhz) for name, mhz in printed}


@pytest.mark.long
def test_a_real_build_is_shown_as_the_tools_printed_it(tmp_path: Path) -> None:
    """With two seeds, of which both miss."""
    design = Design(board=BOARDS["icebreaker"], geometry=SMALL, clock=MHZ * 1_000_000, seed=4)
    with pytest.raises(BoardError, match="MHz after routing with seed 5"):
        build(design, None, "none", tmp_path, tries=2, timeout=1800)
    found = contents(tmp_path)
    logs = {seed: (tmp_path / f"nextpnr-{seed}.log").read_text() for seed in (4, 5)}

    used = re.findall(r"Info:\s+(\w+):\s+(\d+)/\s*(\d+)\s+\d+%", logs[5])
    placed = {name: (int(of), int(part)) for name, of, part in used if of != "0"}
    assert {row[0]: row[1:3] for row in rows(found, "resources")} == placed
    assert placed["ICESTORM_DSP"] == (2, 8)

    engine = {seed: min(clocks(log).values()) for seed, log in logs.items()}
    assert rows(found, "clock") == [
        (seed, f"{mhz:.1f}", "missed") for seed, mhz in sorted(engine.items())
    ]
    assert (f"clock wanted / after routing", f"{MHZ} / {engine[5]:.1f} MHz") in found.facts

    steps = rows(found, "path")
    printed = logs[5].split("Critical path report for clock")[-1]
    assert steps
    assert float(str(steps[-1][2])) == pytest.approx(1000 / engine[5], abs=0.1)
    assert "ns" in printed

"""The report of a build that was placed and routed, beside what nextpnr printed in its logs."""

from __future__ import annotations

import re
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from secateur.boards.catalogue.board import BoardError
from secateur.boards.catalogue.catalogue import BOARDS
from secateur.boards.flow.build import build
from secateur.boards.flow.design import Design
from secateur.hw.spec import Geometry
from secateur.report.page.contents import Contents, contents

#: A clock that this engine misses.
MHZ = 60
SMALL = Geometry(n=2, p=1, weight_words=1024, bank_words=256, tables=0, extended=False)


def rows(found: Contents, name: str) -> list[tuple[Any, ...]]:
    (figure,) = [figure for figure in found.figures if figure.name == name]
    return [tuple(row) for row in figure.rows]


def clocks(log: str) -> dict[str, float]:
    """Of the last time that nextpnr printed them, after routing."""
    printed = re.findall(r"Max frequency for clock +'(\S+)': ([\d.]+) MHz", log)
    return {name: float(mhz) for name, mhz in printed}


def path(log: str, clock: str) -> list[tuple[str, str, str]]:
    """Kind, ns and sum of each step of the slowest path of a clock."""
    after = log.split(f"Critical path report for clock '{clock}' (posedge -> posedge):")[-1]
    return re.findall(r"^Info: +([\w-]+) +([\d.]+) +([\d.]+) \w+", after.split("\n\n")[0], re.M)


@pytest.mark.long
def test_a_real_build_is_shown_as_the_tools_printed_it(tmp_path: Path) -> None:
    """With two seeds, of which both miss."""
    design = Design(board=BOARDS["icebreaker"], geometry=SMALL, clock=MHZ * 1_000_000, seed=4)
    with pytest.raises(BoardError, match="MHz after routing with seed 5"):
        build(design, None, "none", tmp_path, tries=2, timeout=1800)
    found = contents(tmp_path)
    logs = {seed: (tmp_path / f"nextpnr-{seed}.log").read_text() for seed in (4, 5)}

    used = re.findall(r"Info:\s+(\w+): +(\d+)/ *(\d+) +\d+%", logs[5])
    taken = {name: (int(of), int(part)) for name, of, part in used if of != "0"}
    assert {row[0]: row[1:3] for row in rows(found, "resources")} == taken
    assert taken["ICESTORM_DSP"] == (2, 8)

    engine = {seed: min(clocks(log).items(), key=itemgetter(1)) for seed, log in logs.items()}
    shown = [(seed, f"{mhz:.1f}", "missed") for seed, (_, mhz) in sorted(engine.items())]
    assert rows(found, "clock") == shown
    name, mhz = engine[5]
    assert ("clock wanted / after routing", f"{MHZ} / {round(mhz, 1):g} MHz") in found.facts
    assert ("seed", "5") in found.facts

    steps, printed = rows(found, "path"), path(logs[5], name)
    assert [row[0] for row in steps] == [kind for kind, _, _ in printed]
    for (_, ns, at, _), (_, own, total) in zip(steps, printed, strict=True):
        assert (float(ns), float(at)) == pytest.approx((float(own), float(total)), abs=0.0101)
    assert float(steps[-1][2]) == pytest.approx(1000 / mhz, abs=0.02)

"""Synthesis for ECP5 by yosys, place and route by nextpnr, with progress."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from secateur.boards.flow import tools
from secateur.boards.flow.packing import yield_to_loops
from secateur.boards.flow.sites import DIES

#: Called with a stage and what it is at.
Progress = Callable[[str, str], None]

_PLACER = re.compile(r"at (?:iteration #(\d+), type ALL|initial placer iter (\d+)).*")
_ROUTER = re.compile(r"^Info: +\d+ \| +\d+ +\d+ \| +\d+ +\d+ \| +(\d+) *\|")
_PASS = re.compile(r"^[\d.]+\. Executing (\w+) pass")


def silent(stage: str, note: str) -> None:
    """Shows nothing."""


def note_progress(progress: Progress) -> Callable[[str], None]:
    """What takes a tool's lines and passes on how far it is."""

    def line(text: str) -> None:
        found, placer, router = _PASS.match(text), _PLACER.search(text), _ROUTER.match(text)
        if found:
            progress("synthesis", found.group(1).lower())
        elif placer:
            progress("placement", f"iteration {placer.group(1) or placer.group(2)}")
        elif router:
            progress("routing", f"{int(router.group(1)):,} connections left")

    return line


def synthesise(
    folder: Path, top: str, progress: Progress = silent, timeout: float | None = None
) -> None:
    """``top``.v to the netlist ``top``.json."""
    progress("synthesis", "")
    # Names with brackets, of elements of arrays, are taken for bits of others after ABC9, and
    # yosys 0.70 stops there.
    steps = [
        f"read_verilog {top}.v",
        f"synth_ecp5 -top {top} -run begin:coarse",
        "proc; flatten; rename -hide w:*[[]*",
        f"synth_ecp5 -top {top} -run coarse: -json {top}.json",
    ]
    command = ["yosys", "-p", "; ".join(steps)]
    tools.run(command, folder, timeout=timeout, line=note_progress(progress))
    yield_to_loops(folder / f"{top}.json")


def route(
    folder: Path,
    top: str,
    die: str,
    *,
    package: str,
    seed: int,
    options: list[str],
    progress: Progress = silent,
    timeout: float | None = None,
) -> dict:
    """Place and route a netlist; nextpnr's report. Missed clocks are no failure here."""
    progress("placement", "")
    report = folder / f"report-{seed}.json"
    switch, grade = DIES[die]
    command = ["nextpnr-ecp5", switch, "--package", package, "--speed", str(grade)]
    command += ["--json", f"{top}.json", "--seed", str(seed), "--report", report.name]
    command += ["--timing-allow-fail", *options]
    line = note_progress(progress)
    tools.run(command, folder, log=f"nextpnr-{seed}.log", timeout=timeout, line=line)
    return json.loads(report.read_text())

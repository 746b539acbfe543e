"""How the flows run yosys and nextpnr: with progress, a log and a report."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from secateur.boards.flow.tools import Tools

#: Called with a stage and a note on how far it is.
Progress = Callable[[str, str], None]

#: The textual configuration of a placed design, for the flow's packer.
ROUTED = "routed.config"

_PLACER = re.compile(r"at (?:iteration #(\d+), type ALL|initial placer iter (\d+)).*")
_ROUTER = re.compile(r"^Info: +\d+ \| +\d+ +\d+ \| +\d+ +\d+ \| +(\d+) *\|")
_PASS = re.compile(r"^[\d.]+\. Executing (\w+) pass")


def silent(stage: str, note: str) -> None:
    """Show nothing."""


def note_progress(progress: Progress) -> Callable[[str], None]:
    """A function that takes a tool's lines and reports the stages that it finds in them."""

    def line(text: str) -> None:
        found, placer, router = _PASS.match(text), _PLACER.search(text), _ROUTER.match(text)
        if found:
            progress("synthesis", found.group(1).lower())
        elif placer:
            progress("placement", f"iteration {placer.group(1) or placer.group(2)}")
        elif router:
            progress("routing", f"{int(router.group(1)):,} connections left")

    return line


def run_yosys(
    tools: Tools,
    script: str,
    folder: Path,
    *,
    progress: Progress = silent,
    timeout: float | None = None,
) -> None:
    """Synthesise.

    Parameters
    ----------
    tools : those of the flow
    script : commands of yosys
    folder : where it runs
    progress : called with a stage and a note
    timeout : seconds of processor time

    Raises
    ------
    ToolError : yosys is missing, fails or takes too long
    """
    progress("synthesis", "")
    tools.run(["yosys", "-p", script], folder, timeout=timeout, line=note_progress(progress))


def run_nextpnr(
    tools: Tools,
    command: Sequence[str],
    folder: Path,
    *,
    seed: int,
    progress: Progress = silent,
    timeout: float | None = None,
) -> dict:
    """Place and route; a missed clock is not an error.

    Parameters
    ----------
    tools : those of the flow
    command : nextpnr's name, the part and the files
    folder : where it runs
    seed : of the placement; also names the log and the report
    progress : called with a stage and a note
    timeout : seconds of processor time

    Returns
    -------
    nextpnr's report

    Raises
    ------
    PlacementError : there is no placement from this seed
    ToolError : nextpnr is missing, fails or takes too long
    """
    progress("placement", "")
    report = folder / f"report-{seed}.json"
    command = [*command, "--seed", str(seed), "--report", report.name, "--timing-allow-fail"]
    line = note_progress(progress)
    tools.run(command, folder, log=f"nextpnr-{seed}.log", timeout=timeout, line=line)
    return json.loads(report.read_text())

"""Running the tools: native ones if they are all on PATH, else the YoWASP wheels."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

#: What a build needs, by flow. Place and route and packing must come from one release, so that
#: native tools are taken only if all are there.
TOOLS = {
    "ecp5": ("yosys", "nextpnr-ecp5", "ecppack"),
    "ice40": ("yosys", "nextpnr-ice40", "icepack"),
}


#: What nextpnr says of a full device, if it may yet place the design from another seed.
_UNLUCKY = "Unable to find legal placement"


class ToolError(Exception):
    """A tool is missing, failed, or took too long: one line on which, and where its log is."""


class PlacementError(ToolError):
    """No placement was found from this seed; another may have one."""


def use_native(name: str) -> bool:
    """Whether all tools of a flow with this one are on PATH under their own names."""
    flows = [names for names in TOOLS.values() if name in names]
    return any(all(map(shutil.which, names)) for names in flows) or not flows


def locate(name: str) -> str:
    """The program to run for a tool: its own name, or that of its wheel in this environment.

    Raises
    ------
    ToolError : neither is there
    """
    native = shutil.which(name)
    if native and use_native(name):
        return native
    wheel = f"yowasp-{name.removeprefix('yowasp-')}"
    beside = Path(sys.executable).parent / wheel
    found = str(beside) if beside.is_file() else shutil.which(wheel)
    if found is None:
        raise ToolError(
            f"{name} is not here; install the wheels (pip install 'secateur[fpga]') or put all "
            f"tools of the flow on PATH"
        )
    return found


def run(
    command: Sequence[str],
    folder: Path,
    *,
    log: str | None = None,
    timeout: float | None = None,
    line: Callable[[str], None] | None = None,
) -> None:
    """Run a tool in a folder; what it prints goes to a file there.

    Parameters
    ----------
    command : the tool's own name and its arguments
    folder : where it runs
    log : name of the file; the tool's name and ``.log`` if None
    timeout : seconds
    line : called with each line that it prints

    Raises
    ------
    ToolError : it is missing, fails or takes too long; PlacementError : it finds no placement
    """
    program = locate(command[0])
    log = log or f"{command[0]}.log"
    late, said = threading.Event(), ""
    with (folder / log).open("w") as file:
        with subprocess.Popen(
            [program, *command[1:]], cwd=folder, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            timer = threading.Timer(timeout or 0, lambda: (late.set(), process.kill()))
            if timeout is not None:
                timer.start()
            try:
                for text in process.stdout:
                    file.write(text)
                    file.flush()
                    if text.upper().startswith("ERROR:"):
                        said = f" ({text[6:].strip().rstrip('.')})"
                    if line:
                        line(text.rstrip())
                status = process.wait()
            finally:
                timer.cancel()
                process.kill()
    if late.is_set():
        raise ToolError(f"{command[0]} took more than {timeout:g} seconds; see {folder / log}")
    if status:
        where = f"see {folder / log}"
        if _UNLUCKY in said:
            raise PlacementError(f"{command[0]} failed{said}; try another --seed; {where}")
        raise ToolError(f"{command[0]} failed{said}; {where}")


def versions(flow: str) -> dict[str, str]:
    """What each tool of a flow says that it is, by name."""
    return {name: _version(name) for name in TOOLS[flow]}


def _version(name: str) -> str:
    program = locate(name)
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    # "Yosys 0.70 (git ...", "... (Version nextpnr-0.11.1)", "... ecppack Version 1.4-82-g..."
    found = re.search(r"(?:Yosys|Version) (?:nextpnr-)?([^\s()]+)", done.stdout + done.stderr)
    version = found.group(1) if found else "of unknown version"
    return version + (" (YoWASP)" if Path(program).name.startswith("yowasp-") else "")

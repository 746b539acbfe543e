"""Running the tools: native ones if they are all on PATH, else the YoWASP wheels."""

from __future__ import annotations

import math
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from secateur.errors import SecateurError

#: What a build needs, by flow. Place and route and packing must come from one release, so that
#: native tools are taken only if all are there.
TOOLS = {
    "ecp5": ("yosys", "nextpnr-ecp5", "ecppack"),
    "ice40": ("yosys", "nextpnr-ice40", "icepack"),
}

#: What a shell adds to the signal that ended its command.
_OF_SHELL = 128
#: What nextpnr says of a full device, if it may yet place the design from another seed.
_UNLUCKY = "Unable to find legal placement"


class ToolError(SecateurError):
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
    timeout : seconds of processor time, which do not pass faster beside other programs
    line : called with each line that it prints

    Raises
    ------
    ToolError : it is missing, fails or takes too long; PlacementError : it finds no placement
    """
    program = locate(command[0])
    log = log or f"{command[0]}.log"
    said = ""
    with (folder / log).open("w") as file:
        with subprocess.Popen(
            [program, *command[1:]], cwd=folder, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=None if timeout is None else lambda: _limit_processor_time(timeout),
        ) as process:  # fmt: skip
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
                process.kill()
    if status in (-signal.SIGXCPU, _OF_SHELL + signal.SIGXCPU):
        raise ToolError(
            f"{command[0]} took more than {timeout:g} seconds of processor time; see {folder / log}"
        )
    if status:
        where = f"see {folder / log}"
        if _UNLUCKY in said:
            raise PlacementError(f"{command[0]} failed{said}; try another --seed; {where}")
        raise ToolError(f"{command[0]} failed{said}; {where}")


def _limit_processor_time(seconds: float) -> None:
    """Of this process, from when it began; SIGXCPU ends it then."""
    most = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), most))


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

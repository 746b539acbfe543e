"""Runs the tools: native ones if all of a flow are on PATH, else those of the YoWASP wheels."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from secateur.children import bound
from secateur.errors import SecateurError

#: A shell adds this to the signal that ended its command.
_OF_SHELL = 128
#: Part of nextpnr's message if another seed may have a placement.
_UNLUCKY = "Unable to find legal placement"


class ToolError(SecateurError):
    """A tool is missing, has failed or took too long; the message names it and its log."""


class PlacementError(ToolError):
    """No placement was found from this seed; another may have one."""


class Tools:
    """The tools that a flow needs.

    Place and route and packing must come from one release, so native tools are used only if all of
    them are on PATH.

    Parameters
    ----------
    names : of the native programs
    """

    def __init__(self, *names: str) -> None:
        self.names = names

    def locate(self, name: str) -> str:
        """The program to run for a tool: the native one, or that of its wheel.

        Raises
        ------
        ToolError : neither is there
        """
        native = shutil.which(name)
        if native and all(map(shutil.which, self.names)):
            return native
        wheel = f"yowasp-{name.removeprefix('yowasp-')}"
        folder = Path(sys.executable).parent
        beside = next((folder / each for each in (wheel, name) if (folder / each).is_file()), None)
        found = str(beside) if beside else shutil.which(wheel)
        if found is None:
            raise ToolError(
                f"{name} was not found; install the wheels (pip install 'secateur[fpga]') or put "
                f"all tools of the flow on PATH"
            )
        return found

    def run(
        self,
        command: Sequence[str],
        folder: Path,
        *,
        log: str | None = None,
        timeout: float | None = None,
        line: Callable[[str], None] | None = None,
    ) -> None:
        """Run a tool in a folder; its output goes to a file there.

        Parameters
        ----------
        command : the tool's own name and its arguments
        folder : where it runs
        log : name of the file; the tool's name and ``.log`` if None
        timeout : seconds of processor time, which do not pass faster beside other programs
        line : called with each line of the output

        Raises
        ------
        PlacementError : the tool finds no placement
        ToolError : the tool is missing, fails or takes too long
        """
        program, file = self.locate(command[0]), folder / (log or f"{command[0]}.log")
        status, error = _execute([program, *command[1:]], file, timeout, line)
        if status in (-signal.SIGXCPU, _OF_SHELL + signal.SIGXCPU):
            raise ToolError(
                f"{command[0]} took more than {timeout:g} seconds of processor time; see {file}"
            )
        if status:
            said = f" ({error})" if error else ""
            if _UNLUCKY in error:
                raise PlacementError(f"{command[0]} failed{said}; try another --seed; see {file}")
            raise ToolError(f"{command[0]} failed{said}; see {file}")

    def versions(self) -> dict[str, str]:
        """The version of each tool, as it says itself, by name."""
        return {name: _version(self.locate(name)) for name in self.names}


def _execute(
    command: list[str],
    log: Path,
    timeout: float | None,
    line: Callable[[str], None] | None,
) -> tuple[int, str]:
    """Run a program in the folder of its log; its status, and the last error in its output."""
    error = ""
    with log.open("w") as file:
        with subprocess.Popen(
            command, cwd=log.parent, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=bound(timeout),
        ) as process:  # fmt: skip
            try:
                for text in process.stdout:
                    file.write(text)
                    file.flush()
                    if text.upper().startswith("ERROR:"):
                        error = text[6:].strip().rstrip(".")
                    if line:
                        line(text.rstrip())
                return process.wait(), error
            finally:
                process.kill()


def _version(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    # "Yosys 0.70 (git ...", "... (Version nextpnr-0.11.1)", "... ecppack Version 1.4-82-g..."
    found = re.search(r"(?:Yosys|Version) (?:nextpnr-)?([^\s()]+)", done.stdout + done.stderr)
    version = found.group(1) if found else "of unknown version"
    return version + (" (YoWASP)" if Path(program).name.startswith("yowasp-") else "")

"""A place where a process waits until the test lets it go on."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

#: Names the folder of the gate; without it nobody waits.
VARIABLE = "SECATEUR_TESTS_GATE"


def make(folder: Path) -> None:
    """Make a closed gate in a folder."""
    folder.mkdir()
    (folder / "closed").touch()


def pass_gate() -> None:
    """Say that this process has come, and wait until the gate is open."""
    if VARIABLE in os.environ:
        folder = Path(os.environ[VARIABLE])
        (folder / f"came-{os.getpid()}").touch()
        while (folder / "closed").exists():
            time.sleep(0.02)


def came(folder: Path) -> int:
    """Processes that have come so far."""
    return len(list(folder.glob("came-*")))


def open_gate(folder: Path) -> None:
    """Let all go on."""
    (folder / "closed").unlink()


def first_ended(pair: list[subprocess.Popen[str]], closed: Path) -> Iterator[int]:
    """Which has ended, while the other waits; if none can any more, neither."""
    while came(closed) < len(pair):
        for number, process in enumerate(pair):
            if process.poll() is not None:
                yield number
                return
        time.sleep(0.02)

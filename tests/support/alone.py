"""What every process of a test run needs, made by one of them while the others wait for it."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

#: Names the lock's file; the processes of a run inherit it from the first.
VARIABLE = "SECATEUR_TESTS_LOCK"
_inside = False


def begin() -> None:
    """Make the lock, if none of the run's processes has."""
    if VARIABLE not in os.environ:
        handle, os.environ[VARIABLE] = tempfile.mkstemp(prefix="secateur-tests-")
        os.close(handle)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """While no other process of the run is in here; this one may be, already."""
    global _inside
    if _inside:
        yield
        return
    with Path(os.environ[VARIABLE]).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _inside = True
        try:
            yield
        finally:
            _inside = False


@functools.cache
def prepared(name: str) -> Path:
    """A program of YoWASP, compiled: its first run takes a minute, two at once two of them."""
    program = Path(sys.executable).parent / f"yowasp-{name}"
    with alone():
        subprocess.run([str(program), "--version"], capture_output=True, check=True)
    return program

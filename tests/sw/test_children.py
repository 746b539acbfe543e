"""Children end with their parents, and when their time is over."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from secateur.children import bound

PARENT = """
import subprocess, sys
from secateur.children import bound
program = "import sys; print('up', flush=True); sys.stdin.read(); print('left')"
child = subprocess.Popen([sys.executable, "-c", program], preexec_fn=bound())
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_with_its_parent(number: int) -> None:
    """One that is left would say so when its standard input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        lines = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
        assert b"up" in lines
        parent.send_signal(number)
        parent.wait()
        assert parent.stdin is not None
        parent.stdin.close()
        assert parent.stdout.read() == b""


def test_a_child_that_takes_too_long_is_ended() -> None:
    command = [sys.executable, "-c", "while True: pass"]
    done = subprocess.run(command, preexec_fn=bound(1), check=False)
    assert done.returncode == -signal.SIGXCPU


COMMAND = """
import os, signal, tempfile
from secateur.cli import main

def app(**_):
    with tempfile.TemporaryDirectory() as folder:
        print(folder, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

main.app = app
main.main()
"""


def test_a_command_that_is_terminated_leaves_no_folder() -> None:
    done = subprocess.run([sys.executable, "-c", COMMAND], capture_output=True, check=False)
    assert done.returncode == 128 + signal.SIGTERM
    assert not Path(done.stdout.decode().strip()).exists()
    assert done.stdout

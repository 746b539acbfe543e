"""Runs ``on_device.py`` in a process of its own: a device that is registered with PyTorch stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support import alone


def test_pruning_works_on_the_device_of_the_model() -> None:
    file = Path(__file__).with_name("on_device.py")
    command = [sys.executable, "-m", "pytest", "-n", "0", "--show-capture=no", str(file)]
    # Tests of their own: they neither use nor remove the lock of these.
    settings = {key: value for key, value in os.environ.items() if key != alone.VARIABLE}
    ran = subprocess.run(command, capture_output=True, text=True, env=settings)
    assert ran.returncode == 0, ran.stdout[-4000:]

"""Settings of all tests, and the command line as a fixture."""

import logging
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from secateur.cli import main

# Tiny tensors: threads cost more than they gain. torch.export's trace log, which pytest would
# format line by line, costs half of the time.
torch.set_num_threads(1)
logging.getLogger("torch.__trace").propagate = False
# How long an example takes says how busy the machine is.
settings.register_profile(
    "untimed", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")


@pytest.fixture
def secateur(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Runs a command in the test's folder; (exit status, stdout, stderr)."""
    monkeypatch.chdir(folder)

    def call(line: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["secateur", *line.split()])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return call

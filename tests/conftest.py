"""Settings of all tests, and the command line as a fixture."""

import functools
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from torchao.quantization.pt2e import utils

from secateur.cli.main import main
from secateur.sim import cache, verilator
from tests.support import alone

# Tiny tensors: threads cost more than they gain. torch.export's trace log, which pytest would
# format line by line, costs half of the time.
torch.set_num_threads(1)
logging.getLogger("torch.__trace").propagate = False
# How long an example takes says how busy the machine is.
settings.register_profile(
    "untimed", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    alone.begin()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        Path(os.environ.pop(alone.VARIABLE)).unlink()


@pytest.fixture(scope="session", autouse=True)
def quick_builds(request: pytest.FixtureRequest) -> Iterator[None]:
    """Without the long tests simulators run for moments: the compiler takes most of the time."""
    if request.config.getoption("markexpr") != "not long":
        yield
        return
    before = verilator._MAKE["OPT_FAST"]
    verilator._MAKE["OPT_FAST"] = "-O0"
    yield
    verilator._MAKE["OPT_FAST"] = before


@pytest.fixture(scope="session", autouse=True)
def library_once() -> Iterator[None]:
    """All simulators need Verilator's library: the first process builds it, the others wait."""
    build = verilator.build

    @functools.wraps(build)
    def wait_and_build(*args, **options) -> Path:  # type: ignore[no-untyped-def]
        if any(cache.folder().glob("library-*")):
            return build(*args, **options)
        with alone.alone():
            return build(*args, **options)

    verilator.build = wait_and_build
    yield
    verilator.build = build


@pytest.fixture(scope="session", autouse=True)
def patterns_once() -> Iterator[None]:
    """torchao exports the same six patterns at every change between training and evaluation, which
    takes longer than the training of a small network."""
    export, known = utils._get_aten_graph_module_for_pattern, {}

    def exported(pattern, inputs, is_cuda=False, **options):  # type: ignore[no-untyped-def]
        name = pattern.fn.__qualname__
        if not name.startswith(("_replace_dropout.", "_replace_batchnorm.")):
            return export(pattern, inputs, is_cuda, **options)
        values = tuple(cell.cell_contents for cell in pattern.fn.__closure__ or ())
        if (name, values, is_cuda) not in known:
            known[name, values, is_cuda] = export(pattern, inputs, is_cuda, **options)
        return known[name, values, is_cuda]

    utils._get_aten_graph_module_for_pattern = exported
    yield
    utils._get_aten_graph_module_for_pattern = export


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

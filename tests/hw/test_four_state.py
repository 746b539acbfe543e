"""Four-state simulation: after a reset no port has an unknown value, and results are golden's."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from secateur.hw.spec import Geometry, words_of
from secateur.hw.verilog import to_files, to_verilog
from tests.hw.four_state import write_bench
from tests.support.programs import random_program

GEOMETRY = Geometry(n=4, p=2, weight_words=1024, bank_words=64)
icarus = pytest.mark.skipif(
    shutil.which("iverilog") is None,
    reason="Icarus Verilog, a package of distributions, is not installed",
)


def simulate(folder: Path, files: dict[str, str], standard: str) -> str:
    """What the bench prints."""
    for name, text in files.items():
        (folder / name).write_text(text)
    command = ["iverilog", f"-g{standard}", "-o", "bench", "bench.v", "secateur.v"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (built.returncode, built.stdout + built.stderr) == (0, "")
    ran = subprocess.run(["vvp", "bench"], cwd=folder, capture_output=True, text=True, check=True)
    return ran.stdout


@icarus
@pytest.mark.parametrize(
    ("kind", "standard"),
    [
        ("generic", "2005"),
        ("generic", "2012"),
        ("asic", "2012"),
        ("compact", "2012"),
        ("rom", "2012"),
    ],
)
def test_no_unknown_value_after_a_reset(kind: str, standard: str, tmp_path: Path) -> None:
    sample = random_program(6, GEOMETRY, layers=3)
    cycles = write_bench(tmp_path, GEOMETRY, sample, rom=kind == "rom")
    init = words_of(sample.image, GEOMETRY.word_bytes) if kind == "rom" else None
    family = "asic" if kind == "asic" else "generic"
    files = to_files(GEOMETRY, init, family=family, compact=kind == "compact", apart=kind == "rom")
    assert (len(files) > 1) == (kind == "rom")
    assert simulate(tmp_path, files, standard) == f"0 faults, {cycles} cycles\n"


@icarus
def test_an_unknown_value_is_found(tmp_path: Path) -> None:
    """Processes that nothing starts at time 0 are."""
    write_bench(tmp_path, GEOMETRY, random_program(6, GEOMETRY, layers=3), rom=False)
    text, count = re.subn(
        r"^(  initial \\\$auto\S+) <= 1'b0;$", r"\1 = 1'bx;", to_verilog(GEOMETRY), flags=re.M
    )
    assert count > 10
    assert "X at a port" in simulate(tmp_path, {"secateur.v": text}, "2012")


@pytest.mark.parametrize(
    ("interface", "divisor"), [("stream", None), ("axi", None), ("wishbone", None), ("uart", 8)]
)
def test_processes_run_at_time_0(interface: str, divisor: int | None) -> None:
    """Each without a clock reads a register that changes when all of them wait."""
    text = to_verilog(GEOMETRY, interface=interface, divisor=divisor)
    processes = re.findall(r"^  always @\* begin\n    if \((\S+) \) begin end$", text, re.MULTILINE)
    assert len(processes) == text.count("always @*") > 50
    begun = re.findall(r"^  reg (\S+) ;\n  initial \1 <= 1'b0;$", text, re.MULTILINE)
    assert set(processes) == set(begun)

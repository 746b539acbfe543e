"""Verilator's lint of the exported Verilog, with the waivers of lint.vlt."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from amaranth.back import verilog

from secateur.hw import source
from secateur.hw.flash import Flash
from secateur.hw.memory.flash_reader import FlashReader
from secateur.hw.memory.sdram_source import SdramSource
from secateur.hw.sdram import Sdram
from secateur.hw.spec import Geometry
from secateur.hw.verilog import to_verilog
from secateur.sim.verilator import environment
from tests.support.long import long

RING = Geometry(n=2, p=2, s=2, weight_words=5000, bank_words=64, ring=128)
WAIVERS = Path(__file__).parent / "lint.vlt"


def lint(file: Path) -> subprocess.CompletedProcess[str]:
    command = ["verilator", "--lint-only", "-Wall", str(WAIVERS), str(file)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("n", "p", "tables", "rom"), [(2, 1, 8, False), (8, 3, 0, True), long(16, 1, 8, False)]
)
def test_the_engine_is_clean(n: int, p: int, tables: int, rom: bool, tmp_path: Path) -> None:
    geometry = Geometry(n=n, p=p, weight_words=256, bank_words=64, tables=tables)
    words = list(range(geometry.header_words + 8)) if rom else None
    file = tmp_path / "secateur.v"
    file.write_text(to_verilog(geometry, words))
    found = lint(file)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize(("n", "p", "tables"), [(4, 2, 2), (8, 1, 0)])
def test_the_compact_engine_is_clean(n: int, p: int, tables: int, tmp_path: Path) -> None:
    geometry = Geometry(n=n, p=p, weight_words=256, bank_words=64, tables=tables)
    file = tmp_path / "secateur.v"
    file.write_text(to_verilog(geometry, compact=True))
    found = lint(file)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize("interface", ["axi", "wishbone"])
@pytest.mark.parametrize(("n", "rom"), [(2, False), long(16, True)])
def test_the_engine_with_a_bus_is_clean(interface: str, n: int, rom: bool, tmp_path: Path) -> None:
    geometry = Geometry(n=n, p=1, weight_words=256, bank_words=64)
    words = list(range(geometry.header_words + 8)) if rom else None
    file = tmp_path / "secateur.v"
    file.write_text(to_verilog(geometry, words, interface=interface))
    found = lint(file)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize(("n", "rom", "divisor"), [(2, False, 4), long(8, True, 217)])
def test_the_engine_with_a_uart_is_clean(n: int, rom: bool, divisor: int, tmp_path: Path) -> None:
    geometry = Geometry(n=n, p=1, weight_words=256, bank_words=64)
    words = list(range(geometry.header_words + 8)) if rom else None
    file = tmp_path / "secateur.v"
    text = to_verilog(geometry, words, interface="uart", divisor=divisor)
    file.write_text(text)
    found = lint(file)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize("interface", [long("stream"), "axi"])
def test_the_engine_with_a_ring_is_clean(interface: str, tmp_path: Path) -> None:
    file = tmp_path / "secateur.v"
    file.write_text(to_verilog(RING, interface=interface))
    found = lint(file)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize("flash", [Flash(), Flash(quad=False, divider=1)])
def test_the_reader_of_a_flash_is_clean(flash: Flash, tmp_path: Path) -> None:
    file = tmp_path / "reader.v"
    reader = FlashReader(geometry=RING, flash=flash)
    text = verilog.convert(reader, name="reader", emit_src=False)
    file.write_text(source.complete_cases(text))
    found = lint(file)
    assert (found.returncode, found.stderr) == (0, "")


def test_the_source_in_an_sdram_is_clean(tmp_path: Path) -> None:
    file = tmp_path / "source.v"
    reader = SdramSource(geometry=RING, sdram=Sdram(clock=125_000_000))
    text = verilog.convert(reader, name="source", emit_src=False)
    assert re.findall(r"^ *reg .*signal.*", text, re.MULTILINE) == []
    file.write_text(source.complete_cases(text))
    found = lint(file)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize("interface", [long("stream"), "axi", long("wishbone"), "uart"])
def test_registers_have_names_in_waveforms(interface: str) -> None:
    geometry = Geometry(n=2, p=2, weight_words=5000, bank_words=64)
    divisor = 8 if interface == "uart" else None
    text = to_verilog(geometry, family="ecp5", interface=interface, divisor=divisor)
    if interface in ("stream", "axi"):
        text += to_verilog(RING, family="ecp5", interface=interface)
    assert re.findall(r"^ *reg .*signal.*", text, re.MULTILINE) == []


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ("wire b; assign y = a & b;", "UNDRIVEN"),
        ("reg b; always @* if (a) b = a; assign y = b;", "LATCH"),
        ("wire b = ~(b & a); assign y = b;", "UNOPTFLAT"),
        ("assign y = b;", "Can't find definition"),
    ],
)
def test_faults_are_found(body: str, rule: str, tmp_path: Path) -> None:
    file = tmp_path / "top.v"
    file.write_text(f"module top(input a, output y); {body} endmodule\n")
    found = lint(file)
    assert found.returncode != 0
    assert rule in found.stderr

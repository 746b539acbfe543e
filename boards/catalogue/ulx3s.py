"""ULX3S of Radiona: LFE5U, 25 MHz, USB serial port of an FTDI chip."""

from __future__ import annotations

from amaranth_boards.ulx3s import (
    ULX3S_25F_Platform,
    ULX3S_45F_Platform,
    ULX3S_85F_Platform,
)

from secateur.boards.catalogue.board import (
    Board,
    BoardFlash,
    find_flash_pins,
    find_pins,
    find_sdram_pins,
)
from secateur.hw.spec import Geometry

_LEDS = {"running": ("led", 0, ""), "error": ("led", 1, "")}


def _board(part: str, platform: type, clock: int, geometry: Geometry, suffix: str = "") -> Board:
    return Board(
        name=f"ulx3s-{part.split('-')[1].lower()}{suffix}",
        title=f"ULX3S with {part}",
        flow="ecp5",
        device=part,
        package="BG381",
        die=part,
        oscillator=25_000_000,
        clock=clock,
        baud=1_000_000,
        geometry=geometry,
        pins=find_pins(platform, **_LEDS),
        program="openFPGALoader --board ulx3s secateur.bit",
        flash=BoardFlash(
            pins=find_flash_pins(platform),
            image=0x300000,
            program="openFPGALoader --board ulx3s --write-flash flash.bin",
        ),
        sdram=find_sdram_pins(platform),
    )


ULX3S_25F = _board(
    "LFE5U-25F",
    ULX3S_25F_Platform,
    150_000_000,
    Geometry(n=8, p=3, weight_words=7168, bank_words=2048),
)
ULX3S_45F = _board(
    "LFE5U-45F",
    ULX3S_45F_Platform,
    150_000_000,
    Geometry(n=8, p=8, weight_words=10240, bank_words=2048),
)
# 25 MHz gives 125 or 112.5 MHz with a fast phase detector, but not 120.
ULX3S_85F = _board(
    "LFE5U-85F",
    ULX3S_85F_Platform,
    125_000_000,
    Geometry(n=8, p=16, weight_words=19456, bank_words=2048),
)

# With multipliers from logic beside the hard ones, and banks half as deep. nextpnr places it since
# flip-flops come in the order of ``packing``.
ULX3S_25F_8X8 = _board(
    "LFE5U-25F",
    ULX3S_25F_Platform,
    125_000_000,
    Geometry(n=8, p=8, weight_words=5120, bank_words=1024),
    "-8x8",
)

# Its lanes may be filters. Weights are in eight banks, of 1,024 words each.
ULX3S_45F_S8 = _board(
    "LFE5U-45F",
    ULX3S_45F_Platform,
    125_000_000,
    Geometry(n=8, p=8, s=8, weight_words=8192, bank_words=2048),
    "-s8",
)
# With 56 multipliers from logic beside the hard ones, and banks half as deep.
ULX3S_45F_8X16 = _board(
    "LFE5U-45F",
    ULX3S_45F_Platform,
    125_000_000,
    Geometry(n=8, p=16, weight_words=10240, bank_words=1024),
    "-8x16",
)

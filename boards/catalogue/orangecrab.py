"""OrangeCrab r0.2: LFE5U, 48 MHz; the UART is on the header's pins 0 (receive) and 1 (send).

The board has no USB serial chip: a 3.3 V adapter goes on the header.
"""

from __future__ import annotations

from amaranth.build import Attrs
from amaranth_boards.orangecrab_r0_2 import OrangeCrabR0_2_25FPlatform, OrangeCrabR0_2_85FPlatform
from amaranth_boards.resources import UARTResource

from secateur.boards.catalogue.board import Board, BoardFlash, find_flash_pins, find_pins
from secateur.hw.spec import Geometry

_UART = UARTResource(0, rx="0", tx="1", conn=("io", 0), attrs=Attrs(IO_TYPE="LVCMOS33"))
_PINS = {"running": ("rgb_led", 0, "g"), "error": ("rgb_led", 0, "r"), "extra": (_UART,)}


def _flash(platform: type) -> BoardFlash:
    """Its bootloader comes first, and writes behind itself."""
    return BoardFlash(
        pins=find_flash_pins(platform),
        start=0x80000,
        image=0x300000,
        program="dfu-util --alt 0 --download flash.bin",
    )


# 48 MHz gives 144 or 156 MHz with a fast phase detector, but not 150.
ORANGECRAB_25F = Board(
    name="orangecrab-25f",
    title="OrangeCrab r0.2 with LFE5U-25F",
    flow="ecp5",
    device="LFE5U-25F",
    package="MG285",
    die="LFE5U-25F",
    oscillator=48_000_000,
    clock=144_000_000,
    baud=1_000_000,
    geometry=Geometry(n=8, p=3, weight_words=7168, bank_words=2048),
    pins=find_pins(OrangeCrabR0_2_25FPlatform, **_PINS),
    program="openFPGALoader --board orangeCrab secateur.bit",
    flash=_flash(OrangeCrabR0_2_25FPlatform),
)

ORANGECRAB_85F = Board(
    name="orangecrab-85f",
    title="OrangeCrab r0.2 with LFE5U-85F",
    flow="ecp5",
    device="LFE5U-85F",
    package="MG285",
    die="LFE5U-85F",
    oscillator=48_000_000,
    clock=120_000_000,
    baud=1_000_000,
    geometry=Geometry(n=8, p=16, weight_words=19456, bank_words=2048),
    pins=find_pins(OrangeCrabR0_2_85FPlatform, **_PINS),
    program="openFPGALoader --board orangeCrab secateur.bit",
    flash=_flash(OrangeCrabR0_2_85FPlatform),
)

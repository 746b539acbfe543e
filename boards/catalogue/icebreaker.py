"""iCEBreaker of 1BitSquared: iCE40UP5K, 12 MHz, USB serial port of an FTDI chip.

SPRAM holds nothing at power-up: the image comes over the serial port.
"""

from __future__ import annotations

from amaranth_boards.icebreaker import ICEBreakerPlatform

from secateur.boards.catalogue.board import Board, BoardFlash, find_flash_pins, find_pins
from secateur.hw.spec import Geometry

# Three SPRAMs of weights, 16 of 30 block RAMs of banks: target ``up5k``.
ICEBREAKER = Board(
    name="icebreaker",
    title="iCEBreaker with iCE40UP5K",
    flow="ice40",
    device="iCE40UP5K",
    package="SG48",
    die="iCE40UP5K",
    oscillator=12_000_000,
    clock=36_000_000,
    baud=1_000_000,
    geometry=Geometry(n=4, p=2, weight_words=16384, bank_words=1024, tables=0, extended=False),
    pins=find_pins(ICEBreakerPlatform, running=("led_g", 0, ""), error=("led_r", 0, "")),
    program="openFPGALoader --board ice40_generic secateur.bit",
    flash=BoardFlash(
        pins=find_flash_pins(ICEBreakerPlatform, clock=True),
        image=0x100000,
        program="openFPGALoader --board ice40_generic --write-flash flash.bin",
    ),
)

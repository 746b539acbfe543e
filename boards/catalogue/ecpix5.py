"""ECPIX-5 of LambdaConcept: LFE5UM5G, 100 MHz, USB serial port of an FTDI chip."""

from __future__ import annotations

from amaranth_boards.ecpix5 import ECPIX545Platform, ECPIX585Platform

from secateur.boards.catalogue.board import Board, BoardFlash, find_flash_pins, find_pins
from secateur.hw.spec import Geometry

_LEDS = {"running": ("rgb_led", 0, "g"), "error": ("rgb_led", 0, "r")}


def _flash(platform: type) -> BoardFlash:
    return BoardFlash(
        pins=find_flash_pins(platform),
        image=0x300000,
        program="openFPGALoader --board ecpix5 --write-flash flash.bin",
    )


ECPIX5_45F = Board(
    name="ecpix5-45f",
    title="ECPIX-5 with LFE5UM5G-45F",
    flow="ecp5",
    device="LFE5UM5G-45F",
    package="BG554",
    die="LFE5UM5G-45F",
    oscillator=100_000_000,
    clock=200_000_000,
    baud=1_000_000,
    geometry=Geometry(n=8, p=8, weight_words=10240, bank_words=2048),
    pins=find_pins(ECPIX545Platform, **_LEDS),
    program="openFPGALoader --board ecpix5 secateur.bit",
    flash=_flash(ECPIX545Platform),
)

ECPIX5_85F = Board(
    name="ecpix5-85f",
    title="ECPIX-5 with LFE5UM5G-85F",
    flow="ecp5",
    device="LFE5UM5G-85F",
    package="BG554",
    die="LFE5UM5G-85F",
    oscillator=100_000_000,
    clock=120_000_000,
    baud=1_000_000,
    geometry=Geometry(n=8, p=16, weight_words=19456, bank_words=2048),
    pins=find_pins(ECPIX585Platform, **_LEDS),
    program="openFPGALoader --board ecpix5 secateur.bit",
    flash=_flash(ECPIX585Platform),
)

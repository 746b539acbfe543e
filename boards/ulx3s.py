"""ULX3S of Radiona: LFE5U, 25 MHz, USB serial port of an FTDI chip."""

from __future__ import annotations

from amaranth_boards.ulx3s import (
    ULX3S_25F_Platform,
    ULX3S_45F_Platform,
    ULX3S_85F_Platform,
)

from secateur.hw.spec import Geometry

from .board import Board, find_pins

_LEDS = {"running": ("led", 0, ""), "error": ("led", 1, "")}

ULX3S_25F = Board(
    name="ulx3s-25f",
    title="ULX3S with LFE5U-25F",
    flow="ecp5",
    device="LFE5U-25F",
    package="BG381",
    die="LFE5U-25F",
    oscillator=25_000_000,
    clock=150_000_000,
    baud=1_000_000,
    geometry=Geometry(n=8, p=3, weight_words=7168, bank_words=2048),
    pins=find_pins(ULX3S_25F_Platform, **_LEDS),
    program="openFPGALoader --board ulx3s secateur.bit",
)

ULX3S_45F = Board(
    name="ulx3s-45f",
    title="ULX3S with LFE5U-45F",
    flow="ecp5",
    device="LFE5U-45F",
    package="BG381",
    die="LFE5U-45F",
    oscillator=25_000_000,
    clock=150_000_000,
    baud=1_000_000,
    geometry=Geometry(n=8, p=8, weight_words=10240, bank_words=2048),
    pins=find_pins(ULX3S_45F_Platform, **_LEDS),
    program="openFPGALoader --board ulx3s secateur.bit",
)

# 25 MHz gives 125 or 112.5 MHz with a fast phase detector, but not 120.
ULX3S_85F = Board(
    name="ulx3s-85f",
    title="ULX3S with LFE5U-85F",
    flow="ecp5",
    device="LFE5U-85F",
    package="BG381",
    die="LFE5U-85F",
    oscillator=25_000_000,
    clock=125_000_000,
    baud=1_000_000,
    geometry=Geometry(n=8, p=16, weight_words=19456, bank_words=2048),
    pins=find_pins(ULX3S_85F_Platform, **_LEDS),
    program="openFPGALoader --board ulx3s secateur.bit",
)

"""Arty A7-100T of Digilent: XC7A100T, 100 MHz, USB serial port of an FTDI chip.

The build writes Verilog of the generic family, constraints and a script for the vendor's tools.
They have not been run.
"""

from __future__ import annotations

from amaranth_boards.arty_a7 import ArtyA7_100Platform

from secateur.boards.catalogue.board import Board, find_pins
from secateur.hw.spec import Geometry

ARTY_A7_100T = Board(
    name="arty-a7-100t",
    title="Arty A7-100T",
    flow="vivado",
    device="xc7a100t",
    package="csg324-1",
    die="",
    oscillator=100_000_000,
    clock=100_000_000,
    baud=1_000_000,
    geometry=Geometry(n=8, p=16, weight_words=16384, bank_words=2048),
    pins=find_pins(ArtyA7_100Platform, running=("led", 0, ""), error=("led", 1, "")),
    program="openFPGALoader --board arty_a7_100t secateur.bit",
)

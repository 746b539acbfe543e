"""Tang Nano 20K of Sipeed: GW2AR-18, 27 MHz, USB serial port of a BL616.

amaranth-boards does not have it: the pins are those of the schematic.
"""

from __future__ import annotations

from secateur.boards.catalogue.board import Board, Pin
from secateur.hw.spec import Geometry

_ATTRIBUTES = {"IO_TYPE": "LVCMOS33"}
# Lights are low for on.
_PINS = {
    "clk": ("4", False),
    "rx": ("70", False),
    "tx": ("69", False),
    "running": ("15", True),
    "error": ("16", True),
}

TANG_NANO_20K = Board(
    name="tang-nano-20k",
    title="Tang Nano 20K with GW2AR-18",
    flow="gowin",
    device="GW2AR-18",
    package="QN88",
    die="GW2AR-18C",
    oscillator=27_000_000,
    clock=108_000_000,
    baud=1_000_000,
    geometry=Geometry(n=4, p=4, weight_words=4096, bank_words=4096),
    pins={
        port: Pin(ball=ball, inverted=inverted, attributes=_ATTRIBUTES)
        for port, (ball, inverted) in _PINS.items()
    },
    program="openFPGALoader --board tangnano20k --file-type fs secateur.bit",
)

"""A board: its part, its oscillator, the pins that the engine needs, and the engine."""

from __future__ import annotations

from dataclasses import dataclass, replace

from amaranth.build import Pins

from secateur.errors import SecateurError
from secateur.hw.flash import SECTOR, WAKE, Flash, Slots
from secateur.hw.spec import Geometry

#: Longer than a flash takes to wake.
PAUSE_SECONDS = 40e-6
#: Wakes the flash, and enables quad reads until power is off: bit 1 of status 2. A flash that has
#: no such command ignores it; there quad reads must have been enabled for good.
SETUP = (*WAKE, b"\x50", b"\x31\x02")
#: Bytes between the first image and the second: of 131,072 words of up to 12 bytes.
SLOT_BYTES = 0x180000


class BoardError(SecateurError):
    """An unknown board, an image that does not fit, a clock that is missed."""


@dataclass(frozen=True, kw_only=True)
class Pin:
    """A pin of the package.

    Attributes
    ----------
    ball : its name
    inverted : it is low for on
    attributes : of its buffer
    """

    ball: str
    inverted: bool
    attributes: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class BoardFlash:
    """The flash that a board is configured from, with room for two images behind the bitstream.

    The sector before the first image says which one counts.

    Parameters
    ----------
    pins : by the ports of ``Top``, with levels as they are: flash_cs_n, flash_io0 to flash_io3, and
        flash_sck where that is a pin like others
    image : address of the first image
    program : the command that writes ``flash.bin``
    start : address of the bitstream, at which ``flash.bin`` begins
    setup : see ``Flash``
    """

    pins: dict[str, Pin]
    image: int
    program: str
    start: int = 0
    setup: tuple[bytes, ...] = SETUP

    def read_at(self, clock: int) -> Flash:
        """How an engine with a clock in Hz reads it: with half of the clock."""
        return Flash(
            address=self.image,
            setup=self.setup,
            pause=round(PAUSE_SECONDS * clock),
            slots=Slots(choice=self.image - SECTOR, other=self.image + SLOT_BYTES),
        )


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board, with the engine that it carries.

    Parameters
    ----------
    name : on the command line
    title : in prose
    flow : name of the toolchain, one of ``boards.flow.flow.FLOWS``
    device : the part on the board, by the vendor's name
    package : of the part, by the vendor's name
    die : the part that is placed and routed, with its slowest speed grade; for the flow ``ecp5``
        one of ``sites.DIES``, "" for a vendor's flow
    oscillator : Hz
    clock : Hz of the engine
    baud : of the UART
    geometry : the engine
    pins : by the ports of ``Top``: clk, rx, tx, running, error
    program : the command that programs the board with ``secateur.bit``
    flash : fills the ring of an engine that has one; None: an engine has no ring
    sdram : pins by the ports of ``Top``, of an SDRAM to which the image may be copied; None: there
        is none that is supported
    """

    name: str
    title: str
    flow: str
    device: str
    package: str
    die: str
    oscillator: int
    clock: int
    baud: int
    geometry: Geometry
    pins: dict[str, Pin]
    program: str
    flash: BoardFlash | None = None
    sdram: dict[str, Pin] | None = None


def find_pins(
    platform: type, running: tuple[str, int, str], error: tuple[str, int, str], extra: tuple = ()
) -> dict[str, Pin]:
    """``Board.pins`` from a platform of amaranth-boards.

    Parameters
    ----------
    platform : class of amaranth-boards
    running, error : resource, number and subsignal of an LED; no subsignal is ""
    extra : resources in addition to the platform's, such as a UART on a connector
    """
    resources = {(known.name, known.number): known for known in (*platform.resources, *extra)}
    balls = dict(pair for connector in platform.connectors for pair in connector)
    wanted = {
        "clk": (platform.default_clk, 0, ""),
        "rx": ("uart", 0, "rx"),
        "tx": ("uart", 0, "tx"),
        "running": running,
        "error": error,
    }
    return {
        port: _pin(resources[name, number], part, balls)
        for port, (name, number, part) in wanted.items()
    }


def find_flash_pins(platform: type, *, clock: bool = False) -> dict[str, Pin]:
    """``BoardFlash.pins`` from a platform of amaranth-boards, with the clock or without."""
    names = ("spi_flash", "spi_flash_1x")
    (flash,) = (known for known in platform.resources if known.name in names)
    parts = {"cs_n": "cs", "io0": "copi", "io1": "cipo", "io2": "wp", "io3": "hold"}
    parts |= {"sck": "clk"} if clock else {}
    return {
        f"flash_{line}": replace(_pin(flash, part, {}), inverted=False)
        for line, part in parts.items()
    }


def find_sdram_pins(platform: type) -> dict[str, Pin]:
    """``Board.sdram`` from a platform of amaranth-boards, with levels as they are."""
    (sdram,) = (known for known in platform.resources if known.name == "sdram")
    single = {"clk": "clk", "cke": "clk_en", "cs_n": "cs"}
    single |= {"ras_n": "ras", "cas_n": "cas", "we_n": "we"}
    several = {"ba": "ba", "a": "a", "dqm": "dqm", "dq": "dq"}
    found = {line: _pins(sdram, part, {}) for line, part in (single | several).items()}
    return {
        f"sdram_{line}" + (str(index) if line in several else ""): replace(pin, inverted=False)
        for line, pins in found.items()
        for index, pin in enumerate(pins)
    }


def _pin(resource, part: str, balls: dict[str, str]) -> Pin:
    """The pin of a resource, or of a subsignal of it; ``balls``: of connectors."""
    (pin,) = _pins(resource, part, balls)
    return pin


def _pins(resource, part: str, balls: dict[str, str]) -> list[Pin]:
    """As ``_pin``, of one with several pins, from bit 0 on."""
    levels = [resource]
    if part:
        levels += [io for io in resource.ios if getattr(io, "name", None) == part]
    signal = next(io for io in levels[-1].ios if isinstance(io, Pins))
    attributes = {key: str(value) for level in levels for key, value in level.attrs.items()}
    return [
        Pin(ball=ball, inverted=signal.invert, attributes=attributes)
        for ball in signal.map_names(balls, resource)
    ]

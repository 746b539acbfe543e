"""What a board is: its part, its oscillator, the pins that the engine needs, and the engine."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.build import Pins

from secateur.errors import SecateurError
from secateur.hw.spec import Geometry


class BoardError(SecateurError):
    """What the user is to be told in one line: unknown board, image that does not fit, ..."""


@dataclass(frozen=True, kw_only=True)
class Pin:
    """A pin of the package: its ball, whether it is low when on, attributes of its buffer."""

    ball: str
    inverted: bool
    attributes: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board, with the engine that it carries.

    Parameters
    ----------
    name, title : as on the command line, and in prose
    flow : ``ecp5``, ``ice40``: built here; ``vivado``: sources for the vendor's tool
    device, package : the part as it is soldered, by Lattice's or the vendor's names
    die : what is placed and routed, for its slowest speed grade whatever is soldered: with flow
        ``ecp5`` of ``sites.DIES``; "" where it is not done here
    oscillator, clock : Hz of the oscillator and of the engine
    baud : of the UART
    geometry : the engine
    pins : by the ports of the flow's ``Top``: clk, rx, tx, running, error
    program : the command that puts a bitstream on the board
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


def find_pins(
    platform: type, running: tuple[str, int, str], error: tuple[str, int, str], extra: tuple = ()
) -> dict[str, Pin]:
    """The pins of ``Board.pins`` as amaranth-boards lists them.

    Parameters
    ----------
    platform : class of amaranth-boards
    running, error : resource, number and subsignal of an LED; the last "" if it has none
    extra : resources beside the platform's, such as a UART on a connector
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
    pins = {}
    for port, (name, number, part) in wanted.items():
        levels = [resources[name, number]]
        if part:
            levels += [io for io in levels[0].ios if getattr(io, "name", None) == part]
        signal = next(io for io in levels[-1].ios if isinstance(io, Pins))
        (ball,) = signal.map_names(balls, levels[0])
        attributes = {key: str(value) for level in levels for key, value in level.attrs.items()}
        pins[port] = Pin(ball=ball, inverted=signal.invert, attributes=attributes)
    return pins

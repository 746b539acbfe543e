"""A board: its part, its oscillator, the pins that the engine needs, and the engine."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.build import Pins

from secateur.errors import SecateurError
from secateur.hw.spec import Geometry


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

"""The contract of the ring: its sources, and the cycles that words take through it.

Standard library only, as ``spec``; ``ring.md`` is the prose that goes with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from secateur.hw.spec import Geometry

#: Most words that the fetcher has read and that have not issued.
FETCH_WORDS = 16
#: Cycles in which no byte is taken behind the last one of a pass: its CRC is compared.
PASS_CYCLES = 7
#: Cycles from the last byte of a word, or of its group, to the first in which it may be read.
FILL_CYCLES = 2
#: Words of the largest block RAM of the ring; deeper rings, and several banks, read later.
SLICE_WORDS = 2048


@dataclass(frozen=True, kw_only=True)
class Source:
    """An outside source of constant rate.

    A byte is ready ``interval`` cycles after the one before was ready, or in the cycle after that
    was taken, whichever is later. The first byte of a pass is ready ``latency`` cycles later.

    Parameters
    ----------
    interval : cycles per byte
    latency : further cycles before the first byte of each pass over the image
    """

    interval: int = 1
    latency: int = 0

    def __post_init__(self) -> None:
        for name, least in (("interval", 1), ("latency", 0)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= 1 << 20:
                raise ValueError(f"{name} must be {least} to {1 << 20} cycles, not {value!r}")


def memory_words(geometry: Geometry) -> int:
    """Words of the weight memory: of the ring, if there is one."""
    return geometry.ring or geometry.weight_words


def read_cycles(geometry: Geometry) -> int:
    """Cycles from the address of a word of the weight memory to the word."""
    return 5 if geometry.s > 1 or memory_words(geometry) > SLICE_WORDS else 3


def fetch_cycles(geometry: Geometry) -> int:
    """Cycles from the read of a word to the first in which it may issue."""
    return read_cycles(geometry) + 4


def free_cycles(geometry: Geometry) -> int:
    """Cycles from the last read of a word to the first in which another may be completed there."""
    return read_cycles(geometry) + 3


def side_free_cycles(geometry: Geometry) -> int:
    """As ``free_cycles``, from the issue of a word of filter lanes: then all read theirs."""
    return geometry.s + 3


def side_held_cycles(geometry: Geometry) -> int:
    """Cycles from the issue of the last word of filter lanes to the first read behind it."""
    return geometry.s + 2

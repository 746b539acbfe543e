"""The contract of an SDR SDRAM as the ring's source: its size, its times, and the rate.

Standard library only, as ``spec``; ``sdram.md`` is the prose that goes with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from secateur.hw.ring import Source

#: Bits of a row's number, of a column's, and of a bank's; bits of a half-word.
ROW_BITS, COLUMN_BITS, BANK_BITS, DATA_BITS = 13, 9, 2, 16
ADDRESS_BITS = ROW_BITS + COLUMN_BITS + BANK_BITS
#: Columns that are read from a row while it is open, and half-words that wait for the ring.
BURST, DEPTH = 32, 64
#: A10: PRECHARGE is for all banks.
ALL_BANKS = 1 << 10
#: REFRESH commands before the mode is set: 2 for some parts, 8 for others.
FIRST_REFRESHES = 8
#: Cycles from MODE to the next command.
MODE_CYCLES = 2
#: Least cycle in ns, by CAS latency.
LEAST_NS = {2: 10, 3: 7}
#: Cycles of the source beside those of the memory, from a request to a byte.
REQUEST_CYCLES = 8
#: The rate of its bytes. The latency is the turn of the stage that paces them.
SOURCE = Source(interval=1, latency=1)


class Command(IntEnum):
    """Levels of RAS#, CAS# and WE#, the last one lowest."""

    MODE = 0b000
    REFRESH = 0b001
    PRECHARGE = 0b010
    ACTIVATE = 0b011
    WRITE = 0b100
    READ = 0b101
    NOP = 0b111


@dataclass(frozen=True)
class Step:
    """A command of the beginning.

    Attributes
    ----------
    command : what is sent
    address : on the address lines
    cycles : until the next command, at least 1
    """

    command: Command
    address: int
    cycles: int


@dataclass(frozen=True, kw_only=True)
class Sdram:
    """An SDR SDRAM of 16 bits, and how it is used. Times are in ns, and become whole cycles.

    The defaults are the longest times of parts of 133 and 143 MHz.

    Parameters
    ----------
    clock : Hz, of engine and SDRAM
    latency : CAS latency, 2 or 3
    trcd : from ACTIVATE to READ or WRITE
    trp : from PRECHARGE to the next command
    tras : from ACTIVATE to PRECHARGE
    trc : from ACTIVATE or REFRESH to the next one
    twr : from the last WRITE to PRECHARGE
    retention : in which every row is refreshed
    rows : that a REFRESH each refreshes
    power_up : before the first command
    delay : further cycles until data are taken, up to 7: of the way to the SDRAM and back
    """

    clock: int
    latency: int = 3
    trcd: int = 21
    trp: int = 21
    tras: int = 49
    trc: int = 70
    twr: int = 15
    retention: int = 64_000_000
    rows: int = 1 << ROW_BITS
    power_up: int = 200_000
    delay: int = 1

    def __post_init__(self) -> None:
        if self.latency not in LEAST_NS:
            raise ValueError(f"latency must be 2 or 3, not {self.latency!r}")
        least = LEAST_NS[self.latency]
        if type(self.clock) is not int or not 0 < self.clock * least <= 10**9:
            raise ValueError(
                f"clock must be at most {10**9 // least} Hz with latency {self.latency}, not "
                f"{self.clock!r}"
            )
        limits = dict.fromkeys(("trcd", "trp", "tras", "trc", "twr"), (1, 1000))
        limits |= {"delay": (0, 7), "rows": (1, 1 << ROW_BITS)}
        limits |= {"retention": (1, 10**9), "power_up": (1, 10**7)}
        for name, (lowest, most) in limits.items():
            value = getattr(self, name)
            if type(value) is not int or not lowest <= value <= most:
                raise ValueError(f"{name} must be {lowest} to {most}, not {value!r}")
        slow = self.overhead + self.access_cycles(1)
        if slow > 2 * (DEPTH - BURST):
            raise ValueError(
                f"times must be shorter: the ring may have to wait {slow} cycles for a row, and "
                f"at most {2 * (DEPTH - BURST)} bytes are there by then"
            )
        if self.refresh_cycles < 2 * self.access_cycles(BURST):
            raise ValueError(
                f"clock must be higher: a row is refreshed every {self.refresh_cycles} cycles, "
                f"and one is open for {self.access_cycles(BURST)}"
            )

    def cycles(self, time: int) -> int:
        """Cycles that are not shorter than a time in ns."""
        return -(-time * self.clock // 10**9)

    @property
    def open_cycles(self) -> int:
        """From ACTIVATE to the first READ or WRITE."""
        return self.cycles(self.trcd)

    @property
    def close_cycles(self) -> int:
        """From the last READ or WRITE to PRECHARGE."""
        return max(1, self.cycles(self.twr), self.cycles(self.tras) - self.open_cycles)

    @property
    def shut_cycles(self) -> int:
        """From PRECHARGE to what follows."""
        rest = self.cycles(self.trc) - self.open_cycles - self.close_cycles
        return max(self.cycles(self.trp), rest)

    def access_cycles(self, columns: int) -> int:
        """From one ACTIVATE to the next, with so many columns in between."""
        return self.open_cycles + columns - 1 + self.close_cycles + self.shut_cycles

    @property
    def overhead(self) -> int:
        """Most cycles from the end of a burst to the first byte of the next one."""
        between = self.close_cycles + self.shut_cycles + self.cycles(self.trc) + self.open_cycles
        return between + self.latency + self.delay + REQUEST_CYCLES

    @property
    def refresh_cycles(self) -> int:
        """From one REFRESH to the next; an access that is under way may delay one."""
        most = self.retention * self.clock // 10**9 - self.access_cycles(BURST)
        return most // self.rows

    @property
    def data_cycles(self) -> int:
        """From READ in the controller's register to its data behind the register of the pins.

        The pins have a flip-flop each way, and the SDRAM's clock rises between two edges.
        """
        return self.latency + 1 + self.delay

    @cached_property
    def start(self) -> tuple[Step, ...]:
        """What is sent before all else: the mode is single columns."""
        row = self.cycles(self.trc)
        return (
            Step(Command.NOP, 0, self.cycles(self.power_up)),
            Step(Command.PRECHARGE, ALL_BANKS, self.cycles(self.trp)),
            *[Step(Command.REFRESH, 0, row)] * FIRST_REFRESHES,
            Step(Command.MODE, self.latency << 4, MODE_CYCLES),
        )

"""The contract of a serial flash as the ring's source: what is sent to it, and the rate.

Standard library only, as ``spec``; ``flash.md`` is the prose that goes with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from secateur.hw.ring import Source

#: Fast reads: all four lines carry address and data; or one each way.
READ_QUAD, READ_SINGLE = 0xEB, 0x0B
#: Mode bits behind a quad address: the next read has no command byte, or has one.
MODE_CONTINUOUS, MODE_SINGLE = 0xA0, 0xFF
#: Clocks for which the flash is not selected between two transfers.
IDLE_CLOCKS = 4
#: Leaves continuous reads, in which this is an address, and wakes the flash.
WAKE = (b"\xff", b"\xab")
#: Lines that are driven: bits on line 0 while lines 2 and 3 are high, and bits on all lines.
ONE, ALL = 0b1101, 0b1111

#: Bytes of the least part of a flash that can be erased alone.
SECTOR = 4096
_ADDRESSES = 1 << 24


@dataclass(frozen=True)
class Step:
    """What the reader does for a clock.

    Attributes
    ----------
    select : the flash is selected
    clock : it gets a clock
    drive : lines that are driven
    value : their levels
    pauses : it takes ``Flash.pause`` cycles instead of a clock
    """

    select: bool = False
    clock: bool = False
    drive: int = ONE
    value: int = ONE
    pauses: bool = False


@dataclass(frozen=True)
class Slots:
    """Room for a second image, so that one is whole while the other is written.

    The first image counts if an even number of bytes of the sector ``choice`` stand before its
    first 0xff, else the second. An update writes one more of these bytes, when the image is there.

    Parameters
    ----------
    choice : address of the sector
    other : address of the second image
    """

    choice: int
    other: int


@dataclass(frozen=True, kw_only=True)
class Flash:
    """A serial flash, how it is read, and what it takes.

    Parameters
    ----------
    address : of the image's first byte
    quad : four lines, else one each way
    continuous : later quad reads have no command byte
    dummies : clocks between address and data, without those of the mode bits; None: 4 of quad
        reads, else 8
    divider : cycles of a clock of the flash, 1 or even
    delay : further cycles until a bit is taken, up to 7: of the way to the flash and back
    setup : what is sent before the first read, each a transfer on one line
    pause : cycles behind each of these
    slots : a second image, and which one counts; None: there is one
    """

    address: int = 0
    quad: bool = True
    continuous: bool = False
    dummies: int | None = None
    divider: int = 2
    delay: int = 1
    setup: tuple[bytes, ...] = WAKE
    pause: int = 4096
    slots: Slots | None = None

    def __post_init__(self) -> None:
        if self.dummies is None:
            object.__setattr__(self, "dummies", 4 if self.quad else 8)
        limits = {"address": (0, _ADDRESSES - 1), "dummies": (1, 31), "delay": (0, 7)}
        limits["pause"] = (1, 1 << 24)
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{name} must be {least} to {most}, not {value!r}")
        if type(self.divider) is not int or self.divider not in (1, *range(2, 17, 2)):
            raise ValueError(f"divider must be 1 or an even number to 16, not {self.divider!r}")
        if self.continuous and not self.quad:
            raise ValueError("continuous must be False with one line, not True")
        if not all(type(each) is bytes and each for each in self.setup):
            raise ValueError(f"setup must be transfers of bytes, not {self.setup!r}")
        if self.slots is not None:
            sectors = (self.address, self.slots.choice, self.slots.other)
            apart = len(set(sectors)) == 3
            if not apart or any(at % SECTOR or not 0 <= at < _ADDRESSES for at in sectors):
                raise ValueError(
                    f"address and slots must be three sectors of {SECTOR} bytes, not {sectors!r}"
                )

    @property
    def byte_clocks(self) -> int:
        """Clocks of a byte of the image."""
        return 2 if self.quad else 8

    @property
    def source(self) -> Source:
        """The rate of its bytes."""
        latency = len(self.again) * self.divider
        return Source(interval=self.byte_clocks * self.divider, latency=latency)

    @cached_property
    def first(self) -> tuple[Step, ...]:
        """From a reset to the first byte of data: of the image, or of the choice of one."""
        steps = list[Step]()
        for transfer in self.setup:
            steps += [Step()] * IDLE_CLOCKS + _serial(transfer) + [Step(pauses=True)]
        at = self.address if self.slots is None else self.slots.choice
        return (*steps, *[Step()] * IDLE_CLOCKS, *self._command, *self._begin(at))

    @cached_property
    def again(self) -> tuple[Step, ...]:
        """From the last byte of a pass to the first of the next."""
        return self._next(self.address)

    @cached_property
    def other(self) -> tuple[Step, ...]:
        """The same to the second image; empty if there is none."""
        return () if self.slots is None else self._next(self.slots.other)

    def _next(self, address: int) -> tuple[Step, ...]:
        held = [replace(self.data, clock=False)] * -(-self.delay // self.divider)
        command = () if self.continuous else self._command
        return (*held, *[Step()] * IDLE_CLOCKS, *command, *self._begin(address))

    @property
    def data(self) -> Step:
        """While the flash drives its lines."""
        return Step(True, True, 0, 0) if self.quad else Step(True, True)

    @property
    def _command(self) -> list[Step]:
        return _serial(bytes([READ_QUAD if self.quad else READ_SINGLE]))

    def _begin(self, at: int) -> list[Step]:
        """What a read sends behind its command."""
        address = at.to_bytes(3, "big")
        assert self.dummies is not None
        if not self.quad:
            return _serial(address) + [self.data] * self.dummies
        mode = bytes([MODE_CONTINUOUS if self.continuous else MODE_SINGLE])
        nibbles = [nibble for byte in address + mode for nibble in (byte >> 4, byte & 0xF)]
        return [Step(True, True, ALL, nibble) for nibble in nibbles] + [self.data] * self.dummies


def _serial(transfer: bytes) -> list[Step]:
    """Bytes on line 0, the most significant bit first."""
    bits = [byte >> at & 1 for byte in transfer for at in reversed(range(8))]
    return [Step(True, True, ONE, ONE & ~1 | bit) for bit in bits]

"""A UART: 8 data bits, no parity, one stop bit."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

#: Least cycles of a bit: the middle of a bit must be told from its edges.
MIN_DIVISOR = 4
#: Error of a bit's length, as a share. A receiver misses the stop bit at 5 %; about half of that is
#: left for the error of the other side.
TOLERANCE = 0.02


def divisor_for(clock_hz: float, baud: float) -> int:
    """Cycles of a bit at ``baud``.

    Raises
    ------
    ValueError : the clock is too slow for that rate, or no divisor is near enough
    """
    divisor = round(clock_hz / baud)
    if divisor < MIN_DIVISOR:
        raise ValueError(f"baud must be at most clock_hz / {MIN_DIVISOR}, not {baud!r}")
    if abs(clock_hz / baud / divisor - 1) > TOLERANCE:
        raise ValueError(
            f"baud must be within {TOLERANCE:.0%} of clock_hz divided by a whole number, "
            f"not {baud!r}; the nearest is {clock_hz / divisor:.0f}"
        )
    return divisor


def _check(divisor: int) -> int:
    if divisor < MIN_DIVISOR:
        raise ValueError(f"divisor must be at least {MIN_DIVISOR} cycles, not {divisor!r}")
    return divisor


class UartReceiver(wiring.Component):
    """Bytes from a line; there is no back-pressure.

    The line passes two flip-flops. Bits are sampled in their middle, also the start bit: a pulse of
    less than half a bit does not begin a byte. After a missing stop bit, the next start bit counts
    once the line has been high again.

    Parameters
    ----------
    divisor : cycles of a bit, at least MIN_DIVISOR

    Members
    -------
    rx : In(1)  the line, high at rest; asynchronous
    data : Out(8)  a byte, while ``valid``
    valid : Out(1)  for one cycle, half a bit into the stop bit
    error : Out(1)  with ``valid``: the stop bit is missing
    """

    def __init__(self, *, divisor: int):
        self.divisor = _check(divisor)
        super().__init__({"rx": In(1), "data": Out(8), "valid": Out(1), "error": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        first = Signal(init=1)
        line = Signal(init=1)
        m.d.sync += [first.eq(self.rx), line.eq(first)]

        wait = Signal(range(self.divisor))
        left = Signal(range(11))  # bits still to be sampled; 0: none, or the line is not yet high
        resting = Signal()
        bits = Signal(8, reset_less=True)
        sample = Signal()
        m.d.comb += self.data.eq(bits)
        # `sample` is `wait == 0` while bits are left, decided a cycle ahead, for a short path.
        m.d.sync += [self.valid.eq(0), self.error.eq(0), sample.eq((left != 0) & (wait == 1))]
        with m.If(left == 0):
            m.d.sync += resting.eq(line)
            with m.If(resting & ~line):
                m.d.sync += [left.eq(10), wait.eq((self.divisor - 1) // 2), resting.eq(0)]
        with m.Elif(~sample):
            m.d.sync += wait.eq(wait - 1)
        with m.Else():
            m.d.sync += [wait.eq(self.divisor - 1), left.eq(left - 1)]
            with m.If((left == 10) & line):
                m.d.sync += left.eq(0)  # no start bit, a glitch
            with m.Elif(left == 1):
                m.d.sync += [self.valid.eq(1), self.error.eq(~line)]
            with m.Else():
                m.d.sync += bits.eq(Cat(bits[1:], line))
        return m


class UartTransmitter(wiring.Component):
    """Bytes to a line.

    Parameters
    ----------
    divisor : cycles of a bit, at least MIN_DIVISOR

    Members
    -------
    bytes : In(stream)  a byte is taken when the one before has left with its stop bit, 10 *
        ``divisor`` cycles after that was taken
    tx : Out(1)  the line, high at rest
    """

    def __init__(self, *, divisor: int):
        self.divisor = _check(divisor)
        super().__init__({"bytes": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        wait = Signal(range(self.divisor))
        left = Signal(range(10))  # bits after the one on the line
        bits = Signal(8, reset_less=True)
        shift = Signal()  # the next bit is due
        free = Signal(init=1)  # nothing is left, in the last cycle of the stop bit and from then on
        m.d.comb += self.bytes.ready.eq(free)
        m.d.sync += [wait.eq(Mux(wait == 0, 0, wait - 1)), shift.eq(0)]
        with m.If(wait == 1):  # both a cycle ahead: a short path to the line's bits
            m.d.sync += [shift.eq(left != 0), free.eq(left == 0)]
        with m.If(shift):
            m.d.sync += [
                Cat(self.tx, bits).eq(Cat(bits, 1)),
                left.eq(left - 1),
                wait.eq(self.divisor - 1),
            ]
        with m.Elif(self.bytes.valid & free):
            m.d.sync += [
                self.tx.eq(0),
                bits.eq(self.bytes.payload),
                left.eq(9),
                wait.eq(self.divisor - 1),
                free.eq(0),
            ]
        return m

"""The top of a board: clock, serial port, lights, and the engine behind its link."""

from __future__ import annotations

from amaranth.back import verilog
from amaranth.hdl import ClockDomain, Const, DomainRenamer, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from secateur.boards.catalogue.board import Board
from secateur.boards.flow.pll import Pll
from secateur.boards.flow.sites import multiplier_sites
from secateur.hw.link.uart import divisor_for
from secateur.hw.link.uart_top import UartEngine

#: Oscillator cycles for which the PLL must hold its lock before the engine's clock begins.
LOCK_CYCLES = 1 << 12
#: Name of the PLL's output, and how much faster than it place and route try to be: what they reach
#: without effort they do not improve.
PLL_NET = "made"
AIM = 1.25


class LockFilter(wiring.Component):
    """Tells when a PLL is to be trusted: after ``cycles`` cycles of lock without a break.

    Parameters
    ----------
    cycles : at least 2

    Members
    -------
    locked : In, asynchronous, through two flip-flops
    go : Out
    """

    def __init__(self, *, cycles: int):
        if cycles < 2:
            raise ValueError(f"cycles must be at least 2, not {cycles!r}")
        self.cycles = cycles
        super().__init__({"locked": In(1), "go": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        lock_1 = Signal()
        lock_2 = Signal()
        held = Signal(range(self.cycles))
        m.d.sync += [lock_1.eq(self.locked), lock_2.eq(lock_1)]
        with m.If(~lock_2):
            m.d.sync += [held.eq(0), self.go.eq(0)]
        with m.Elif(held != self.cycles - 1):
            m.d.sync += held.eq(held + 1)
        with m.Else():
            m.d.sync += self.go.eq(1)
        return m


class Top(wiring.Component):
    """The engine on a board.

    The engine needs no reset: flip-flops and memories start as configured, and its clock starts
    only when it is good. A PLL that loses its lock stops the clock; it goes on when the lock is
    back, and the CRC of the link shows what was lost.

    Parameters
    ----------
    board : the board; its flow decides on primitives, PLL and sites of the multipliers
    geometry : the engine
    init : words of the image, as for ``Engine``
    clock : Hz of the engine; the oscillator's own for a flow without PLL

    Members
    -------
    clk : In, the oscillator
    rx, tx : In, Out; the serial line, high when idle
    running, error : Out; lights, as the pins want them: low for on where the board inverts
    """

    def __init__(self, board: Board, geometry, *, init=None, clock: int | None = None):
        self.board = board
        self.pll, divisor = clocking(board, clock or board.clock)
        options = {"family": "generic"}
        if board.flow == "ecp5":
            bels = multiplier_sites(board.die, geometry.multipliers)
            options = {"family": "ecp5", "bels": bels}
        self.engine = UartEngine(geometry, init=init, divisor=divisor, **options)
        super().__init__(
            {
                "clk": In(1),
                "rx": In(1),
                "tx": Out(1, init=1),
                "running": Out(1),
                "error": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.domains.sync = sync = ClockDomain(reset_less=True)
        if self.pll is None:
            m.d.comb += sync.clk.eq(self.clk)
        else:
            self._clock(m, sync)
        m.submodules.link = engine = self.engine
        m.d.comb += [engine.rx.eq(self.rx), self.tx.eq(engine.tx)]
        for name in ("running", "error"):
            light, pin = getattr(engine, name), self.board.pins[name]
            m.d.comb += getattr(self, name).eq(~light if pin.inverted else light)
        return m

    def _clock(self, m: Module, sync: ClockDomain) -> None:
        m.domains.oscillator = oscillator = ClockDomain(reset_less=True, local=True)
        m.d.comb += oscillator.clk.eq(self.clk)
        made = Signal(name=PLL_NET)
        m.submodules.lock = lock = DomainRenamer("oscillator")(LockFilter(cycles=LOCK_CYCLES))
        m.submodules.pll = _pll(self.pll, self.clk, made, lock.locked)
        # Its gate opens and closes between two edges.
        m.submodules.gate = Instance("DCCA", i_CLKI=made, i_CE=lock.go, o_CLKO=sync.clk)


def clocking(board: Board, clock: int) -> tuple[Pll | None, int]:
    """The PLL for an engine's clock in Hz, None for none, and the cycles of a bit on the line.

    Raises
    ------
    ValueError : there is no such PLL, or the clock does not give the baud rate
    """
    pll = None
    if board.flow == "ecp5":
        pll = Pll.reach(board.oscillator, clock)
    elif clock != board.oscillator:
        raise ValueError(
            f"clock must be the oscillator's, {board.oscillator / 1e6:g} MHz, not {clock / 1e6:g}"
        )
    return pll, divisor_for(clock, board.baud)


def _pll(pll: Pll, oscillator, made, locked) -> Instance:
    """EHXPLLL with feedback from CLKOP, nothing dynamic."""
    settings = {f"p_{name}_ENABLE": "DISABLED" for name in ("CLKOS", "CLKOS2", "CLKOS3")}
    settings |= {f"p_OUTDIVIDER_MUX{letter}": f"DIV{letter}" for letter in "ABCD"}
    for name in ("PLLRST_ENA", "INTFB_WAKE", "STDBY_ENABLE", "DPHASE_SOURCE"):
        settings[f"p_{name}"] = "DISABLED"
    for name in ("RST", "STDBY", "PHASESEL0", "PHASESEL1", "PLLWAKESYNC", "ENCLKOP"):
        settings[f"i_{name}"] = Const(0)
    for name in ("PHASEDIR", "PHASESTEP", "PHASELOADREG"):
        settings[f"i_{name}"] = Const(1)
    return Instance(
        "EHXPLLL",
        **settings,
        p_CLKI_DIV=pll.input_divider,
        p_CLKFB_DIV=pll.feedback_divider,
        p_FEEDBK_PATH="CLKOP",
        p_CLKOP_ENABLE="ENABLED",
        p_CLKOP_DIV=pll.output_divider,
        p_CLKOP_CPHASE=pll.output_divider - 1,
        p_CLKOP_FPHASE=0,
        a_ICP_CURRENT="12",
        a_LPF_RESISTOR="8",
        a_MFG_ENABLE_FILTEROPAMP="1",
        a_MFG_GMCREF_SEL="2",
        i_CLKI=oscillator,
        i_CLKFB=made,
        o_CLKOP=made,
        o_LOCK=locked,
    )


def to_verilog(board: Board, geometry, *, init=None, clock: int | None = None) -> str:
    """Verilog of ``Top``, whose module and ports have the names of its members."""
    top = Top(board, geometry, init=init, clock=clock)
    return verilog.convert(top, name="top", emit_src=False)


def to_lpf(board: Board, clock: int) -> str:
    """Pins and frequencies for nextpnr-ecp5, which is to aim above the engine's clock."""
    lines = [
        f'FREQUENCY PORT "clk" {board.oscillator / 1e6:g} MHZ;',
        f'FREQUENCY NET "{PLL_NET}" {AIM * clock / 1e6:g} MHZ;',
    ]
    for port, pin in board.pins.items():
        lines.append(f'LOCATE COMP "{port}" SITE "{pin.ball}";')
        attributes = " ".join(f"{key}={value}" for key, value in pin.attributes.items())
        lines.append(f'IOBUF PORT "{port}" {attributes};')
    return "\n".join(lines) + "\n"

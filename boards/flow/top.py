"""The top of a board: clock, serial port, lights, and the engine behind its link."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from amaranth.back import verilog
from amaranth.hdl import ClockDomain, IOPort, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from secateur.boards.catalogue.board import Board
from secateur.hw.link.uart_top import UartEngine
from secateur.hw.sdram import DATA_BITS

#: Cycles for which the PLL must hold its lock before the engine's clock starts.
LOCK_CYCLES = 1 << 12


class LockFilter(wiring.Component):
    """Filter of a PLL's lock signal: ``cycles`` cycles of lock without a break.

    Parameters
    ----------
    cycles : at least 2

    Members
    -------
    locked : In(1)  asynchronous, through two flip-flops
    go : Out(1)  the lock has been held
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


class Clock(Protocol):
    """How the flow of a board makes the engine's clock."""

    def drive(self, m: Module, sync: ClockDomain, oscillator: Signal) -> None:
        """Add the logic that drives the clock to a module.

        Parameters
        ----------
        m : the top
        sync : the domain of the engine, without reset
        oscillator : the board's clock
        """


#: Connects the lines of a flash, io0 to io3, to an engine; and its clock, if that is no plain pin.
Pads = Callable[[Module, UartEngine, list[IOPort]], None]
#: Connects the lines of an SDRAM: ports of ``Top`` by their names, and data 0 to 15.
SdramPads = Callable[[Module, UartEngine, dict[str, Signal], list[IOPort]], None]


class Top(wiring.Component):
    """The engine on a board.

    The engine needs no reset: flip-flops and memories start as configured, and its clock starts
    only when it is stable. A PLL that loses its lock stops the clock. The clock resumes when the
    lock is back; the CRC of the link detects bytes that were lost.

    Parameters
    ----------
    board : the board
    engine : the engine behind its link
    clock : of the engine
    pads : of an engine with a flash
    sdram_pads : of an engine with an SDRAM

    Attributes
    ----------
    lines : flash_io0 to flash_io3, of an engine with a flash
    data : sdram_dq0 to sdram_dq15, of an engine with an SDRAM

    Members
    -------
    clk : In(1)  the oscillator
    rx : In(1)  serial line from the host, high when idle
    tx : Out(1)  serial line to the host, high when idle
    running : Out(1)  light, low for on where the board inverts
    error : Out(1)  light, low for on where the board inverts
    flash_cs_n, flash_sck : Out(1)  to a flash; the latter where the board has a pin for it
    sdram_clk, sdram_cke, sdram_cs_n, sdram_ras_n, sdram_cas_n, sdram_we_n : Out(1)  to an SDRAM
    sdram_ba0 and on, sdram_a0 and on, sdram_dqm0 and on : Out(1)  to an SDRAM
    """

    def __init__(
        self,
        board: Board,
        engine: UartEngine,
        clock: Clock,
        pads: Pads | None = None,
        sdram_pads: SdramPads | None = None,
    ):
        self.board, self.engine, self.clock = board, engine, clock
        self.pads, self.sdram_pads = pads, sdram_pads
        wired = engine.flash is not None
        self.lines = [IOPort(1, name=f"flash_io{i}") for i in range(4)] if wired else []
        names = ("flash_cs_n", "flash_sck") if wired else ()
        count = 0 if engine.sdram is None else DATA_BITS
        self.data = [IOPort(1, name=f"sdram_dq{i}") for i in range(count)]
        own = {port.name for port in self.data}
        self.to_sdram = [name for name in board.sdram or () if name not in own]
        super().__init__(
            {
                "clk": In(1),
                "rx": In(1),
                "tx": Out(1, init=1),
                "running": Out(1),
                "error": Out(1),
                **{name: Out(1) for name in names if name in board.pins},
                **dict.fromkeys(self.to_sdram, Out(1)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.domains.sync = sync = ClockDomain(reset_less=True)
        self.clock.drive(m, sync, self.clk)
        m.submodules.link = engine = self.engine
        m.d.comb += [engine.rx.eq(self.rx), self.tx.eq(engine.tx)]
        for name in ("running", "error"):
            light, pin = getattr(engine, name), self.board.pins[name]
            m.d.comb += getattr(self, name).eq(~light if pin.inverted else light)
        if self.lines:
            m.d.comb += self.flash_cs_n.eq(engine.cs_n)
            if "flash_sck" in self.board.pins:
                m.d.comb += self.flash_sck.eq(engine.sck)
            self.pads(m, engine, self.lines)
        if self.data:
            outputs = {name: getattr(self, name) for name in self.to_sdram}
            self.sdram_pads(m, engine, outputs, self.data)
        return m


def convert(top: Top) -> str:
    """Verilog of the module ``top``, whose ports have the names of the members."""
    own = [value for _, _, value in top.signature.flatten(top)]
    return verilog.convert(top, name="top", ports=[*own, *top.lines, *top.data], emit_src=False)

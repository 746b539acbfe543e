"""iCE40 UltraPlus: its PLL, a board's top, synthesis by yosys, place and route by nextpnr."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from amaranth.back import verilog
from amaranth.hdl import ClockDomain, DomainRenamer, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from secateur.boards.catalogue.board import Board
from secateur.boards.flow import tools
from secateur.boards.flow.route import Progress, note_progress, silent
from secateur.boards.flow.top import LOCK_CYCLES, LockFilter
from secateur.hw.compact.serial_array import check_compact
from secateur.hw.link.uart import divisor_for
from secateur.hw.link.uart_top import UartEngine
from secateur.hw.memory.spram import SPRAM_BITS, SPRAM_WORDS, SPRAMS
from secateur.hw.spec import Geometry

#: Ranges of the data sheet, Hz, and of the dividers.
PHASE_DETECTOR, VCO = (10_000_000, 133_000_000), (533_000_000, 1_066_000_000)
INPUT_DIVIDERS, FEEDBACK_DIVIDERS, OUTPUT_EXPONENTS = range(1, 17), range(1, 129), range(1, 7)
#: FILTER_RANGE by the phase detector's frequency: up to these.
_FILTERS = ((17_000_000, 1), (26_000_000, 2), (44_000_000, 3), (66_000_000, 4), (101_000_000, 5))
#: The ABC script that makes less of it; fewer clock enables, of which each wants tiles of its own.
_SCRIPT = (
    "scratchpad -copy abc9.script.flow3 abc9.script; read_verilog top.v; "
    "synth_ice40 -device u -dffe_min_ce_use 6 -top top -json top.json"
)


@dataclass(frozen=True, kw_only=True)
class Pll40:
    """Dividers of an SB_PLL40 with simple feedback: oscillator / ``input_divider`` *
    ``feedback_divider`` / 2**``output_exponent``."""

    input_divider: int
    feedback_divider: int
    output_exponent: int
    filter_range: int

    @classmethod
    def reach(cls, oscillator: int, wanted: int) -> Pll40:
        """Dividers that make exactly ``wanted`` Hz of ``oscillator`` Hz; ValueError: none do."""
        for divider in INPUT_DIVIDERS:
            reference = Fraction(oscillator, divider)
            for exponent in OUTPUT_EXPONENTS:
                vco = wanted << exponent
                feedback = vco / reference
                if (
                    PHASE_DETECTOR[0] <= reference <= PHASE_DETECTOR[1]
                    and VCO[0] <= vco <= VCO[1]
                    and feedback.denominator == 1
                    and feedback in FEEDBACK_DIVIDERS
                ):
                    return cls(
                        input_divider=divider,
                        feedback_divider=int(feedback),
                        output_exponent=exponent,
                        filter_range=next((n for top, n in _FILTERS if reference < top), 6),
                    )
        raise ValueError(
            f"a PLL cannot make {wanted / 1e6:g} MHz of {oscillator / 1e6:g} MHz exactly"
        )


def check(geometry: Geometry) -> None:
    """ValueError if no iCE40 UltraPlus takes the geometry."""
    check_compact(geometry)
    if geometry.word_bits > SPRAM_BITS * SPRAMS or geometry.weight_words > SPRAM_WORDS:
        raise ValueError(
            f"weight_words must be at most {SPRAM_WORDS} of {SPRAM_BITS * SPRAMS} bits, not "
            f"{geometry.weight_words!r} of {geometry.word_bits!r}"
        )


class Top(wiring.Component):
    """The engine on a board with an iCE40 UltraPlus.

    The clock starts when the PLL has been locked for LOCK_CYCLES: flip-flops and memories start as
    configured, and need no reset.

    Parameters
    ----------
    board : the board
    geometry : the engine
    clock : Hz of the engine
    divisor : cycles of a bit on the line; None: as the board's baud rate wants

    Members
    -------
    clk : In, the oscillator; rx, tx : In, Out, the serial line; running, error : Out, lights
    """

    def __init__(self, board: Board, geometry: Geometry, *, clock: int, divisor: int | None = None):
        check(geometry)
        self.board, self.pll = board, Pll40.reach(board.oscillator, clock)
        divisor = divisor_for(clock, board.baud) if divisor is None else divisor
        self.engine = UartEngine(geometry, family="ice40", divisor=divisor)
        super().__init__(
            {"clk": In(1), "rx": In(1), "tx": Out(1, init=1), "running": Out(1), "error": Out(1)}
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.domains.sync = sync = ClockDomain(reset_less=True)
        m.domains.made = made = ClockDomain(reset_less=True, local=True)
        m.domains.low = low = ClockDomain(reset_less=True, local=True, clk_edge="neg")
        m.submodules.lock = lock = DomainRenamer("made")(LockFilter(cycles=LOCK_CYCLES))
        m.submodules.pll = Instance(
            "SB_PLL40_PAD",
            p_FEEDBACK_PATH="SIMPLE",
            p_DIVR=self.pll.input_divider - 1,
            p_DIVF=self.pll.feedback_divider - 1,
            p_DIVQ=self.pll.output_exponent,
            p_FILTER_RANGE=self.pll.filter_range,
            i_PACKAGEPIN=self.clk,
            i_RESETB=1,
            i_BYPASS=0,
            o_PLLOUTCORE=made.clk,
            o_LOCK=lock.locked,
        )
        # The gate opens and closes while the clock is low.
        gate = Signal()
        m.d.low += gate.eq(lock.go)
        m.submodules.link = engine = self.engine
        m.d.comb += [low.clk.eq(made.clk), sync.clk.eq(made.clk & gate)]
        m.d.comb += [engine.rx.eq(self.rx), self.tx.eq(engine.tx)]
        for name in ("running", "error"):
            light, pin = getattr(engine, name), self.board.pins[name]
            m.d.comb += getattr(self, name).eq(~light if pin.inverted else light)
        return m


def to_verilog(board: Board, geometry: Geometry, *, clock: int, divisor: int | None = None) -> str:
    """Verilog of ``Top``, whose module and ports have the names of its members."""
    top = Top(board, geometry, clock=clock, divisor=divisor)
    return verilog.convert(top, name="top", emit_src=False)


def to_pcf(board: Board) -> str:
    """Pins for nextpnr-ice40."""
    lines = []
    for port, pin in board.pins.items():
        pull = "-pullup yes " if pin.attributes.get("PULLUP") == "1" and port == "rx" else ""
        lines.append(f"set_io {pull}{port} {pin.ball}\n")
    return "".join(lines)


def synthesise(folder: Path, progress: Progress = silent, timeout: float | None = None) -> None:
    """``top.v`` to the netlist ``top.json``."""
    progress("synthesis", "")
    line = note_progress(progress)
    tools.run(["yosys", "-p", _SCRIPT], folder, timeout=timeout, line=line)


def route(
    folder: Path,
    board: Board,
    clock: int,
    *,
    seed: int,
    progress: Progress = silent,
    timeout: float | None = None,
) -> dict:
    """Place and route ``top.json`` with the pins of ``top.pcf`` to ``routed.config``; nextpnr's
    report. A missed clock is no failure here."""
    progress("placement", "")
    report = folder / f"report-{seed}.json"
    command = ["nextpnr-ice40", "--up5k", "--package", board.package.lower(), "--json", "top.json"]
    command += ["--pcf", "top.pcf", "--asc", "routed.config", "--report", report.name]
    command += ["--freq", f"{clock / 1e6:g}", "--seed", str(seed), "--timing-allow-fail"]
    line = note_progress(progress)
    tools.run(command, folder, log=f"nextpnr-{seed}.log", timeout=timeout, line=line)
    return json.loads(report.read_text())

"""iCE40 UltraPlus: synthesis by yosys, place and route by nextpnr-ice40, icepack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from amaranth.hdl import ClockDomain, Const, DomainRenamer, Instance, IOPort, Module, Signal

from secateur.boards.catalogue.board import Board
from secateur.boards.flow.route import ROUTED, Progress, run_nextpnr, run_yosys, silent
from secateur.boards.flow.tools import Tools
from secateur.boards.flow.top import LOCK_CYCLES, LockFilter, Top, convert
from secateur.hw.compact.serial_array import check_compact
from secateur.hw.link.uart import divisor_for
from secateur.hw.link.uart_top import UartEngine
from secateur.hw.memory.spram import SPRAM_BITS, SPRAM_WORDS, SPRAMS
from secateur.hw.spec import Geometry

TOOLS = Tools("yosys", "nextpnr-ice40", "icepack")
#: SPRAM holds nothing at power-up.
CONTENTS = None
#: Words of the largest ring, which is in block RAM.
RING_WORDS = 1024
#: Flip-flops are in the logic cells.
COUNTED = ("ICESTORM_LC", "", "ICESTORM_RAM", "ICESTORM_DSP")
#: Ranges of frequencies, Hz, and of dividers. Source: the data sheet of the iCE40 PLL.
PHASE_DETECTOR, VCO = (10_000_000, 133_000_000), (533_000_000, 1_066_000_000)
INPUT_DIVIDERS, FEEDBACK_DIVIDERS, OUTPUT_EXPONENTS = range(1, 17), range(1, 129), range(1, 7)
#: FILTER_RANGE for phase detector frequencies below these. Source: icepll of Project IceStorm.
_FILTERS = ((17_000_000, 1), (26_000_000, 2), (44_000_000, 3), (66_000_000, 4), (101_000_000, 5))
#: With the ABC script of the smallest result, and few clock enables: each one needs own tiles.
_SCRIPT = (
    "scratchpad -copy abc9.script.flow3 abc9.script; read_verilog top.v; "
    "synth_ice40 -device u -dffe_min_ce_use 6 -top top -json top.json"
)


@dataclass(frozen=True, kw_only=True)
class Pll40:
    """Dividers of an SB_PLL40 with simple feedback.

    The output is oscillator / ``input_divider`` * ``feedback_divider`` / 2**``output_exponent``.
    """

    input_divider: int
    feedback_divider: int
    output_exponent: int
    filter_range: int

    @classmethod
    def reach(cls, oscillator: int, wanted: int) -> Pll40:
        """Dividers that make exactly ``wanted`` Hz from ``oscillator`` Hz.

        Raises
        ------
        ValueError : there are none
        """
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
            f"a PLL cannot make {wanted / 1e6:g} MHz from {oscillator / 1e6:g} MHz exactly"
        )


def check(board: Board, geometry: Geometry, clock: int) -> None:
    """Refuse an engine that the part cannot hold, or a clock for which PLL or UART has no divider.

    Parameters
    ----------
    board, geometry, clock : as in ``Flow.check``

    Raises
    ------
    ValueError : the message names the limit
    """
    check_compact(geometry)
    if geometry.ring:
        if geometry.ring > RING_WORDS:
            raise ValueError(f"ring must be at most {RING_WORDS} words, not {geometry.ring!r}")
    elif geometry.word_bits > SPRAM_BITS * SPRAMS or geometry.weight_words > SPRAM_WORDS:
        raise ValueError(
            f"weight_words must be at most {SPRAM_WORDS} of {SPRAM_BITS * SPRAMS} bits, not "
            f"{geometry.weight_words!r} of {geometry.word_bits!r}"
        )
    Pll40.reach(board.oscillator, clock)
    divisor_for(clock, board.baud)


class Clock:
    """The engine's clock: a PLL, and a gate that opens when its lock has been held.

    Parameters
    ----------
    pll : dividers of the SB_PLL40_PAD
    """

    def __init__(self, pll: Pll40) -> None:
        self.pll = pll

    def drive(self, m: Module, sync: ClockDomain, oscillator: Signal) -> None:
        """Add PLL and gate to a module.

        Parameters
        ----------
        m, sync, oscillator : as in ``top.Clock.drive``
        """
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
            i_PACKAGEPIN=oscillator,
            i_RESETB=1,
            i_BYPASS=0,
            o_PLLOUTCORE=made.clk,
            o_LOCK=lock.locked,
        )
        # The gate opens and closes while the clock is low.
        gate = Signal()
        m.d.low += gate.eq(lock.go)
        m.d.comb += [low.clk.eq(made.clk), sync.clk.eq(made.clk & gate)]


def to_verilog(
    board: Board,
    geometry: Geometry,
    *,
    clock: int,
    init: Sequence[int] | None = None,
    divisor: int | None = None,
) -> str:
    """Verilog of the top.

    Parameters
    ----------
    board, geometry, clock : as in ``Flow.to_verilog``
    init : must be None: the weight memory is a RAM
    divisor : cycles of a bit on the line; None: by the board's baud rate
    """
    assert init is None
    divisor = divisor_for(clock, board.baud) if divisor is None else divisor
    flash = board.flash.read_at(clock) if geometry.ring else None
    engine = UartEngine(geometry, family="ice40", divisor=divisor, flash=flash)
    made = Clock(Pll40.reach(board.oscillator, clock))
    return convert(Top(board, engine, made, connect_flash))


def connect_flash(m: Module, engine: UartEngine, lines: list[IOPort]) -> None:
    """Connect the lines of the flash.

    Parameters
    ----------
    m, engine, lines : as in ``top.Pads``
    """
    for index, line in enumerate(lines):
        m.submodules[f"flash_line{index}"] = Instance(
            "SB_IO",
            p_PIN_TYPE=Const(0b101001, 6),  # an output that may be off, and an input, as they are
            i_OUTPUT_ENABLE=engine.drive[index],
            i_D_OUT_0=engine.value[index],
            o_D_IN_0=engine.level[index],
            io_PACKAGE_PIN=line,
        )


def to_files(board: Board, clock: int) -> dict[str, str]:
    """The constraints, ``top.pcf``."""
    return {"top.pcf": to_pcf(board)}


def to_pcf(board: Board) -> str:
    """Pins for nextpnr-ice40."""
    lines = []
    for port, pin in board.pins.items():
        pull = "-pullup yes " if pin.attributes.get("PULLUP") == "1" and port == "rx" else ""
        lines.append(f"set_io {pull}{port} {pin.ball}\n")
    return "".join(lines)


def grade(board: Board) -> None:
    """None: there is one speed grade only."""


def synthesise(folder: Path, progress: Progress = silent, timeout: float | None = None) -> None:
    """Make the netlist ``top.json`` from ``top.v``.

    Parameters
    ----------
    folder, progress, timeout : as in ``OpenFlow.synthesise``
    """
    run_yosys(TOOLS, _SCRIPT, folder, progress=progress, timeout=timeout)


def route(folder: Path, board: Board, clock: int, **options) -> dict:
    """Place and route.

    Parameters
    ----------
    folder, board, clock, **options : as in ``OpenFlow.route``

    Returns
    -------
    nextpnr's report
    """
    command = ["nextpnr-ice40", "--up5k", "--package", board.package.lower(), "--json", "top.json"]
    command += ["--pcf", "top.pcf", "--asc", ROUTED, "--freq", f"{clock / 1e6:g}"]
    return run_nextpnr(TOOLS, command, folder, **options)


def pack(folder: Path, config: str, bitstream: str) -> None:
    """Make a bitstream of a placed design.

    Parameters
    ----------
    folder, config, bitstream : as in ``OpenFlow.pack``
    """
    TOOLS.run(["icepack", config, bitstream], folder)

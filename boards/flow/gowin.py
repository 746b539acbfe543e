"""Gowin GW2A: yosys, nextpnr-himbaechel, and the packer of Project Apicula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from amaranth.hdl import ClockDomain, Const, DomainRenamer, Instance, Module, Signal

from secateur.boards.catalogue.board import Board
from secateur.boards.flow.packing import buffer_flip_flops
from secateur.boards.flow.route import ROUTED, Progress, run_nextpnr, run_yosys, silent
from secateur.boards.flow.tools import Tools
from secateur.boards.flow.top import LOCK_CYCLES, LockFilter, Top, convert
from secateur.hw.link.uart import divisor_for
from secateur.hw.link.uart_top import UartEngine
from secateur.hw.spec import Geometry

TOOLS = Tools("yosys", "nextpnr-himbaechel-gowin", "gowin_pack")
#: Images come over the link.
CONTENTS = None
COUNTED = ("LUT4", "DFF", "BSRAM", "MULT18X18")
#: Multipliers of 18 x 18 bits. Source: the data sheet of the GW2A family.
MULTIPLIERS = 48
#: Hz. Source: the same data sheet, for speed grade C8/I7.
PHASE_DETECTOR, VCO = (3_000_000, 500_000_000), (500_000_000, 1_250_000_000)
DIVIDERS, OUTPUT_DIVIDERS = range(1, 65), (2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128)
#: Name of the PLL's output.
PLL_NET = "made"
#: nextpnr's names of parts with their grade, by part and package, and of the die.
PARTS = {("GW2AR-18", "QN88"): "GW2AR-LV18QN88C8/I7"}
DIE = "GW2A-18C"
_SCRIPT = "read_verilog top.v; synth_gowin -family gw2a -top top -json top.json"


@dataclass(frozen=True, kw_only=True)
class PllGowin:
    """Dividers of an ``rPLL`` with internal feedback.

    The output is oscillator / ``input_divider`` * ``feedback_divider``; the VCO runs
    ``output_divider`` times as fast.
    """

    input_divider: int
    feedback_divider: int
    output_divider: int

    @classmethod
    def reach(cls, oscillator: int, wanted: int) -> PllGowin:
        """Dividers that make exactly ``wanted`` Hz from ``oscillator`` Hz.

        Raises
        ------
        ValueError : there are none
        """
        outputs = [d for d in OUTPUT_DIVIDERS if VCO[0] <= wanted * d <= VCO[1]]
        for divider in DIVIDERS:
            reference = Fraction(oscillator, divider)
            feedback = wanted / reference
            inside = PHASE_DETECTOR[0] <= reference <= PHASE_DETECTOR[1]
            if outputs and inside and feedback.denominator == 1 and feedback in DIVIDERS:
                return cls(
                    input_divider=divider,
                    feedback_divider=int(feedback),
                    output_divider=outputs[0],
                )
        raise ValueError(
            f"a PLL cannot make {wanted / 1e6:g} MHz from {oscillator / 1e6:g} MHz exactly"
        )


def check(board: Board, geometry: Geometry, clock: int) -> None:
    """Refuse multipliers that the part cannot hold, or a clock without divider for PLL or UART.

    Parameters
    ----------
    board, geometry, clock : as in ``Flow.check``

    Raises
    ------
    ValueError : the message names the limit
    """
    if geometry.multipliers > MULTIPLIERS:
        raise ValueError(
            f"{geometry.n} x {geometry.p} needs {geometry.multipliers} multipliers, the "
            f"{board.die} has {MULTIPLIERS}"
        )
    PllGowin.reach(board.oscillator, clock)
    divisor_for(clock, board.baud)


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
    engine = UartEngine(geometry, family="gowin", divisor=divisor)
    return convert(Top(board, engine, Clock(board, PllGowin.reach(board.oscillator, clock))))


class Clock:
    """The engine's clock: a PLL, and a gate that opens when its lock has been held.

    Parameters
    ----------
    board : its part and its oscillator
    pll : dividers of the rPLL
    """

    def __init__(self, board: Board, pll: PllGowin) -> None:
        self.board, self.pll = board, pll

    def drive(self, m: Module, sync: ClockDomain, oscillator: Signal) -> None:
        """Add PLL and gate to a module.

        Parameters
        ----------
        m, sync, oscillator : as in ``top.Clock.drive``
        """
        m.domains.oscillator = domain = ClockDomain(reset_less=True, local=True)
        m.d.comb += domain.clk.eq(oscillator)
        made = Signal(name=PLL_NET)
        m.submodules.lock = lock = DomainRenamer("oscillator")(LockFilter(cycles=LOCK_CYCLES))
        m.submodules.pll = self._rpll(oscillator, made, lock.locked)
        m.submodules.gate = Instance("DQCE", i_CLKIN=made, i_CE=lock.go, o_CLKOUT=sync.clk)

    def _rpll(self, oscillator: Signal, made: Signal, locked: Signal) -> Instance:
        """Nothing dynamic, no phase shift, half of the period high."""
        unused = {"FBDSEL": 6, "IDSEL": 6, "ODSEL": 6, "PSDA": 4, "DUTYDA": 4, "FDLY": 4}
        pins = {f"i_{name}": Const(0, bits) for name, bits in unused.items()}
        dynamic = ("IDIV_SEL", "FBDIV_SEL", "ODIV_SEL", "DA_EN")
        return Instance(
            "rPLL",
            **pins,
            **{f"p_DYN_{name}": "false" for name in dynamic},
            p_DEVICE=self.board.die,
            p_FCLKIN=f"{self.board.oscillator / 1e6:g}",
            p_IDIV_SEL=self.pll.input_divider - 1,
            p_FBDIV_SEL=self.pll.feedback_divider - 1,
            p_ODIV_SEL=self.pll.output_divider,
            p_PSDA_SEL="0000",
            p_DUTYDA_SEL="1000",
            p_CLKFB_SEL="internal",
            i_CLKIN=oscillator,
            i_CLKFB=0,
            i_RESET=0,
            i_RESET_P=0,
            o_CLKOUT=made,
            o_LOCK=locked,
        )


def to_files(board: Board, clock: int) -> dict[str, str]:
    """The constraints: pins in ``top.cst``, clocks in ``top.sdc``."""
    return {"top.cst": to_cst(board), "top.sdc": to_sdc(board, clock)}


def to_cst(board: Board) -> str:
    """Pins."""
    lines = []
    for port, pin in board.pins.items():
        attributes = " ".join(f"{key}={value}" for key, value in pin.attributes.items())
        lines += [f'IO_LOC "{port}" {pin.ball};\n', f'IO_PORT "{port}" {attributes};\n']
    return "".join(lines)


def to_sdc(board: Board, clock: int) -> str:
    """The clocks of the PLL, in and out."""
    return (
        f"create_clock -name clk -period {1e9 / board.oscillator:.3f} [get_ports {{clk}}]\n"
        f"create_clock -name {PLL_NET} -period {1e9 / clock:.3f} [get_nets {{{PLL_NET}}}]\n"
    )


def grade(board: Board) -> int:
    """The speed grade of the part on the board, of which there is only one."""
    return 8


def synthesise(folder: Path, progress: Progress = silent, timeout: float | None = None) -> None:
    """Make the netlist ``top.json`` from ``top.v``.

    Parameters
    ----------
    folder, progress, timeout : as in ``OpenFlow.synthesise``
    """
    run_yosys(TOOLS, _SCRIPT, folder, progress=progress, timeout=timeout)
    buffer_flip_flops(folder / "top.json")


def route(folder: Path, board: Board, clock: int, **options) -> dict:
    """Place and route.

    Parameters
    ----------
    folder, board, clock, **options : as in ``OpenFlow.route``

    Returns
    -------
    nextpnr's report
    """
    part = PARTS[board.device, board.package]
    command = ["nextpnr-himbaechel-gowin", "--device", part, "--json", "top.json"]
    command += ["--vopt", f"family={DIE}", "--vopt", "cst=top.cst", "--sdc", "top.sdc"]
    return run_nextpnr(TOOLS, [*command, "--write", ROUTED], folder, **options)


def pack(folder: Path, config: str, bitstream: str) -> None:
    """Make a bitstream of a placed design.

    Parameters
    ----------
    folder, config, bitstream : as in ``OpenFlow.pack``
    """
    TOOLS.run(["gowin_pack", "-d", DIE, "-o", bitstream, config], folder)

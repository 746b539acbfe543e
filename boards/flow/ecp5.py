"""ECP5: synthesis by yosys, place and route by nextpnr-ecp5, bitstreams by Project Trellis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from amaranth.hdl import ClockDomain, Const, DomainRenamer, Instance, IOPort, Module, Signal

from secateur.boards.catalogue.board import Board
from secateur.boards.flow import contents
from secateur.boards.flow.packing import order_flip_flops, restore_names
from secateur.boards.flow.parts.pll import Pll
from secateur.boards.flow.parts.sdram import connect_sdram, sdram_at
from secateur.boards.flow.parts.sites import DIES, PACKAGES, luts, multiplier_sites, multipliers
from secateur.boards.flow.route import ROUTED, Progress, run_nextpnr, run_yosys, silent
from secateur.boards.flow.tools import Tools
from secateur.boards.flow.top import LOCK_CYCLES, LockFilter, Top, convert
from secateur.hw.link.uart import divisor_for
from secateur.hw.link.uart_top import UartEngine
from secateur.hw.spec import Geometry

TOOLS = Tools("yosys", "nextpnr-ecp5", "ecppack")
CONTENTS = contents
COUNTED = ("TRELLIS_COMB", "TRELLIS_FF", "DP16KD", "MULT18X18D")
#: nextpnr's placer weighs time twice as much as by default, with which the 8 x 8 engine on the 45F
#: missed 140 MHz with seed 2 (136.8 MHz instead of 147.6).
PLACER = ("--placer-heap-timingweight", "20")
#: LUTs of a multiplier from logic: yosys' count of one alone.
SOFT_LUTS = 136
#: Flip-flops of half a tile share set and clock enable. Those that fewer than five share become
#: logic, as they leave places empty. The cells are those of ``synth_ecp5``.
FEWER_KINDS = "opt_clean; dfflegalize {} -mince 5 -minsrst 5; opt_merge".format(
    " ".join(
        f"-cell {cell}"
        for cell in (
            "$_DFF_?_ 01", "$_DFF_?P?_ r", "$_SDFF_?P?_ r",
            "$_DFFE_??_ 01", "$_DFFE_?P??_ r", "$_SDFFE_?P??_ r",
        )
    )
)  # fmt: skip
#: Name of the PLL's output.
PLL_NET = "made"
#: Factor of the clock that place and route aim at: they do not improve paths that already meet it.
AIM = 1.25


def check(board: Board, geometry: Geometry, clock: int) -> None:
    """Refuse multipliers that the part cannot hold, or a clock without divider for PLL or UART.

    Those that are not hard are from logic. Whether the rest of the engine fits beside them is for
    place and route to find.

    Parameters
    ----------
    board, geometry, clock : as in ``Flow.check``

    Raises
    ------
    ValueError : the message names the limit
    """
    most = multipliers(board.die) + luts(board.die) // SOFT_LUTS
    if geometry.multipliers > most:
        raise ValueError(
            f"{geometry.n} x {geometry.p} needs {geometry.multipliers} multipliers, the "
            f"{board.die} has {multipliers(board.die)} and logic for "
            f"{luts(board.die) // SOFT_LUTS}"
        )
    clocking(board, clock)
    if board.sdram is not None:
        sdram_at(clock)


def clocking(board: Board, clock: int) -> tuple[Pll, int]:
    """The PLL for an engine's clock in Hz, and the cycles of a bit on the line.

    Raises
    ------
    ValueError : there is no such PLL, or the clock does not give the baud rate
    """
    return Pll.reach(board.oscillator, clock), divisor_for(clock, board.baud)


def to_verilog(
    board: Board, geometry: Geometry, *, clock: int, init: Sequence[int] | None = None
) -> str:
    """Verilog of the top.

    Parameters
    ----------
    board, geometry, clock, init : as in ``Flow.to_verilog``
    """
    pll, divisor = clocking(board, clock)
    bels = multiplier_sites(board.die, geometry.multipliers)
    flash = board.flash.read_at(clock) if geometry.ring else None
    sdram = None if board.sdram is None else sdram_at(clock)
    settings = {"divisor": divisor, "family": "ecp5", "bels": bels, "flash": flash}
    engine = UartEngine(geometry, init=init, sdram=sdram, **settings)
    return convert(Top(board, engine, Clock(pll), connect_flash, connect_sdram))


def connect_flash(m: Module, engine: UartEngine, lines: list[IOPort]) -> None:
    """Connect the lines of the flash; only a primitive reaches the pin of its clock.

    Parameters
    ----------
    m, engine, lines : as in ``top.Pads``
    """
    m.submodules.flash_clock = Instance("USRMCLK", i_USRMCLKI=engine.sck, i_USRMCLKTS=Const(0))
    for index, line in enumerate(lines):
        m.submodules[f"flash_line{index}"] = Instance(
            "BB",
            i_I=engine.value[index],
            i_T=~engine.drive[index],
            o_O=engine.level[index],
            io_B=line,
        )


class Clock:
    """The engine's clock: a PLL, and a gate that opens when its lock has been held.

    Parameters
    ----------
    pll : dividers of the EHXPLLL
    """

    def __init__(self, pll: Pll) -> None:
        self.pll = pll

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
        m.submodules.pll = _pll(self.pll, oscillator, made, lock.locked)
        # Its gate opens and closes between two edges.
        m.submodules.gate = Instance("DCCA", i_CLKI=made, i_CE=lock.go, o_CLKO=sync.clk)


def _pll(pll: Pll, oscillator: Signal, made: Signal, locked: Signal) -> Instance:
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


def to_files(board: Board, clock: int) -> dict[str, str]:
    """The constraints, ``top.lpf``."""
    return {"top.lpf": to_lpf(board, clock)}


def to_lpf(board: Board, clock: int) -> str:
    """Pins and frequencies for nextpnr-ecp5, which is to aim above the engine's clock in Hz."""
    lines = [
        f'FREQUENCY PORT "clk" {board.oscillator / 1e6:g} MHZ;',
        f'FREQUENCY NET "{PLL_NET}" {AIM * clock / 1e6:g} MHZ;',
    ]
    for port, pin in board.pins.items():
        lines.append(f'LOCATE COMP "{port}" SITE "{pin.ball}";')
        attributes = " ".join(f"{key}={value}" for key, value in pin.attributes.items())
        lines.append(f'IOBUF PORT "{port}" {attributes};')
    return "\n".join(lines) + "\n"


def grade(board: Board) -> int:
    """The slowest speed grade of the part."""
    return DIES[board.die][1]


def synthesise(
    folder: Path, progress: Progress = silent, timeout: float | None = None, *, top: str = "top"
) -> None:
    """Make the netlist ``top.json`` from ``top.v``.

    Parameters
    ----------
    folder, progress, timeout : as in ``OpenFlow.synthesise``
    top : the module, in a file of that name
    """
    # Names with brackets, of elements of arrays, are taken for bits of others after ABC9, and
    # yosys 0.70 stops there.
    steps = [
        f"read_verilog {top}.v",
        f"synth_ecp5 -top {top} -run begin:coarse",
        "proc; flatten; rename -hide w:*[[]*",
        f"synth_ecp5 -top {top} -run coarse:map_ffs",
        FEWER_KINDS,
        f"synth_ecp5 -top {top} -run map_ffs: -json {top}.json",
    ]
    run_yosys(TOOLS, "; ".join(steps), folder, progress=progress, timeout=timeout)
    order_flip_flops(folder / f"{top}.json")


def route(folder: Path, board: Board, clock: int, **options) -> dict:
    """Place and route; the clock is in ``top.lpf``.

    Parameters
    ----------
    folder, board, clock, **options : as in ``OpenFlow.route``

    Returns
    -------
    nextpnr's report
    """
    files = ["--json", "top.json", "--lpf", "top.lpf", "--textcfg", ROUTED]
    command = [*part(board.die, PACKAGES[board.package]), *files, *PLACER]
    return restore_names(run_nextpnr(TOOLS, command, folder, **options))


def part(die: str, package: str) -> list[str]:
    """nextpnr, with the options for a part by nextpnr's name of its package."""
    switch, speed = DIES[die]
    return ["nextpnr-ecp5", switch, "--package", package, "--speed", str(speed)]


def pack(folder: Path, config: str, bitstream: str) -> None:
    """Make a bitstream of a placed design.

    Parameters
    ----------
    folder, config, bitstream : as in ``OpenFlow.pack``
    """
    TOOLS.run(["ecppack", "--compress", config, bitstream], folder)

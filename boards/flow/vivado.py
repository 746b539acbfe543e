"""Boards with a Xilinx part: Verilog, constraints and a script for Vivado.

The script has not been run. The tests check that the files agree with each other.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import ClockDomain, Module, Signal

from secateur.boards.catalogue.board import Board
from secateur.boards.flow.top import Top, convert
from secateur.hw.link.uart import divisor_for
from secateur.hw.link.uart_top import UartEngine
from secateur.hw.spec import Geometry

TOOLS = None
COMMAND = "vivado -mode batch -source build.tcl"
_SCRIPT = """\
# vivado -mode batch -source build.tcl
# Writes secateur.bit, or fails if the clock is missed.
set part {part}
read_verilog top.v
read_xdc top.xdc
synth_design -top top -part $part
opt_design
place_design
phys_opt_design
route_design
report_utilization -file utilization.txt
report_timing_summary -file timing.txt
if {{[get_property SLACK [get_timing_paths -delay_type max]] < 0}} {{
    error "the clock of {clock:g} MHz is missed; see timing.txt"
}}
write_bitstream -force secateur.bit
"""


def check(board: Board, geometry: Geometry, clock: int) -> None:
    """Refuse a clock that is not the oscillator's: there is no PLL.

    Parameters
    ----------
    board, geometry, clock : as in ``Flow.check``

    Raises
    ------
    ValueError : there is no such clock, or it does not give the baud rate
    """
    if clock != board.oscillator:
        raise ValueError(
            f"clock must be the oscillator's, {board.oscillator / 1e6:g} MHz, not {clock / 1e6:g}"
        )
    divisor_for(clock, board.baud)


def to_verilog(
    board: Board, geometry: Geometry, *, clock: int, init: Sequence[int] | None = None
) -> str:
    """Verilog of the top, without primitives.

    Parameters
    ----------
    board, geometry, clock, init : as in ``Flow.to_verilog``
    """
    engine = UartEngine(geometry, init=init, divisor=divisor_for(clock, board.baud))
    return convert(Top(board, engine, Clock()))


class Clock:
    """The engine's clock: the oscillator's."""

    def drive(self, m: Module, sync: ClockDomain, oscillator: Signal) -> None:
        """Connect the oscillator.

        Parameters
        ----------
        m, sync, oscillator : as in ``top.Clock.drive``
        """
        m.d.comb += sync.clk.eq(oscillator)


def to_files(board: Board, clock: int) -> dict[str, str]:
    """Constraints and script: ``top.xdc``, ``build.tcl``."""
    script = _SCRIPT.format(part=f"{board.device}{board.package}", clock=clock / 1e6)
    return {"top.xdc": to_xdc(board), "build.tcl": script}


def to_xdc(board: Board) -> str:
    """Pins and the clock."""
    lines = [f"create_clock -name clk -period {1e9 / board.oscillator:.3f} [get_ports {{clk}}]"]
    for port, pin in board.pins.items():
        settings = {"PACKAGE_PIN": pin.ball} | pin.attributes
        text = " ".join(f"{key} {value}" for key, value in settings.items())
        lines.append(f"set_property -dict {{{text}}} [get_ports {{{port}}}]")
    lines += [
        "set_false_path -from [get_ports {rx}]",
        "set_false_path -to [get_ports {tx running error}]",
        "set_property CFGBVS VCCO [current_design]",
        "set_property CONFIG_VOLTAGE 3.3 [current_design]",
    ]
    return "\n".join(lines) + "\n"

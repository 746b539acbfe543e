"""Clock and reset of a LiteX SoC until its program has ended; runs inside the simulator."""

from __future__ import annotations

from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout

LONGEST = 2_000_000  # cycles of the program


@cocotb.test()
async def program(top: Any) -> None:
    Clock(top.clk, 2, "ns").start()
    top.rst.value = 1
    await ClockCycles(top.clk, 4)
    top.rst.value = 0
    await with_timeout(RisingEdge(top.finished), 2 * LONGEST, "ns")

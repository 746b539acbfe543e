"""The cocotb side of ``test_flash.py``: a reset, pauses of the sinks, another reset in between."""

from __future__ import annotations

import os
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge, Timer, with_timeout

CLOCK = 2  # ns


@cocotb.test()
async def run(bench: Any) -> None:
    """Settings: SECATEUR_STALL (of 65536), SECATEUR_AGAIN (cycles until a second reset, or 0)."""
    stall, again = (int(os.environ[f"SECATEUR_{name}"]) for name in ("STALL", "AGAIN"))
    bench.stall.value = stall
    bench.rst.value = 1
    await Timer(10 * CLOCK, "ns")
    bench.rst.value = 0
    if again:
        await Timer(again * CLOCK, "ns")
        bench.rst.value = 1
        await Timer(3 * CLOCK, "ns")
        bench.rst.value = 0
    await with_timeout(RisingEdge(bench.done), 400_000 * CLOCK, "ns")
    await Timer(2 * CLOCK, "ns")

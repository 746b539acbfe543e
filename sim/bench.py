"""The cocotb side of the bench: resets the engine, waits until all is done, closes the files.

Runs inside the simulator; ``secateur.sim.simulate`` starts it with the settings in the environment.
"""

from __future__ import annotations

import os
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge, SimTimeoutError, Timer, with_timeout

CLOCK = 2  # ns, as the bench makes it


@cocotb.test()
async def run(bench: Any) -> None:
    """Settings: SECATEUR_STALL (of 65536), _SEED, _TARGET (result beats), _LIMIT (cycles), _RESET
    (cycles); of a sequence, or 0: _INPUTS and _RESULTS (beats); of a ring, or 0: _BYTES (of the
    image), _INTERVAL (cycles per byte), _LATENCY (cycles of a pass), _REST (cycles)."""
    names = "STALL SEED TARGET LIMIT INPUTS RESULTS RESET BYTES INTERVAL LATENCY REST"
    setting = {name: int(os.environ[f"SECATEUR_{name}"]) for name in names.split()}
    bench.rst.value = 1
    bench.close.value = 0
    bench.stall.value = setting["STALL"]
    bench.seed.value = setting["SEED"]
    bench.target.value = setting["TARGET"]
    bench.sequence_inputs.value = setting["INPUTS"]
    bench.sequence_results.value = setting["RESULTS"]
    bench.image_bytes.value = setting["BYTES"]
    bench.interval.value = setting["INTERVAL"]
    bench.latency.value = setting["LATENCY"]
    bench.rest.value = setting["REST"]
    await Timer(setting["RESET"] * CLOCK, "ns")
    bench.rst.value = 0
    try:
        await with_timeout(RisingEdge(bench.stopped), setting["LIMIT"] * CLOCK, "ns")
        await Timer(20 * CLOCK, "ns")
    except SimTimeoutError:
        cocotb.log.warning("stopped at the limit of %d cycles", setting["LIMIT"])
    bench.close.value = 1
    await Timer(2 * CLOCK, "ns")

"""The cocotb side of ``secateur.sim.pty``: bytes between the terminal and the simulated line."""

from __future__ import annotations

import contextlib
import os
import select
from typing import Any

import cocotb
from cocotb.triggers import Timer

from secateur.hw.link.protocol import END

CLOCK = 2  # ns, as the bench makes it
#: Cycles without a byte after which the link sends nothing more by itself.
REST = 4000
#: Cycles between two looks at the line while an inference runs and no byte is on its way; and
#: between two signs of life while an answer is expected.
STRIDE = 500


@cocotb.test()
async def run(bench: Any) -> None:
    """Settings: SECATEUR_TERMINAL and _STOP (file descriptors; ends when the latter is closed),
    _DIVISOR (cycles of a bit).

    A simulation may take longer for an answer than a driver waits in silence. Hence signs of life:
    delimiters between frames, where they are ignored. The first one announces that the board is up.
    """
    terminal, stop = (int(os.environ[f"SECATEUR_{name}"]) for name in ("TERMINAL", "STOP"))
    os.set_blocking(terminal, False)
    # Bytes are ten bits apart; looks at the line must be less.
    look = 8 * int(os.environ["SECATEUR_DIVISOR"])
    bench.send_go.value = 0
    bench.rst.value = 1
    await Timer(10 * CLOCK, "ns")
    bench.rst.value = 0
    await Timer(10 * CLOCK, "ns")

    def say(byte: int) -> None:
        with contextlib.suppress(BlockingIOError):  # no one reads: the byte is lost
            os.write(terminal, bytes([byte]))

    say(END)
    queue = bytearray()
    sent = taken = silent = 0
    quiet, last = REST, END
    while True:
        resting = quiet >= REST and not queue and not bench.running.value
        if not queue:
            ready, _, _ = select.select([terminal, stop], [], [], None if resting else 0)
            if stop in ready:
                break
            if terminal in ready:
                queue += os.read(terminal, 4096)
        if queue and not bench.sending.value:
            sent ^= 1
            bench.send.value = queue.pop(0)
            bench.send_go.value = sent
            quiet = 0
        step = STRIDE if quiet >= REST and not queue else look
        await Timer(step * CLOCK, "ns")
        quiet += step
        silent += step
        if int(bench.got_go.value) != taken:
            taken ^= 1
            quiet = silent = 0
            last = int(bench.got.value)
            say(last)
        elif last == END and silent >= STRIDE and quiet < REST:
            silent = 0
            say(END)

"""What leaves a source of constant rate: the bytes of pass after pass, and their cycles."""

from __future__ import annotations

from collections.abc import Iterable

from secateur.hw.ring import Source

_BENCH = """
module bench (input wire rst, input wire [16:0] stall, output wire done);
  reg clk = 0;
  always #1 clk = !clk;
  integer now = 0;
  always @(posedge clk) now <= now + 1;
  reg [{cases}-1:0] ended = 0;
  assign done = &ended;
{parts}
endmodule
"""


def bench(parts: Iterable[str], *, cases: int) -> str:
    """Verilog of a bench: a clock, its number, and cases that each set a bit of ``ended``."""
    return _BENCH.format(cases=cases, parts="".join(parts))


def check_passes(found: list[list[int]], source: Source, image: bytes) -> None:
    """The image again and again, at the source's rate: by cycles of bytes that are there.

    Each has the cycle, the byte, and whether it was taken.
    """
    at, begun, taken = 0, None, None
    ready = due = None
    for now, byte, took in found:
        if begun is None:
            begun = now
            assert due is None or now == due, f"byte {at}"
            assert byte == image[at % len(image)], f"byte {at}"
        if took:
            taken, ready, begun = now, begun, None
            at += 1
            due = max(ready + source.interval, taken + 1)
            due += source.latency if at % len(image) == 0 else 0
    assert at >= 3 * len(image)

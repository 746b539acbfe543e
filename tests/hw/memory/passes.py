"""What leaves a source of constant rate: the bytes of pass after pass, and their cycles."""

from __future__ import annotations

from secateur.hw.ring import Source


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

"""A serial line and the link's frames as a test sees them, written from ``link.md`` alone."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field


def stuffed(content: bytes) -> bytes:
    """A frame with a right CRC on the line."""
    whole = content + zlib.crc32(content).to_bytes(4, "little")
    whole = whole.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc")
    return b"\xc0" + whole + b"\xc0"


def request(sequence: int, offset: int, count: int, words: list[int] | None = None, first=False):
    """The line's bytes of a read, or of a write of ``words``."""
    second = offset >> 2 | (0 if words is None else 0x80) | (0x40 if first else 0)
    payload = b"".join(word.to_bytes(4, "little") for word in words or [])
    return stuffed(bytes([sequence, second, count]) + payload)


def frames(line: bytes) -> list[bytes]:
    """What stands in the whole frames of ``line``; a wrong CRC is an error."""
    found = []
    assert line.count(b"\xc0") % 2 == 0
    for part in line.split(b"\xc0"):
        if part:
            whole = part.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")
            assert zlib.crc32(whole[:-4]).to_bytes(4, "little") == whole[-4:]
            found.append(whole[:-4])
    return found


#: Seconds of a cycle of the tests' clock.
CYCLE = 1e-6


async def send_byte(ctx, line, byte: int, divisor: float, *, stop: int = 1) -> None:
    """A byte on a line, for ``divisor`` cycles a bit."""
    for bit in (0, *(byte >> index & 1 for index in range(8)), stop):
        ctx.set(line, bit)
        await ctx.delay(divisor * CYCLE)
    ctx.set(line, 1)


@dataclass
class Listener:
    """Takes bytes from a line; a missing stop bit is an error."""

    line: object
    divisor: int
    got: bytearray = field(default_factory=bytearray)

    async def run(self, ctx) -> None:
        while True:
            await ctx.negedge(self.line)
            bits = []
            await ctx.delay(self.divisor * CYCLE / 2)
            for _ in range(10):
                bits.append(ctx.get(self.line))
                if len(bits) < 10:
                    await ctx.delay(self.divisor * CYCLE)
            assert bits[0] == 0
            assert bits[9] == 1
            self.got.append(sum(bit << index for index, bit in enumerate(bits[1:9])))

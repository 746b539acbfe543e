"""A host's way to a flash: what is sent, what is taken, and that levels keep their distance."""

from __future__ import annotations

import random

from amaranth.sim import Simulator

from secateur.hw.memory.flash_port import FlashPort

LATE = 3  # cycles from the clock's fall until the flash has given its next bit


def run(commands: list[tuple[str, int]]) -> tuple[list[int], list[int], list[int]]:
    """Bytes that the flash has seen, bytes that it gave, and words that the port took.

    ``commands``: "send" a byte, "take", or "select" with 0 or 1.
    """
    port = FlashPort()
    seen, gave, words, bits = list[int](), list[int](), list[int](), list[int]()
    rng = random.Random(len(commands))

    async def host(ctx) -> None:
        for what, value in commands:
            if what == "select":
                ctx.set(port.select, value)
                await ctx.tick().repeat(rng.randrange(1, 4))
                continue
            ctx.set(port.byte, value)
            strobe = port.send if what == "send" else port.take
            ctx.set(strobe, 1)
            await ctx.tick()
            ctx.set(strobe, 0)
            ctx.set(port.byte, rng.randrange(256))
            while ctx.get(port.busy):
                await ctx.tick()
            if what == "take":
                words.append(ctx.get(port.word))
        await ctx.tick().repeat(4)

    async def flash(ctx) -> None:
        """Takes a bit when its clock rises; gives one LATE after it falls, and noise before."""
        clock, since, given, count = 0, 99, rng.getrandbits(1), 0
        async for _ in ctx.tick():
            now, line = ctx.get(port.sck), ctx.get(port.value) & 1
            if ctx.get(port.cs_n):
                assert not now
                bits.clear()
            if now and not clock:
                bits.append(line)
                gave.append(given)
                count += 1
                if len(bits) % 8 == 0:
                    seen.append(int("".join(map(str, bits[-8:])), 2))
            if clock and not now:
                given, since = rng.getrandbits(1), 0
            since += 1
            level = given if since >= LATE else rng.getrandbits(1)
            ctx.set(port.level, level << 1 | rng.getrandbits(4) & 0b1101)
            clock = now

    sim = Simulator(port)
    sim.add_clock(1e-6)
    sim.add_testbench(host)
    sim.add_testbench(flash, background=True)
    sim.run()
    whole = [int("".join(map(str, gave[i : i + 8])), 2) for i in range(0, len(gave), 8)]
    return seen, whole, words


def test_bytes_and_words() -> None:
    """Sent bytes come in order; of a word the first byte is the lowest."""
    rng = random.Random(0)
    commands, sent = [], []
    kinds: list[str] = []
    for _ in range(12):
        commands.append(("select", 1))
        for _ in range(rng.randrange(1, 5)):
            byte = rng.randrange(256)
            commands.append(("send", byte))
            sent.append(byte)
            kinds.append("send")
        for _ in range(rng.randrange(3)):
            commands.append(("take", 0))
            kinds.append("take")
        commands.append(("select", 0))
    seen, gave, words = run(commands)
    at, expected, found = 0, [], []
    for kind in kinds:
        size = 1 if kind == "send" else 4
        if kind == "send":
            found.append(seen[at])
        else:
            expected.append(int.from_bytes(bytes(gave[at : at + 4]), "little"))
        at += size
    assert found == sent
    assert words == expected
    assert at == len(seen) == len(gave)

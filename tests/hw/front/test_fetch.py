# amaranth: UnusedElaboratable=no
"""The fetcher against a naive walk over the program, with random stalls, and without a bubble."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator

from secateur.hw import spec
from secateur.hw.front.fetch import FIFO_DEPTH, Fetcher
from secateur.hw.interfaces import Kind
from secateur.hw.spec import Geometry, Reg

GEOMETRY = Geometry(n=4, p=1, weight_words=256, bank_words=16)
START = GEOMETRY.header_words


def random_program(rng: random.Random) -> tuple[list[int], list[tuple]]:
    """Words of a program, and the fetched words of one inference."""
    n, program, walk = GEOMETRY.n, [], []

    def put(lanes: list[int], common: int) -> int:
        program.append(int.from_bytes(bytes([*lanes, common]), "little"))
        return len(program) - 1

    def lanes() -> list[int]:
        return [rng.getrandbits(8) for _ in range(n)]

    def config(index: int, values: list[int], command: int = 0) -> None:
        raw = [b for value in values for b in value.to_bytes(2, "little")]
        put(raw, index | command)
        turned = [0] * 2
        for i, value in enumerate(values):
            turned[(index + i) % 2] = value
        raw = [b for value in turned for b in value.to_bytes(2, "little")]
        walk.append((Kind.CONFIG, *raw, index | command))

    for _ in range(rng.randint(1, 2)):
        gx, gy, gz = (rng.randint(1, 3) for _ in range(3))
        config(Reg.GX - 1, [rng.getrandbits(16), gx])
        config(Reg.GX + 1, [gy if Reg.GY == Reg.GX + 1 else 0, rng.getrandbits(16)])
        if Reg.GY != Reg.GX + 1:
            config(Reg.GY, [gy, rng.getrandbits(16)])
        if rng.random() < 0.5:
            config(63, [7, 7], spec.COMMON_LOAD)
        config(Reg.GZ, [gz, rng.getrandbits(16)], spec.COMMON_START)
        rows = rng.randint(1, 3)
        for r in range(rows):
            count = rng.choice([8, 8, 9, rng.randint(8, 20)])
            last = r == rows - 1
            for kind, common in (
                (Kind.HEAD_A, count & 0xFF),
                (Kind.HEAD_B, count >> 8 | spec.ROW_LAST * last),
            ):
                head = lanes()
                put(head, common)
                walk.append((kind, *head, common))
            body = [(lanes(), rng.getrandbits(8)) for _ in range(count)]
            for values, common in body:
                put(values, common)
            for y in range(gy):
                for x in range(gx):
                    for z in range(gz):
                        for i, (values, common) in enumerate(body):
                            end = i == count - 1
                            group = end and z == gz - 1
                            line = group and x == gx - 1
                            row = line and y == gy - 1
                            tags = (i == 0, end, group, line, row, row and last)
                            walk.append((Kind.BODY, *values, common, *tags))
    return program, walk


def fetched(payload) -> tuple:
    kind = Kind(payload.kind)
    word = (kind, *payload.lanes, payload.common)
    if kind != Kind.BODY:
        return word
    names = ("first", "pass_last", "group_last", "line_last", "row_last", "layer_last")
    return (*word, *(bool(payload[name]) for name in names))


@pytest.mark.parametrize("latency", [3, spec.MIN_ROW_WORDS - 3])
@pytest.mark.parametrize("stall", [0.0, 0.6])
def test_walk(latency: int, stall: float) -> None:
    rng = random.Random(f"{latency} {stall}")
    for _ in range(3):
        program, walk = random_program(rng)
        if len(program) + START <= GEOMETRY.weight_words:
            check(program, walk * 2, latency, stall, rng)


def check(program, walk, latency, stall, rng) -> None:
    dut = Fetcher(geometry=GEOMETRY, latency=latency)
    got, stuck = [], 0

    async def memory(ctx) -> None:
        pipe = [0] * latency
        async for _, _, address in ctx.tick().sample(dut.mem_addr):
            # `address` stood before this edge: its data stand `latency` edges later.
            word = program[address - START] if 0 <= address - START < len(program) else 0
            pipe.append(word)
            ctx.set(dut.mem_data, pipe[-latency])

    async def bench(ctx) -> None:
        nonlocal stuck
        ctx.set(dut.last, START + len(program) - 1)
        await ctx.tick().repeat(4)
        ctx.set(dut.enable, 1)
        await ctx.tick().repeat(3 * FIFO_DEPTH)
        while len(got) < len(walk):
            ready = rng.random() >= stall
            ctx.set(dut.output.ready, ready)
            _, _, valid, payload = await ctx.tick().sample(dut.output.valid, dut.output.payload)
            if valid and ready:
                got.append(fetched(payload))
            elif not valid:
                stuck += 1

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(memory, background=True)
    simulator.add_testbench(bench)
    simulator.run()
    assert got == walk
    assert stuck == 0


def test_short_row_is_marked() -> None:
    for count in (0, 1, spec.MIN_ROW_WORDS - 1, spec.MIN_ROW_WORDS):
        words = [0x80 << 32, count << 32, 0x80 << 32, *[0] * 20]
        dut = Fetcher(geometry=GEOMETRY, latency=3)
        bad = []

        async def memory(ctx, dut=dut, words=words) -> None:
            pipe = [0] * 3
            async for _, _, address in ctx.tick().sample(dut.mem_addr):
                pipe.append(words[min(address - START, len(words) - 1)])
                ctx.set(dut.mem_data, pipe[-3])

        async def bench(ctx, dut=dut, bad=bad) -> None:
            ctx.set(dut.last, 200)
            ctx.set(dut.enable, 1)
            ctx.set(dut.output.ready, 1)
            while not bad:
                _, _, valid, payload = await ctx.tick().sample(dut.output.valid, dut.output.payload)
                if valid and Kind(payload.kind) == Kind.HEAD_B:
                    bad.append(payload.first)

        simulator = Simulator(dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(memory, background=True)
        simulator.add_testbench(bench)
        simulator.run()
        assert bad == [count < spec.MIN_ROW_WORDS]


def test_latency_is_limited() -> None:
    with pytest.raises(ValueError, match="latency must be at most 5 cycles, not 6"):
        Fetcher(geometry=GEOMETRY, latency=6)

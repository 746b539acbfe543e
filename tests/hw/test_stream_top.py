# amaranth: UnusedElaboratable=no
"""The ports of the engine around a command: nothing that is offered is lost, nothing old comes."""

from __future__ import annotations

from pathlib import Path

import pytest
from amaranth.sim import Simulator

from secateur.hw.engine import SETTLE_CYCLES, Engine
from secateur.hw.spec import Geometry
from secateur.hw.stream_top import StreamEngine
from secateur.sim.golden import parse, run
from tests.support.programs import random_program

ROOT = Path(__file__).resolve().parents[2]
GEOMETRY = Geometry(n=2, p=2, weight_words=1024, bank_words=64)


@pytest.mark.parametrize("wait", [0, 1, 2, 3, 5, 70])
@pytest.mark.parametrize("command", ["reset", "restart"])
def test_offers_after_a_command(command: str, wait: int) -> None:
    """What is offered ``wait`` cycles after the pulse, or all the time since, is taken once."""
    sample = random_program(5, GEOMETRY, layers=2)
    inputs = sample.inputs(2)
    want = run(parse(sample.image, GEOMETRY), inputs, sequential=True).results
    n = GEOMETRY.n
    dut = StreamEngine(Engine(GEOMETRY))
    words = [[row.tobytes()[at : at + n] for at in range(0, row.nbytes, n)] for row in inputs]

    async def offer(ctx, port, items: list[int]) -> None:
        for item in items:
            ctx.set(port.payload, item)
            ctx.set(port.valid, 1)
            ready = 0
            while not ready:
                _, _, ready = await ctx.tick().sample(port.ready)
        ctx.set(port.valid, 0)

    async def take(ctx, count: int) -> bytes:
        got = b""
        ctx.set(dut.result.ready, 1)
        while len(got) < count:
            _, _, valid, payload = await ctx.tick().sample(dut.result.valid, dut.result.payload)
            got += payload.to_bytes(n, "little") if valid else b""
        ctx.set(dut.result.ready, 0)
        return got

    async def watch(ctx) -> None:
        for _ in range(5_000):  # an engine that has lost a word waits for ever
            await ctx.tick()
            if ended:
                return

    async def bench(ctx) -> None:
        whole = sample.image if command == "restart" else sample.image[: len(sample.image) // 2]
        await offer(ctx, dut.image, list(whole))
        if command == "restart":  # a result waits, and a part of the next input is there
            first = [int.from_bytes(word, "little") for word in words[0]]
            await offer(ctx, dut.input, [*first, *first[: len(first) // 2]])
            while not ctx.get(dut.result.valid):
                await ctx.tick()
        ctx.set(getattr(dut.control, command), 1)
        await ctx.tick()
        ctx.set(getattr(dut.control, command), 0)
        for _ in range(wait):
            await ctx.tick()
        if command == "reset":
            await offer(ctx, dut.image, list(sample.image))
        for row, results in zip(words[::-1], want[::-1], strict=True):
            await offer(ctx, dut.input, [int.from_bytes(word, "little") for word in row])
            assert await take(ctx, results.nbytes) == results.tobytes()
        ended.append(True)

    ended: list[bool] = []
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench, background=True)
    simulator.add_testbench(watch)
    simulator.run()
    assert ended


def test_the_documentation_says_how_long() -> None:
    assert f"for {SETTLE_CYCLES} cycles" in (ROOT / "docs" / "reference" / "engine.md").read_text()

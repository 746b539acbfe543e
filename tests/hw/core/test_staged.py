# amaranth: UnusedElaboratable=no
"""The engine behind its registers, with stages on the ways of inputs and results."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from secateur.hw.engine import Engine
from secateur.hw.soc.bridge import REQUEST, RESPONSE
from secateur.hw.soc.registers import BY_NAME, field
from secateur.hw.soc.soc import add_registers
from secateur.hw.spec import Geometry
from secateur.sim.golden import parse, run
from tests.support.programs import random_program

GEOMETRY = Geometry(n=2, p=2, weight_words=1024, bank_words=64)


class Staged(wiring.Component):
    """Requests to the registers of an engine with an image in ROM."""

    def __init__(self, init: list[int]) -> None:
        self.engine = Engine(GEOMETRY, init=init)
        super().__init__(
            {"request": In(stream.Signature(REQUEST)), "response": Out(stream.Signature(RESPONSE))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        registers, outlet = add_registers(m, self.engine, staged=True)
        wiring.connect(m, wiring.flipped(self.request), registers.request)
        wiring.connect(m, registers.response, wiring.flipped(self.response))
        m.d.comb += [outlet.by_register.eq(1), outlet.ready.eq(1)]
        return m


def test_inferences_and_restarts() -> None:
    """Results are the golden ones, also after a restart that leaves words on both ways."""
    sample = random_program(1, GEOMETRY, layers=2)
    size = GEOMETRY.word_bytes
    words = [sample.image[at : at + size] for at in range(0, len(sample.image), size)]
    inputs = sample.inputs(2)
    want = run(parse(sample.image, GEOMETRY), inputs, sequential=True).results
    dut = Staged([int.from_bytes(word, "little") for word in words])

    async def access(ctx, name: str, value: int | None = None) -> int:
        """What a register holds, or, with a value, whether the write was refused."""
        payload = {"write": value is not None, "address": BY_NAME[name].offset >> 2}
        ctx.set(dut.request.payload, payload | {"data": value or 0, "strobe": 15})
        ctx.set(dut.request.valid, 1)
        ready = 0
        while not ready:
            _, _, ready = await ctx.tick().sample(dut.request.ready)
        ctx.set(dut.request.valid, 0)
        ctx.set(dut.response.ready, 1)
        valid = 0
        while not valid:
            _, _, valid, response = await ctx.tick().sample(
                dut.response.valid, dut.response.payload
            )
        ctx.set(dut.response.ready, 0)
        return response.error if value is not None else response.data

    async def flag(ctx, part: str) -> int:
        return await access(ctx, "STATUS") >> field("STATUS", part).low & 1

    async def send(ctx, tensor: bytes) -> None:
        for at in range(0, len(tensor), GEOMETRY.n):
            while not await flag(ctx, "INPUT_READY"):
                pass
            word = int.from_bytes(tensor[at : at + GEOMETRY.n], "little")
            assert not await access(ctx, "INPUT", word)

    async def take(ctx, count: int) -> bytes:
        got = b""
        for _ in range(count):
            while not await flag(ctx, "RESULT_VALID"):
                pass
            got += (await access(ctx, "RESULT")).to_bytes(GEOMETRY.n, "little")
        return got

    async def bench(ctx) -> None:
        assert not await access(ctx, "MODE", 1)
        for cut, first in ((inputs[0].tobytes(), True), (inputs[1].tobytes()[:6], False)):
            await send(ctx, cut)
            if first:  # results wait at every place
                assert await take(ctx, 1) == want[0].tobytes()[: GEOMETRY.n]
                await ctx.tick().repeat(200)
            assert not await access(ctx, "CONTROL", 1 << field("CONTROL", "RESTART").low)
            assert not await flag(ctx, "RESULT_VALID")
        for tensor, results in zip(inputs, want, strict=True):
            await send(ctx, tensor.tobytes())
            assert await take(ctx, len(results)) == results.tobytes()
        await ctx.tick().repeat(100)
        assert not await flag(ctx, "RESULT_VALID")

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()

# amaranth: UnusedElaboratable=no
"""The register on the way of a stream: order, back-pressure, clearing; proven for all inputs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from amaranth.hdl import Assert, Elaboratable, Module, Signal
from amaranth.sim import Simulator

from secateur.hw.register_slice import Stage
from tests.hw.proofs import prove


@pytest.mark.parametrize("stall", [0.0, 0.7])
@pytest.mark.parametrize("gap", [0.0, 0.7])
def test_order(stall: float, gap: float) -> None:
    rng = random.Random(1)
    dut = Stage(8)
    words = [rng.getrandbits(8) for _ in range(200)]
    got: list[int] = []
    cycles = 0

    async def write(ctx) -> None:
        for word in words:
            while rng.random() < gap:
                await ctx.tick()
            ctx.set(dut.input.valid, 1)
            ctx.set(dut.input.payload, word)
            ready = 0
            while not ready:
                _, _, ready = await ctx.tick().sample(dut.input.ready)
            ctx.set(dut.input.valid, 0)

    async def read(ctx) -> None:
        nonlocal cycles
        while len(got) < len(words):
            ready = rng.random() >= stall
            ctx.set(dut.output.ready, ready)
            _, _, valid, payload = await ctx.tick().sample(dut.output.valid, dut.output.payload)
            cycles += 1
            if valid and ready:
                got.append(payload)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(write)
    simulator.add_testbench(read)
    simulator.run()
    assert got == words
    if stall == gap == 0:
        assert cycles == 2 * len(words)


class Model(Elaboratable):
    """The stage beside a word that may be there or not; ``fault`` forgets to clear it."""

    def __init__(self, fault: bool) -> None:
        self.fault = fault
        self.valid, self.ready, self.value, self.clear = (Signal() for _ in range(4))
        self.inputs = [self.valid, self.ready, self.value, self.clear]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.stage = stage = Stage(1)
        there = Signal()
        word = Signal()
        m.d.comb += [
            stage.input.valid.eq(self.valid),
            stage.input.payload.eq(self.value),
            stage.output.ready.eq(self.ready),
            stage.clear.eq(self.clear),
            # What came is offered, and nothing else; only what is not there can come.
            Assert(stage.output.valid == there),
            Assert(stage.input.ready == ~there),
            Assert(~there | (stage.output.payload == word)),
        ]
        with m.If(self.valid & stage.input.ready):
            m.d.sync += [there.eq(1), word.eq(self.value)]
        with m.If(stage.output.valid & self.ready):
            m.d.sync += there.eq(0)
        if not self.fault:
            with m.If(self.clear):
                m.d.sync += there.eq(0)
        return m


@pytest.mark.parametrize("fault", [False, True])
def test_proof(fault: bool, tmp_path: Path) -> None:
    top = Model(fault)
    passed, log = prove(top, top.inputs, tmp_path, mode="prove", depth=3)
    assert passed == (not fault), log[-2000:]


def test_shape_is_checked() -> None:
    with pytest.raises(ValueError, match="shape must have at least 1 bit, not 0"):
        Stage(0)

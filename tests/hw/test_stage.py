# amaranth: UnusedElaboratable=no
"""The register on the way of a stream: order, back-pressure, clearing; proven for all inputs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from amaranth.hdl import Assert, Assume, Cat, Elaboratable, Module, Mux, Signal
from amaranth.sim import Simulator

from secateur.hw.register_slice import Skid, Stage
from tests.hw.proofs import prove


@pytest.mark.parametrize("kind", [Stage, Skid])
@pytest.mark.parametrize("stall", [0.0, 0.7])
@pytest.mark.parametrize("gap", [0.0, 0.7])
def test_order(kind: type, stall: float, gap: float) -> None:
    rng = random.Random(1)
    dut = kind(8)
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
        assert cycles == (2 * len(words) if kind is Stage else len(words) + 1)


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


class SkidModel(Elaboratable):
    """A ``Skid`` beside a queue without end; it holds two words at most, and keeps their order."""

    def __init__(self, most: int) -> None:
        self.most, self.watched, self.number = most, Signal(4), Signal(4)
        self.gives, self.takes, self.word = Signal(), Signal(), Signal(4)
        self.inputs = [self.watched, self.number, self.gives, self.takes, self.word]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = Skid(4)
        came, left, begun = Signal(4), Signal(4), Signal()
        before = Signal(8)
        both = Cat(self.watched, self.number)
        m.d.sync += [before.eq(both), begun.eq(1)]
        m.d.comb += [
            Assume(~begun | (before == both)),
            dut.input.valid.eq(self.gives),
            dut.input.payload.eq(Mux(came == self.number, self.watched, self.word)),
            dut.output.ready.eq(self.takes),
            Assert((came - left)[:4] <= self.most),
            Assert(dut.output.valid == (came != left)),
            Assert(
                ~dut.output.valid | (left != self.number) | (dut.output.payload == self.watched)
            ),
        ]
        m.d.sync += [
            came.eq(came + (dut.input.valid & dut.input.ready)),
            left.eq(left + (dut.output.valid & dut.output.ready)),
        ]
        return m


@pytest.mark.parametrize("most", [2, 1])
def test_proof_of_two_words(most: int, tmp_path: Path) -> None:
    """The proof can fail: it does hold two."""
    top = SkidModel(most)
    passed, log = prove(top, top.inputs, tmp_path, mode="bmc", depth=12)
    assert passed == (most == 2), log[-2000:]

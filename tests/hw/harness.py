"""Runs an Engine in Amaranth's simulator: host processes with seeded stalls."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass, field

from amaranth.sim import Simulator

from secateur.hw.engine import Engine
from secateur.hw.spec import Error, Geometry, Status, words_of


@dataclass
class Outcome:
    """What a host has seen. ``ticks`` of a result stream are the cycles of its beats."""

    results: list[bytes] = field(default_factory=list)
    trace: list[tuple[int, int, bytes, bool]] = field(
        default_factory=list
    )  # layer, m, data, result
    cycles: list[int] = field(default_factory=list)
    state: Status = Status.LOADING
    error: Error = Error.NONE
    image_bytes: int = 0


async def send(ctx, stream, payloads, rng: random.Random, stall: float, count=None) -> None:
    """Send payloads; between two of them, with probability ``stall``, a few idle cycles."""
    for payload in payloads:
        if rng.random() < stall:
            ctx.set(stream.valid, 0)
            await ctx.tick().repeat(rng.randint(1, 12))
        ctx.set(stream.payload, payload)
        ctx.set(stream.valid, 1)
        ready = False
        while not ready:
            _, _, ready = await ctx.tick().sample(stream.ready)
        if count is not None:
            count()
    ctx.set(stream.valid, 0)


def run_engine(
    geometry: Geometry,
    image: bytes,
    inputs=(),
    *,
    rom: bool = False,
    stall: float = 0.0,
    seed: int = 0,
    limit: int = 20000,
    settle: int = 40,
) -> Outcome:
    """Load ``image``, feed ``inputs`` (rows of uint8), until all inferences have ended.

    Ends, too, with an error or after ``limit`` cycles.
    """
    bench = Bench(geometry, image) if rom else _bench(geometry)
    return bench.run(image, inputs, stall=stall, seed=seed, limit=limit, settle=settle)


@functools.lru_cache(maxsize=2)
def _bench(geometry: Geometry) -> Bench:
    """One bench for many runs: to elaborate an engine takes longer than most of them."""
    return Bench(geometry, None)


class Bench:
    """An engine in a simulator, with ``rom`` in its ROM, for one run after the other."""

    def __init__(self, geometry: Geometry, rom: bytes | None) -> None:
        self.n, self.rom = geometry.n, rom
        self.outcome: Outcome | None = None
        self.dut = Engine(
            geometry, init=None if rom is None else words_of(rom, geometry.word_bytes)
        )
        self.simulator = Simulator(self.dut)
        self.simulator.add_clock(1e-6)
        for process in (self._load, self._feed, self._take):
            self.simulator.add_testbench(process, background=True)
        self.simulator.add_testbench(self._watch)

    def run(
        self, image: bytes, inputs, *, stall: float, seed: int, limit: int, settle: int
    ) -> Outcome:
        self.image, self.inputs = image, inputs
        self.stall, self.seed, self.limit, self.settle = stall, seed, limit, settle
        if self.outcome is not None:
            self.simulator.reset()
        self.outcome = Outcome()
        self.simulator.run()
        return self.outcome

    async def _load(self, ctx) -> None:
        def count() -> None:
            self.outcome.image_bytes += 1

        if self.rom is None:
            await send(ctx, self.dut.image, self.image, random.Random(self.seed), 0.0, count)

    async def _feed(self, ctx) -> None:
        words = [w for row in self.inputs for w in words_of(bytes(row), self.n)]
        await send(ctx, self.dut.input, words, random.Random(self.seed + 1), self.stall)

    async def _take(self, ctx) -> None:
        rng, result = random.Random(self.seed + 2), self.dut.result
        while True:
            ctx.set(result.ready, rng.random() >= self.stall)
            _, _, valid, ready, payload = await ctx.tick().sample(
                result.valid, result.ready, result.payload
            )
            if valid and ready:
                self.outcome.results.append(int(payload).to_bytes(self.n, "little"))

    async def _watch(self, ctx) -> None:
        ended, left, outcome = 0, self.settle, self.outcome
        trace, status = self.dut.trace, self.dut.status
        for _ in range(self.limit):
            (
                _,
                _,
                valid,
                given,
                layer,
                m,
                data,
                result,
                inferences,
                cycles,
                error,
            ) = await ctx.tick().sample(
                trace.valid,
                trace.input,
                trace.layer,
                trace.m,
                trace.data,
                trace.result,
                status.inferences,
                status.cycles,
                status.error,
            )
            if valid:
                codes = int(data).to_bytes(self.n, "little")
                outcome.trace.append((0 if given else layer, m, codes, bool(result)))
            if inferences != ended:
                ended = inferences
                outcome.cycles.append(cycles)
            if Error(error) != Error.NONE or 0 < len(self.inputs) == ended:
                left -= 1
                if left == 0:
                    break
        outcome.state = Status(ctx.get(status.state))
        outcome.error = Error(ctx.get(status.error))

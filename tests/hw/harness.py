"""Runs an Engine in Amaranth's simulator: host processes with seeded stalls."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from amaranth.sim import Simulator

from secateur.hw.engine import Engine
from secateur.hw.spec import Error, Geometry, Status


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


def words_of(image: bytes, geometry: Geometry) -> list[int]:
    size = geometry.word_bytes
    return [int.from_bytes(image[at : at + size], "little") for at in range(0, len(image), size)]


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
    n = geometry.n
    dut = Engine(geometry, init=words_of(image, geometry) if rom else None)
    outcome = Outcome()
    words = [w for row in inputs for w in words_of(bytes(row), _Bytes(n))]

    def count() -> None:
        outcome.image_bytes += 1

    async def load(ctx) -> None:
        if not rom:
            await send(ctx, dut.image, image, random.Random(seed), 0.0, count)

    async def feed(ctx) -> None:
        await send(ctx, dut.input, words, random.Random(seed + 1), stall)

    async def take(ctx) -> None:
        rng = random.Random(seed + 2)
        while True:
            ctx.set(dut.result.ready, rng.random() >= stall)
            _, _, valid, ready, payload = await ctx.tick().sample(
                dut.result.valid, dut.result.ready, dut.result.payload
            )
            if valid and ready:
                outcome.results.append(int(payload).to_bytes(n, "little"))

    async def watch(ctx) -> None:
        ended, left = 0, settle
        trace, status = dut.trace, dut.status
        for _ in range(limit):
            (
                _,
                _,
                valid,
                layer,
                m,
                data,
                result,
                inferences,
                cycles,
                error,
            ) = await ctx.tick().sample(
                trace.valid,
                trace.layer,
                trace.m,
                trace.data,
                trace.result,
                status.inferences,
                status.cycles,
                status.error,
            )
            if valid:
                outcome.trace.append((layer, m, int(data).to_bytes(n, "little"), bool(result)))
            if inferences != ended:
                ended = inferences
                outcome.cycles.append(cycles)
            if Error(error) != Error.NONE or (inputs is not None and 0 < len(inputs) == ended):
                left -= 1
                if left == 0:
                    break
        outcome.state = Status(ctx.get(status.state))
        outcome.error = Error(ctx.get(status.error))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for process in (load, feed, take):
        simulator.add_testbench(process, background=True)
    simulator.add_testbench(watch)
    simulator.run()
    return outcome


@dataclass(frozen=True)
class _Bytes:
    """Words of ``word_bytes`` bytes."""

    word_bytes: int

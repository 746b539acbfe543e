"""Run an image on the Verilog of the engine, in Verilator, and compare it with the golden run."""

from __future__ import annotations

import functools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from secateur.disk.storage import write_atomically
from secateur.hw import spec
from secateur.hw.ring import Source
from secateur.hw.spec import Error, Geometry, Status
from secateur.sim import drivers, verilator, wrapper
from secateur.sim.drivers import Bytes, StatusChange, TraceBeat
from secateur.sim.golden import ImageError, Program, Run, parse, result_words

_FOREVER = (1 << 32) - 1
RESET_CYCLES = 10


@dataclass(frozen=True)
class SimResult:
    """A batch on the engine, one inference after the other.

    Attributes
    ----------
    results : uint8 (beats, N), of all inferences
    trace : drained pixels, per inference
    cycles : ``status.cycles``, per inference
    ends : cycle in which it ended, per inference
    memory_waits : ``status.memory_wait``, per inference
    upset : ``status.upset`` at the end
    state, error : of the engine at the end
    status : all changes of the state
    total : cycles simulated
    seconds : that they took
    """

    results: Bytes
    trace: list[list[TraceBeat]]
    cycles: list[int]
    ends: list[int]
    memory_waits: list[int]
    upset: bool
    state: Status
    error: Error
    status: list[StatusChange]
    total: int
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """An engine's run beside the golden interpreter's.

    Attributes
    ----------
    mismatches : a line each; empty if all is equal
    layers_compared : over all inferences
    cycles : of the longest inference in the engine
    golden_cycles : of an inference in the golden interpreter
    """

    mismatches: list[str]
    layers_compared: int
    cycles: int
    golden_cycles: int


@functools.lru_cache(maxsize=8)
def engine_verilog(geometry: Geometry, init: bytes | None = None) -> str:
    """Verilog of the engine; with ``init`` the image is in its ROM."""
    from secateur.hw.verilog import to_verilog

    words = None if init is None else spec.words_of(init, geometry.word_bytes)
    return str(to_verilog(geometry, init=words))


def build(
    geometry: Geometry, *, verilog: str | None = None, rom: bytes | None = None, waves: bool = False
) -> Path:
    """The simulator's executable for an engine, from the cache or built now.

    Parameters
    ----------
    geometry : of the engine
    verilog : of the engine; None: exported now
    rom : bytes of an image that is built into the engine, or None
    waves : build in waveforms, which costs speed

    Raises
    ------
    SimulationError : a tool fails
    """
    engine = engine_verilog(geometry, rom) if verilog is None else verilog
    bench = wrapper.bench_verilog(geometry, rom=rom is not None)
    return verilator.build(engine + bench, wrapper.public_ports(), waves=waves)


def simulate(
    image: bytes,
    inputs: Bytes,
    geometry: Geometry,
    *,
    verilog: str | None = None,
    rom: bool = False,
    stalls: float = 0.0,
    seed: int = 0,
    waves: Path | None = None,
    limit: int | None = None,
    steps: int = 0,
    power_up: int | None = None,
    reset_cycles: int = RESET_CYCLES,
    source: Source | None = None,
) -> SimResult:
    """Load an image and run all inputs, one after the other in one simulation.

    It ends when all results are there, at an ERROR, or at the limit. An engine that stops early is
    not an exception.

    Parameters
    ----------
    image : bytes of the image, with metadata or without
    inputs : uint8 (batch, input words * N)
    geometry : of the engine
    verilog : of the engine; None: exported now
    rom : the image is built into the engine
    stalls : probability with which any source or sink pauses in a cycle, 0 to below 1
    seed : of the pauses
    waves : file for waveforms (FST)
    limit : most cycles to simulate; None: enough for any correct engine
    steps : the engine restarts after so many inferences, the steps of a sequence; 0: never
    power_up : seed of registers and memories without an initial value; None: they are zero
    reset_cycles : cycles for which ``rst`` is high
    source : of a geometry with a ring; the first input comes when the ring is full

    Raises
    ------
    SimulationError : a tool fails
    """
    if not 0.0 <= stalls < 1.0:
        raise ValueError(f"stalls must be 0 to below 1, not {stalls!r}")
    plan = _plan(image, inputs, geometry, steps)
    rates = _rates(plan, geometry, source or Source(), rests=not stalls)
    if limit is None:
        needed = len(plan.image) * 4 + plan.cycles
        if geometry.ring:  # a pass for each inference and each restart, and two at the start
            a_pass = len(plan.image) * rates["INTERVAL"] + rates["LATENCY"]
            needed += rates["REST"] + (len(inputs) + 2) * (2 if steps else 1) * a_pass
        limit = int(needed / (1 - stalls) ** 2 * 1.5) + 20_000
    settings = {f"SECATEUR_{name}": value for name, value in rates.items()} | {
        "SECATEUR_STALL": round(stalls * 65536),
        "SECATEUR_SEED": seed + 1,
        "SECATEUR_LIMIT": limit,
        "SECATEUR_RESET": reset_cycles,
    }
    built_in = plan.image if rom else None
    program = build(geometry, verilog=verilog, rom=built_in, waves=waves is not None)
    return _run(program, plan, inputs, geometry, settings, waves, power_up)


def _rates(plan: _Plan, geometry: Geometry, source: Source, *, rests: bool) -> dict[str, int]:
    """Settings of the source of a ring; with ``rests`` the first input comes when it is full."""
    filling = geometry.ring * geometry.word_bytes + len(plan.image)
    rest = filling * source.interval + source.latency + 10_000
    return {
        "BYTES": len(plan.image),
        "INTERVAL": source.interval,
        "LATENCY": source.latency,
        "REST": rest if geometry.ring and rests else 0,
    }


class _Plan(NamedTuple):
    """Beats that the bench sends and expects; ``inputs`` and ``results`` of a sequence, or 0."""

    image: bytes
    cycles: int  # enough for a correct engine, streams without a pause
    target: int  # result beats
    inputs: int  # beats
    results: int  # beats


def _plan(image: bytes, inputs: Bytes, geometry: Geometry, steps: int) -> _Plan:
    width = inputs.shape[1] // geometry.n
    program = _program(image, geometry)
    if program is None:
        return _Plan(image, 100_000, _FOREVER, steps * width, 0)
    beats = result_beats(program)
    return _Plan(
        image[: program.words.size],
        _cycles_needed(program, len(inputs), width, steps),
        len(inputs) * beats,
        steps * width,
        steps * beats,
    )


def _run(
    program: Path,
    plan: _Plan,
    inputs: Bytes,
    geometry: Geometry,
    settings: dict[str, int],
    waves: Path | None,
    power_up: int | None,
) -> SimResult:
    settings = settings | {
        "SECATEUR_TARGET": plan.target,
        "SECATEUR_INPUTS": plan.inputs,
        "SECATEUR_RESULTS": plan.results,
    }
    with tempfile.TemporaryDirectory(prefix="secateur-") as name:
        folder = Path(name)
        drivers.write_image(folder, plan.image)
        drivers.write_inputs(folder, inputs, geometry.n)
        began = time.monotonic()
        traced = None if waves is None else folder / "waves.fst"
        try:
            verilator.execute(
                program,
                folder,
                "secateur.sim.bench",
                {name: str(value) for name, value in settings.items()},
                waves=traced,
                power_up=power_up,
            )
        finally:
            if waves is not None and traced is not None and traced.exists():
                write_atomically(waves, traced.read_bytes())
        seconds = time.monotonic() - began
        status, total = drivers.read_status(folder)
        trace = drivers.read_trace(folder)
        return SimResult(
            results=drivers.read_results(folder, geometry.n),
            trace=_by_inference(trace, len(inputs), inputs.shape[1] // geometry.n),
            cycles=[s.cycles for s in status if s.before == Status.RUNNING],
            ends=[s.now for s in status if s.before == Status.RUNNING],
            memory_waits=[s.memory_wait for s in status if s.before == Status.RUNNING],
            upset=bool(status[-1].upset) if status else False,
            state=Status(status[-1].state if status else 0),
            error=Error(status[-1].error if status else 0),
            status=status,
            total=total,
            seconds=seconds,
        )


def _program(image: bytes, geometry: Geometry) -> Program | None:
    """None for bytes that are not an image of this geometry: the engine is to find that out."""
    try:
        return parse(image, geometry)
    except ImageError:
        return None


def _cycles_needed(program: Program, inferences: int, width: int, steps: int) -> int:
    """Enough for a correct engine, streams without a pause."""
    geometry = program.geometry
    restarts = inferences // steps if steps else 0
    prologue = geometry.tables * spec.TABLE_ENTRIES * 2
    return inferences * (program.cycles + width) + (1 + restarts) * (
        geometry.bank_words + prologue + 200
    )


def _by_inference(trace: list[TraceBeat], inferences: int, width: int) -> list[list[TraceBeat]]:
    """Beats per inference; input words may come while the inference before runs."""
    found: list[list[TraceBeat]] = [[] for _ in range(inferences)]
    words = 0
    for beat in trace:
        number = words // max(width, 1) if beat.given else beat.ended
        words += beat.given
        found[min(number, inferences - 1)].append(beat)
    return found


def result_beats(program: Program) -> int:
    """Beats of the result stream of one inference."""
    return len(result_words(program))


def compare(result: SimResult, golden: Run, inputs: Bytes) -> Comparison:
    """Compare every input word, every pixel of every layer and the result stream.

    Parameters
    ----------
    result : of ``simulate``
    golden : run of the same inputs with ``sequential=True`` (or without, if no layer reads stale
        bytes)
    inputs : uint8 (batch, input words * N)
    """
    found, layers = list[str](), 0
    if result.error != Error.NONE:
        found.append(f"the engine stopped with {result.error.name}")
    for i, beats in enumerate(result.trace):
        by_layer: dict[int, list[TraceBeat]] = {}
        number = 0
        sent = [beat.data for beat in beats if beat.given]
        for beat in (beat for beat in beats if not beat.given):
            number += beat.layer - number & 0xFF  # the trace has 8 bits of it, and layers only rise
            by_layer.setdefault(number, []).append(beat)
        words = inputs[i].reshape(-1, golden.results.shape[2])
        if sent != [word.tobytes() for word in words]:
            found.append(f"inference {i}: the input words differ")
        for layer in golden.layers:
            got = by_layer.pop(layer.index + 1, [])
            where = f"inference {i}, layer {layer.index}"
            found += _compare_layer(where, got, layer.m.tolist(), layer.codes[i], layer.result)
            layers += 1
        found += [f"inference {i}: layer {index} is not in the image" for index in by_layer]
    expected = golden.results.reshape(-1, golden.results.shape[2])
    if not np.array_equal(result.results, expected):
        found.append(f"results differ: {len(result.results)} of {len(expected)} beats came")
    if len(result.cycles) != len(golden.results):
        found.append(f"{len(result.cycles)} of {len(golden.results)} inferences ended")
    return Comparison(found, layers, max(result.cycles, default=0), golden.cycles)


def _compare_layer(
    where: str, got: list[TraceBeat], m: list[int], codes: Bytes, result: bool
) -> list[str]:
    if len(got) != len(m):
        return [f"{where}: {len(got)} pixels, {len(m)} expected"]
    for k, beat in enumerate(got):
        if beat.m != m[k] or beat.data != codes[k].tobytes() or beat.result != result:
            expected = f"m {m[k]} {codes[k].tobytes().hex()} result {result}"
            seen = f"m {beat.m} {beat.data.hex()} result {beat.result}"
            return [f"{where}, pixel {k} of {len(m)}: {seen}, expected {expected}"]
    return []

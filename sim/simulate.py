"""Run an image on the Verilog of the engine, in Verilator, and compare it with the golden run."""

from __future__ import annotations

import functools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from secateur.hw import spec
from secateur.hw.spec import Error, Geometry, Status
from secateur.sim import drivers, verilator, wrapper
from secateur.sim.drivers import Bytes, StatusChange, TraceBeat
from secateur.sim.golden import ImageError, Program, Run, parse, result_words

_FOREVER = (1 << 32) - 1
RESET_CYCLES = 10


@dataclass(frozen=True)
class SimResult:
    """What the engine did with a batch, one inference after the other.

    ``results`` uint8 (beats, N) of all inferences; ``trace[i]`` the drained pixels of inference i;
    ``cycles[i]`` its count by ``status.cycles``. ``total`` cycles were simulated in ``seconds``.
    """

    results: Bytes
    trace: list[list[TraceBeat]]
    cycles: list[int]
    state: Status
    error: Error
    status: list[StatusChange]
    total: int
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """``mismatches`` in words (empty if equal); layers compared over all inferences; cycles of
    an inference in the engine and in the golden interpreter."""

    mismatches: list[str]
    layers_compared: int
    cycles: int
    golden_cycles: int


@functools.lru_cache(maxsize=8)
def engine_verilog(geometry: Geometry, init: bytes | None = None) -> str:
    """Verilog of the engine; with ``init`` the image is in its ROM."""
    from secateur.hw.verilog import to_verilog

    size, words = geometry.word_bytes, None
    if init is not None:
        words = [int.from_bytes(init[i : i + size], "little") for i in range(0, len(init), size)]
    return str(to_verilog(geometry, init=words))


def build(
    geometry: Geometry, *, verilog: str | None = None, rom: bytes | None = None, waves: bool = False
) -> Path:
    """The simulator's executable for an engine, from the cache or made now."""
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
) -> SimResult:
    """Load ``image`` (or build it into the engine, with ``rom``) and run all ``inputs``, uint8
    (batch, input words * N), one after the other in one simulation.

    ``stalls`` is the probability with which any source or sink pauses in a cycle, by ``seed``.
    ``waves`` names an FST file. ``limit`` is the most cycles to simulate; by default enough for
    any correct engine. Ends when all results are there, at an ERROR, or at the limit. With
    ``steps`` the engine restarts after every so many inferences: each is a step of a sequence.
    ``power_up`` is the seed of what stands in registers and memories without an initial value,
    zeros if None; ``rst`` is high for ``reset_cycles``.
    Raises ``SimulationError`` if a tool fails; an engine that stops early is no exception.
    """
    if not 0.0 <= stalls < 1.0:
        raise ValueError(f"stalls must be 0 to below 1, not {stalls!r}")
    width, allowed, beats, sequence_results = inputs.shape[1] // geometry.n, 100_000, _FOREVER, 0
    program = _program(image, geometry)
    if program is not None:
        image, per_inference = image[: program.words.size], result_beats(program)
        beats, sequence_results = len(inputs) * per_inference, steps * per_inference
        allowed = _cycles_needed(program, len(inputs), width, steps)
    if limit is None:
        limit = int((len(image) * 4 + allowed) / (1 - stalls) ** 2 * 1.5) + 20_000
    program_file = build(
        geometry, verilog=verilog, rom=image if rom else None, waves=waves is not None
    )
    with tempfile.TemporaryDirectory(prefix="secateur-") as name:
        folder = Path(name)
        drivers.write_image(folder, image)
        drivers.write_inputs(folder, inputs, geometry.n)
        settings = {
            "SECATEUR_STALL": str(round(stalls * 65536)),
            "SECATEUR_SEED": str(seed + 1),
            "SECATEUR_TARGET": str(beats),
            "SECATEUR_LIMIT": str(limit),
            "SECATEUR_INPUTS": str(steps * width),
            "SECATEUR_RESULTS": str(sequence_results),
            "SECATEUR_RESET": str(reset_cycles),
        }
        began = time.monotonic()
        verilator.execute(
            program_file,
            folder,
            "secateur.sim.bench",
            settings,
            waves=waves,
            power_up=power_up,
        )
        seconds = time.monotonic() - began
        status, total = drivers.read_status(folder)
        trace = drivers.read_trace(folder)
        return SimResult(
            results=drivers.read_results(folder, geometry.n),
            trace=_by_inference(trace, len(inputs), width),
            cycles=[s.cycles for s in status if s.before == Status.RUNNING],
            state=Status(status[-1].state if status else 0),
            error=Error(status[-1].error if status else 0),
            status=status,
            total=total,
            seconds=seconds,
        )


def _program(image: bytes, geometry: Geometry) -> Program | None:
    """None for what is no image of this geometry: the engine is to find that out."""
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
    """Beats by the inference whose input words had been taken."""
    found: list[list[TraceBeat]] = [[] for _ in range(inferences)]
    for beat in trace:
        found[min(max(0, beat.taken - 1) // max(width, 1), inferences - 1)].append(beat)
    return found


def result_beats(program: Program) -> int:
    """Beats of the result stream of one inference."""
    return len(result_words(program))


def compare(result: SimResult, golden: Run, inputs: Bytes) -> Comparison:
    """Compare every input word, every pixel of every layer and the result stream.

    ``golden`` is the run of the same inputs with ``sequential=True`` (or without, if no layer reads
    stale bytes).
    """
    found, layers = list[str](), 0
    if result.error != Error.NONE:
        found.append(f"the engine stopped with {result.error.name}")
    for i, beats in enumerate(result.trace):
        by_layer: dict[int, list[TraceBeat]] = {}
        number = 0
        for beat in beats:
            number += beat.layer - number & 0xFF  # the trace has 8 bits of it, and layers only rise
            by_layer.setdefault(number, []).append(beat)
        sent = by_layer.pop(0, [])  # layer 0 is the input
        words = inputs[i].reshape(-1, golden.results.shape[2])
        if [beat.data for beat in sent] != [word.tobytes() for word in words]:
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

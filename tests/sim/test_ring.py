"""The engine with a ring in Verilator: results and cycles as on chip, waits as golden counts them.

``pytest -m long tests/sim/test_ring.py`` runs more geometries, each with twenty programs.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from secateur.hw import ring
from secateur.hw.memory.weight_memory import SLICE_WORDS, WeightMemory
from secateur.hw.ring import Source
from secateur.hw.spec import Error, Geometry, Status
from secateur.hw.verilog import to_verilog
from secateur.sim.golden import parse, run
from secateur.sim.ring import waits
from secateur.sim.simulate import compare, simulate
from tests.sim.filter_programs import FilterMaker
from tests.support.long import quick
from tests.support.programs import Sample, random_program

SOURCES = [
    Source(),
    Source(interval=2, latency=1),
    Source(interval=3, latency=100),
    Source(latency=7),
]


def with_ring(n: int, p: int, s: int, words: int, *, long: bool = True):
    geometry = Geometry(n=n, p=p, s=s, weight_words=8192, bank_words=128, ring=words)
    marks = [pytest.mark.long] if long else []
    return pytest.param(geometry, marks=marks, id=f"{n}x{p}x{s}-{words}")


RINGS = [
    with_ring(4, 3, 2, 128, long=False),
    with_ring(4, 3, 1, 64),
    with_ring(2, 1, 1, 64),
    with_ring(8, 4, 1, 4096),
    with_ring(2, 8, 8, 1024),
    with_ring(2, 16, 1, 64),
]


def program(geometry: Geometry, seed: int) -> Sample:
    """A random one, for the same engine without a ring."""
    on_chip = replace(geometry, ring=0)
    return random_program(seed, on_chip, several=seed % 3 == 0, maker=FilterMaker)


@pytest.mark.parametrize("geometry", RINGS)
@pytest.mark.parametrize("seed", quick(range(20), (0, 1)))
def test_waits_are_predicted(geometry: Geometry, seed: int) -> None:
    """The first input comes when the ring is full, three more at once."""
    sample, source = program(geometry, seed), SOURCES[seed % len(SOURCES)]
    inputs = sample.inputs(4)
    decoded = parse(sample.image, geometry)
    golden = run(decoded, inputs, sequential=True)
    result = simulate(sample.image, inputs, geometry, source=source)
    assert compare(result, golden, inputs).mismatches == []
    assert (result.state, result.error, result.upset) == (Status.WAITING, Error.NONE, False)
    assert result.cycles == [golden.cycles] * 4
    assert golden.cycles == run(parse(sample.image, replace(geometry, ring=0)), inputs).cycles
    assert result.memory_waits == [sum(layers) for layers in waits(decoded, source, 4)]


def test_some_do_wait() -> None:
    geometry = RINGS[0].values[0]
    found = [
        waits(parse(program(geometry, seed).image, geometry), SOURCES[seed % 4], 2)
        for seed in range(3)
    ]
    assert any(sum(first) for first, _ in found)
    assert all(sum(second) >= sum(first) for first, second in found)


@pytest.mark.parametrize("steps", [0, 2])
def test_pauses_of_the_source_change_nothing(steps: int) -> None:
    """With ``steps`` also restarts, each of which drops the pass that is under way."""
    geometry = RINGS[0].values[0]
    sample = program(geometry, 1)
    inputs = sample.inputs(4)
    result = simulate(sample.image, inputs, geometry, stalls=0.3, seed=5, steps=steps)
    golden = run(parse(sample.image, geometry), inputs, steps=steps or 4)
    assert compare(result, golden, inputs).mismatches == []
    assert (result.error, result.upset) == (Error.NONE, False)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_the_compact_engine_waits_as_long(seed: int) -> None:
    geometry = RINGS[2].values[0]
    sample, source = program(geometry, seed), SOURCES[seed]
    inputs = sample.inputs(3)
    verilog = to_verilog(geometry, compact=True)
    result = simulate(sample.image, inputs, geometry, verilog=verilog, source=source)
    decoded = parse(sample.image, geometry)
    golden = run(decoded, inputs, sequential=True)
    assert compare(result, golden, inputs).mismatches == []
    assert result.cycles == [golden.cycles] * 3
    assert result.memory_waits == [sum(layers) for layers in waits(decoded, source, 3)]


def test_the_contract_knows_the_memory() -> None:
    """``ring.read_cycles`` says what the memory's latency is."""
    assert ring.SLICE_WORDS == SLICE_WORDS
    for each in RINGS:
        geometry = each.values[0]
        memory = WeightMemory(width=geometry.word_bits, depth=geometry.ring, s=geometry.s)
        assert ring.read_cycles(geometry) == memory.latency


@pytest.mark.parametrize("name", ["interval", "latency"])
def test_a_source_has_a_rate(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be . to 1048576 cycles, not -1"):
        Source(**{name: -1})

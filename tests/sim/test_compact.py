"""The compact engine in Verilator, of generic Verilog and of iCE40 primitives, against golden.

The models of the primitives are those of yosys.
"""

from __future__ import annotations

import functools

import pytest

from secateur.hw.spec import Geometry, Status
from secateur.hw.verilog import to_verilog
from secateur.sim.golden import parse, run
from secateur.sim.simulate import compare, simulate
from tests.support.primitives.ice40_models import yosys_models
from tests.support.programs import Sample, random_program, refilled_at_once

GEOMETRIES = [
    Geometry(n=4, p=2, weight_words=1024, bank_words=128, extended=False),
    Geometry(n=8, p=1, weight_words=512, bank_words=64),
]
PRIMITIVES = ("SB_MAC16", "SB_SPRAM256KA")


@functools.cache
def engine(geometry: Geometry, family: str) -> str:
    """The engine's Verilog, with models of its primitives."""
    text = str(to_verilog(geometry, family=family, compact=True))
    if family == "ice40":
        assert all(f"  {name} " in text for name in PRIMITIVES)
        text += yosys_models(*PRIMITIVES)
    return text


@pytest.mark.parametrize("stalls", [0.0, 0.4])
@pytest.mark.parametrize("seed", [300, 303, 307, 310])
@pytest.mark.parametrize(
    ("geometry", "family"),
    [
        (GEOMETRIES[0], "ice40"),
        pytest.param(GEOMETRIES[1], "generic", marks=pytest.mark.long),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.n}x{value.p}",
)
def test_random_programs(geometry: Geometry, family: str, seed: int, stalls: float) -> None:
    """Every byte of every layer, and the cycles of the contract."""
    check(random_program(seed, geometry), family, seed, stalls)


@pytest.mark.parametrize("stalls", [0.0, 0.4])
def test_a_table_is_filled_anew_behind_its_last_pixel(stalls: float) -> None:
    check(refilled_at_once(GEOMETRIES[0]), "ice40", 0, stalls)


def check(sample: Sample, family: str, seed: int, stalls: float) -> None:
    geometry, inputs = sample.geometry, sample.inputs(3)
    verilog = engine(geometry, family)
    result = simulate(
        sample.image, inputs, geometry, verilog=verilog, stalls=stalls, seed=seed, power_up=seed
    )
    golden = run(parse(sample.image, geometry), inputs, sequential=True)
    comparison = compare(result, golden, inputs)
    assert comparison.mismatches == []
    assert comparison.layers_compared == len(inputs) * len(golden.layers)
    assert result.state == Status.WAITING
    if not stalls:
        assert result.cycles == [golden.cycles] * len(inputs)

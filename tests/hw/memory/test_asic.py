"""The Verilog for ASICs: no primitives, nothing expected at power-up, cells counted by module."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from amaranth.back.verilog import convert

from secateur.boards.measure import cells
from secateur.hw.engine import Engine
from secateur.hw.memory import asic_ram
from secateur.hw.memory.memory import Ram
from secateur.hw.source import without_initial_values
from secateur.hw.spec import Error, Geometry, Status
from secateur.hw.verilog import to_verilog
from secateur.sim.golden import parse, run
from secateur.sim.simulate import compare, simulate
from tests.hw.soc import test_soc
from tests.hw.soc.test_soc import check
from tests.hw.test_lint import lint
from tests.support.alone import prepared
from tests.support.long import long
from tests.support.programs import random_program

# two slices of weight memory, the second no power of two
GEOMETRY = Geometry(n=2, p=2, weight_words=2100, bank_words=256)
RAMS = {"1r1w_24x2048": 1, "1r1w_24x52": 1, "1r1w_16x256": 2, "1rw1r_8x2048": 1}
# All but the registers that start processes in simulation, which are no part of the design.
INITIAL = re.compile(r"^\s*(initial\b(?! \\\$auto)|reg [^=;]*= \d+')", re.MULTILINE)


@pytest.fixture(scope="module")
def verilog() -> str:
    return to_verilog(GEOMETRY, family="asic")


@pytest.mark.parametrize(
    ("n", "p", "words", "tables", "interface"),
    [
        (2, 2, 2100, 0, "stream"),
        long(8, 3, 256, 1, "axi"),
        long(4, 1, 256, 8, "wishbone"),
        (2, 1, 256, 0, "uart"),
    ],
)
def test_lint(n: int, p: int, words: int, tables: int, interface: str, tmp_path: Path) -> None:
    geometry = Geometry(n=n, p=p, weight_words=words, bank_words=64, tables=tables)
    file = tmp_path / "secateur.v"
    divisor = 8 if interface == "uart" else None
    text = to_verilog(geometry, family="asic", interface=interface, divisor=divisor)
    assert INITIAL.search(text) is None
    file.write_text(text)
    found = lint(file)
    assert (found.returncode, found.stderr) == (0, "")


def test_all_modules_are_in_the_file(verilog: str) -> None:
    """No primitives: what is instantiated is defined, and RAMs are the only boxes."""
    defined = set(re.findall(r"^module (\\?\S+?)(?: ?\(|$)", verilog, re.MULTILINE))
    used = re.findall(r"^  (\\?[\w.$]+) +(?:\\\S+|\w+) +\($", verilog, re.MULTILINE)
    assert len(used) > 20
    assert set(used) <= defined
    rams = [name for name in used if asic_ram.NAME.fullmatch(name)]
    assert {name: rams.count(name) for name in rams} == {
        f"secateur_ram_{name}": count for name, count in RAMS.items()
    }
    assert "DP16KD" in to_verilog(GEOMETRY, family="ecp5")


def test_nothing_has_an_initial_value(verilog: str) -> None:
    assert INITIAL.search(verilog) is None
    plain = convert(Engine(GEOMETRY), name="engine", emit_src=False)
    assert len(INITIAL.findall(plain)) > 300
    assert INITIAL.search(without_initial_values(plain)) is None
    with pytest.raises(ValueError, match="is left: initial x = 1"):
        without_initial_values(plain + "initial x = 1;\n")
    with pytest.raises(ValueError, match="init must be None on asic"):
        Ram(width=8, depth=16, init=[1], family="asic")


@pytest.mark.parametrize("reset_cycles", [1, 2, 10])
@pytest.mark.parametrize("seed", range(1, 6))
def test_an_inference_after_any_power_up(verilog: str, seed: int, reset_cycles: int) -> None:
    """Flip-flops and memories begin with random values; ``rst`` is all that there is."""
    sample = random_program(200 + seed, GEOMETRY)
    inputs = sample.inputs(2)
    result = simulate(
        sample.image, inputs, GEOMETRY, verilog=verilog, power_up=seed, reset_cycles=reset_cycles,
        stalls=0.3 * (seed % 2), seed=seed,
    )  # fmt: skip
    golden = run(parse(sample.image, GEOMETRY), inputs, sequential=True)
    assert (result.state, result.error) == (Status.WAITING, Error.NONE)
    assert compare(result, golden, inputs).mismatches == []
    if not seed % 2:
        assert result.cycles == [golden.cycles] * 2


@pytest.mark.parametrize("bus", [long("axi"), "wishbone"])
def test_a_bus_after_any_power_up(bus: str, tmp_path: Path) -> None:
    """All that ``test_soc`` asks for, the compiled C driver included."""
    check(test_soc.GEOMETRIES[bus], bus, 0.3, tmp_path, family="asic", power_up=1)


@pytest.mark.long
def test_power_up_is_random_indeed(verilog: str) -> None:
    """Without its resets (its own among them) the same Verilog does not work."""
    deaf = re.sub(r"if \((rst|reset\d*) ?\)", "if (1'b0)", verilog)
    assert deaf != verilog
    sample = random_program(201, GEOMETRY)
    inputs = sample.inputs(1)
    golden = run(parse(sample.image, GEOMETRY), inputs, sequential=True)
    for seed in (1, 2, 3):
        result = simulate(sample.image, inputs, GEOMETRY, verilog=deaf, power_up=seed, limit=20_000)
        assert compare(result, golden, inputs).mismatches != []


@pytest.mark.parametrize("interface", ["stream", long("axi")])
def test_cells_by_module(interface: str, tmp_path: Path) -> None:
    engine = "secateur.engine"
    prepared("yosys")
    geometry = Geometry(n=2, p=1, weight_words=256, bank_words=64, tables=0)
    found = cells.synthesise(geometry, tmp_path, interface=interface)
    design = json.loads((tmp_path / "stat.json").read_text())["design"]["num_cells_by_type"]
    by_type = {kind: number for kind, number in design.items() if kind.startswith("$_")}
    assert found["by_type"] == by_type
    assert found["all"]["cells"] == sum(by_type.values())
    assert found["all"]["rams"] == {
        "secateur_ram_1r1w_16x64": 1, "secateur_ram_1r1w_24x256": 1,
    }  # fmt: skip
    modules = found["modules"]
    multiplier = f"{engine}.datapath.array.lane0.multiplier1"
    assert {"secateur", f"{engine}.loader", multiplier} <= set(modules)
    # operands of 9 and 12 bits, and a product of 21 twice: of the multiplier, and behind it
    assert modules[multiplier]["flip_flops"] == 9 + 12 + 2 * 21
    assert json.loads((tmp_path / "cells.json").read_text()) == found
    lines = (tmp_path / "cells.txt").read_text().splitlines()
    assert len(lines) == 2 + len(modules)
    assert lines[-1].split()[:2] == ["all", f"{found['all']['cells']:,}"]


def test_counts() -> None:
    def module(**kinds: int) -> dict:
        return {"num_cells_by_type": kinds}

    found = cells.count(
        {
            "\\secateur": module(**{"$_AND_": 3, "$_SDFF_PP0_": 2, "secateur.a$7": 1}),
            "\\secateur.a$7": module(**{"$_XOR_": 5, "secateur_ram_1r1w_8x16": 2}),
            "\\secateur_ram_1r1w_8x16": module(),
        }
    )
    assert found["all"] == {
        "cells": 10, "flip_flops": 2, "gates": 8, "rams": {"secateur_ram_1r1w_8x16": 2},
    }  # fmt: skip
    assert found["modules"]["secateur.a"]["gates"] == 5
    with pytest.raises(ValueError, match="DP16KD is neither"):
        cells.count({"\\secateur": module(DP16KD=1)})

"""The engine with its buses in Verilator: cocotbext-axi, a Wishbone master, the C driver."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from amaranth.lib.wiring import In

from secateur.hw.soc import registers
from secateur.hw.soc.soc import Soc
from secateur.hw.spec import Geometry
from secateur.hw.verilog import to_verilog
from secateur.sim import verilator
from secateur.sim.golden import parse, run
from tests.support.c_driver import ROOT, compile_driver
from tests.support.long import long
from tests.support.programs import random_program

GEOMETRIES = {
    "axi": Geometry(n=4, p=2, weight_words=1024, bank_words=64),
    "wishbone": Geometry(n=8, p=1, weight_words=512, bank_words=64),
}


def build(geometry: Geometry, bus: str, family: str = "generic") -> Path:
    """The simulator of a bench that has the ports of the wrapper, all visible to cocotb."""
    ports = {"clk": In(1), "rst": In(1)} if bus == "wishbone" else {}
    ports |= Soc(geometry, bus=bus).signature.members
    declared = ",\n  ".join(
        f"{'input' if port.flow is In else 'output'} wire [{port.shape - 1}:0] {name}"
        for name, port in ports.items()
    )
    connected = ", ".join(f".{name}({name})" for name in ports)
    bench = f"module bench (\n  {declared}\n);\n  secateur dut ({connected});\nendmodule\n"
    public = [f'public_flat_rw -module "bench" -var "{name}"' for name in ports]
    control = "\n".join(["`verilator_config", *public, ""])
    return verilator.build(to_verilog(geometry, family=family, interface=bus) + bench, control)


@pytest.mark.parametrize("stall", [long(0.0), 0.5])
@pytest.mark.parametrize("bus", list(GEOMETRIES))
def test_in_verilator(bus: str, stall: float, tmp_path: Path) -> None:
    check(GEOMETRIES[bus], bus, stall, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(("bus", "n"), [("axi", 2), ("axi", 16), ("wishbone", 2)])
def test_other_widths_in_verilator(bus: str, n: int, tmp_path: Path) -> None:
    check(Geometry(n=n, p=1, weight_words=1024, bank_words=64), bus, 0.3, tmp_path)


def check(
    geometry: Geometry,
    bus: str,
    stall: float,
    tmp_path: Path,
    family: str = "generic",
    power_up: int | None = None,
) -> None:
    """All of the bench's tests, for a random program with two layers that give results."""
    sample = random_program(10, geometry, layers=3, several=True)
    inputs = sample.inputs(3)
    expected = run(parse(sample.image, geometry), inputs, sequential=True)
    image = np.frombuffer(sample.image, np.uint8)
    np.savez(
        tmp_path / "case.npz", n=geometry.n, image=image, inputs=inputs, results=expected.results,
        cycles=expected.cycles,
    )  # fmt: skip
    compile_driver(tmp_path / "driver.so")
    settings = {"SECATEUR_STALL": str(stall)}
    program = build(geometry, bus, family)
    verilator.execute(
        program, tmp_path, f"tests.hw.soc.soc_bench_{bus}", settings, power_up=power_up
    )


def test_generated_files_are_those_committed() -> None:
    assert (ROOT / registers.MARKDOWN).read_text() == registers.markdown()
    assert (ROOT / registers.HEADER).read_text() == registers.header()


def test_no_two_registers_or_fields_overlap() -> None:
    offsets = [register.offset for register in registers.REGISTERS]
    assert len(set(offsets)) == len(offsets)
    for register in registers.REGISTERS:
        assert register.offset % 4 == 0
        assert register.offset < 1 << registers.ADDRESS_BITS
        masks = [field.mask for field in register.fields]
        assert sum(masks) < 1 << 32
        assert all(a & b == 0 for i, a in enumerate(masks) for b in masks[:i])


def test_refusals() -> None:
    geometry = GEOMETRIES["axi"]
    with pytest.raises(ValueError, match="bus must be axi or wishbone, not 'ahb'"):
        Soc(geometry, bus="ahb")
    with pytest.raises(ValueError, match="interface must be one of stream, axi, wishbone"):
        to_verilog(geometry, interface="ahb")

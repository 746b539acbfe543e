"""The Tang Nano 20K: its numbers, its clock, and a pruned network through its serial port."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from secateur.boards.catalogue.board import BoardError
from secateur.boards.catalogue.tang_nano import TANG_NANO_20K
from secateur.boards.driver.device import Device, open_port
from secateur.boards.flow import gowin
from secateur.boards.flow.build import build as make
from secateur.boards.flow.design import Design
from secateur.boards.flow.packing import buffer_flip_flops
from secateur.hw.spec import Geometry
from secateur.models import DSCNN
from secateur.pruning import prune
from secateur.sim import golden, pty
from secateur.target import Target
from tests.boards.flow import fake_tools
from tests.boards.flow.test_top import cell, number
from tests.support.networks import mlperf_tiny
from tests.support.pipeline import build, compile_for
from tests.support.primitives.board import BOARD
from tests.support.primitives.gowin_models import CLOCKS, MULT18X18
from tests.sw.image.image_files import image_file, random_words

SMALL = Geometry(n=2, p=1, weight_words=64, bank_words=64, tables=0)


def test_the_engine_is_that_of_the_target() -> None:
    assert Target.load("4x4-gw2a").geometry == TANG_NANO_20K.geometry


@pytest.mark.parametrize("wanted", [27, 81, 94.5, 101.25, 100, 600, 700])
def test_a_clock_is_what_the_pll_makes(wanted: float) -> None:
    """By the formula and the ranges of the data sheet; where it is refused, all dividers fail."""
    hertz = round(wanted * 1e6)

    def makes(i: int, f: int, o: int) -> bool:
        fits = 3e6 <= 27e6 / (i + 1) <= 500e6 and 500e6 <= hertz * o <= 1250e6
        return fits and 27e6 * (f + 1) == hertz * (i + 1)

    outputs = (2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128)
    try:
        pll = gowin.PllGowin.reach(27_000_000, hertz)
    except ValueError:
        assert not any(makes(*each) for each in itertools.product(range(64), range(64), outputs))
    else:
        assert makes(pll.input_divider - 1, pll.feedback_divider - 1, pll.output_divider)
        assert pll.output_divider in outputs


def test_pll_and_gate(tmp_path: Path) -> None:
    """yosys knows all pins and parameters of the primitives."""
    verilog = Design(board=TANG_NANO_20K, geometry=SMALL).verilog(None)
    pll, gate = cell(verilog, "rPLL"), cell(verilog, "DQCE")
    made = 27e6 / (number(pll["IDIV_SEL"]) + 1) * (number(pll["FBDIV_SEL"]) + 1)
    assert made == TANG_NANO_20K.clock
    assert (pll["CLKIN"], pll["CLKOUT"], gate["CLKIN"]) == ("clk", "made", "made")
    assert (pll["FCLKIN"], pll["DEVICE"]) == ('"27"', '"GW2AR-18C"')
    assert gate["CLKOUT"] not in ("clk", "made")
    assert verilog.count("MULT18X18 #(") == SMALL.multipliers
    (tmp_path / "top.v").write_text(verilog)
    models = "read_verilog -lib +/gowin/cells_sim.v +/gowin/cells_xtra_gw2a.v"
    script = f"{models}; read_verilog top.v; hierarchy -check -top top"
    gowin.TOOLS.run(["yosys", "-p", script], tmp_path)


def test_constraints() -> None:
    assert gowin.to_cst(TANG_NANO_20K).splitlines()[::2] == [
        'IO_LOC "clk" 4;', 'IO_LOC "rx" 70;', 'IO_LOC "tx" 69;', 'IO_LOC "running" 15;',
        'IO_LOC "error" 16;',
    ]  # fmt: skip
    period = 1e9 / TANG_NANO_20K.clock
    assert gowin.to_sdc(TANG_NANO_20K, TANG_NANO_20K.clock).splitlines() == [
        "create_clock -name clk -period 37.037 [get_ports {clk}]",
        f"create_clock -name made -period {period:.3f} [get_nets {{made}}]",
    ]


def test_engines_that_do_not_fit_are_refused() -> None:
    geometry = Geometry(n=8, p=7, weight_words=64, bank_words=64, tables=0)
    with pytest.raises(BoardError, match=r"tang-nano-20k: 8 x 7 needs 56 multipliers, .* has 48"):
        Design(board=TANG_NANO_20K, geometry=geometry)
    with pytest.raises(
        BoardError, match=r"tang-nano-20k: a PLL cannot make 100\.1 MHz from 27 MHz"
    ):
        Design(board=TANG_NANO_20K, clock=100_100_000)


def test_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On tools that only say that all went well: what they are asked, and what is reported."""
    fake_tools.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    monkeypatch.setenv("AMARANTH_USE_YOSYS", "builtin")  # not the fake one
    monkeypatch.setenv("FAKE_FMAX", "90.5")
    folder = tmp_path / "out"
    design = Design(board=TANG_NANO_20K, geometry=SMALL, seed=5, clock=81_000_000)
    report = make(design, None, "", folder)
    assert (report["passed"], report["fmax_mhz"], report["seed"]) == (True, 90.5, 5)
    assert report["resources"] == {"LUT4": {"used": 9000, "available": 20736}}
    assert (
        "90.5 MHz after routing (GW2AR-18C, speed grade 8, seed 5): met"
        in (folder / "report.txt").read_text()
    )
    assert (folder / "secateur.bit").read_text() == "placed with seed 5\n"
    with pytest.raises(BoardError, match="tang-nano-20k: its bitstream cannot hold an image"):
        make(design, image_file(random_words(20, 2, 1), None), "a.sec", folder)
    monkeypatch.setenv("FAKE_FMAX", "80.9")
    with pytest.raises(BoardError, match=r"80\.9 MHz .* the clock is 81 MHz"):
        make(design, None, "", folder)
    assert not (folder / "secateur.bit").exists()


def test_each_flip_flop_has_a_lut_or_an_adder_of_its_own(tmp_path: Path) -> None:
    """Also one whose LUT has other users, or which is fed by a flip-flop or a pin."""

    def part(kind: str, output: str, **pins: int) -> dict:
        directions = {name: "output" if name == output else "input" for name in pins}
        connections = {name: [bit] for name, bit in pins.items()}
        return {"type": kind, "port_directions": directions, "connections": connections}

    cells = {
        "own": part("LUT2", "F", I0=2, I1=3, F=4),
        "shared": part("LUT1", "F", I0=2, F=5),
        "sum": part("ALU", "SUM", I0=2, SUM=6),
        "a": part("DFF", "Q", D=4, CLK=9, Q=10),
        "b": part("DFFE", "Q", D=5, CE=5, CLK=9, Q=11),
        "c": part("DFFR", "Q", D=6, RESET=3, CLK=9, Q=12),
        "d": part("DFF", "Q", D=12, CLK=9, Q=13),
        "e": part("DFF", "Q", D=2, CLK=9, Q=14),
    }
    names = {"in": {"bits": [2, 3, "0"]}, "last": {"bits": [14]}}
    file = tmp_path / "top.json"
    file.write_text(json.dumps({"modules": {"top": {"cells": cells, "netnames": names}}}))
    assert buffer_flip_flops(file) == 3
    found = json.loads(file.read_text())["modules"]["top"]["cells"]
    drivers = {
        cell["connections"]["F"][0]: cell for cell in found.values() if "F" in cell["connections"]
    }
    for name, data in {"b": 5, "d": 12, "e": 2}.items():
        (behind,) = found[name]["connections"]["D"]
        assert behind > 14
        through = drivers[behind]
        assert (through["type"], through["connections"]["I0"]) == ("LUT1", [data])
        assert int(through["parameters"]["INIT"], 2) == 0b10
    assert all(found[name] == cells[name] for name in ("own", "shared", "sum", "a", "c"))
    assert buffer_flip_flops(file) == 0


def board_verilog() -> str:
    """The board as ``pty`` wants it, with models of all primitives. Its lights are low for on."""
    top = gowin.to_verilog(
        TANG_NANO_20K, TANG_NANO_20K.geometry, clock=TANG_NANO_20K.clock, divisor=pty.DIVISOR
    )
    return top + MULT18X18 + CLOCKS + BOARD


@pytest.mark.long
def test_a_pruned_network_through_the_serial_port() -> None:
    """Results and cycles of DS-CNN at a quarter are golden's."""
    model, shape = mlperf_tiny(DSCNN, 1.0)
    target = Target.load("4x4-gw2a")
    prune(model, density=0.25, n=target.geometry.n)
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
    image = compile_for(build(model, x), target)
    program = golden.parse(image.stream, target.geometry)
    size = (2, program.input_words * target.geometry.n)
    inputs = np.random.default_rng(1).integers(0, 256, size, np.uint8)
    want = golden.run(program, inputs, sequential=True)
    with pty.serve(target.geometry, verilog=board_verilog()) as board:
        with open_port(board.path, 1_000_000) as link:
            device = Device(link)
            device.load(image.stream)
            device.restart()
            for row, expected in zip(inputs, want.results, strict=True):
                found, cycles = device.run(row.tobytes(), len(expected))
                assert found == expected.tobytes()
                assert cycles == want.cycles

"""The iCEBreaker: its numbers, its clock, and a pruned network through its serial port."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from amaranth.back import verilog
from ice40_models import PLL, yosys_models

from secateur.boards import icebreaker, tools
from secateur.boards.device import Device, open_port
from secateur.models import Autoencoder
from secateur.pruning import prune
from secateur.sim import golden, pty
from secateur.target import Target
from tests.networks import mlperf_tiny
from tests.pipeline import build, compile_for


def test_the_engine_is_that_of_the_target() -> None:
    assert Target.load("up5k").geometry == icebreaker.GEOMETRY


def test_the_clock_is_what_the_pll_makes() -> None:
    """Ranges of the data sheet: phase detector 10 to 133 MHz, VCO 533 to 1066 MHz."""
    pll = icebreaker.PLL
    reference = icebreaker.OSCILLATOR / (pll["DIVR"] + 1)
    vco = reference * (pll["DIVF"] + 1)
    assert 10e6 <= reference <= 133e6
    assert 533e6 <= vco <= 1066e6
    assert vco / 2 ** pll["DIVQ"] == icebreaker.CLOCK


def test_pins_are_those_of_the_schematic() -> None:
    assert icebreaker.to_pcf().splitlines() == [
        "set_io clk 35",
        "set_io -pullup yes rx 6",
        "set_io tx 9",
        "set_io running 37",
        "set_io error 11",
    ]


def test_a_report_in_short() -> None:
    report = {
        "fmax": {"a": {"achieved": 41.26, "constraint": 36.0}},
        "utilization": {
            "ICESTORM_LC": {"used": 10, "available": 5280},
            "SB_I2C": {"used": 0, "available": 2},
        },
    }
    found = icebreaker.summarise(report, 3)
    assert found == {"seed": 3, "fmax_mhz": 41.3, "met": True, "used": {"ICESTORM_LC": 10}}
    report["fmax"]["b"] = {"achieved": 35.9, "constraint": 36.0}
    assert not icebreaker.summarise(report, 3)["met"]


def board_verilog() -> str:
    """The board as ``pty`` wants it, with models of all primitives. Its lights are low for on."""
    top = verilog.convert(icebreaker.Top(divisor=pty.DIVISOR), name="icebreaker", emit_src=False)
    primitives = ("SB_MAC16", "SB_SPRAM256KA")
    for name in (*primitives, "SB_PLL40_PAD"):
        assert f"  {name} " in top
    return (
        top
        + PLL
        + yosys_models(*primitives)
        + """
module secateur(input clk, input rst, input rx, output tx, output running);
  wire off, error;
  assign running = !off;
  icebreaker board(.clk(clk), .rx(rx), .tx(tx), .running(off), .error(error));
endmodule
"""
    )


@pytest.mark.long
def test_a_pruned_autoencoder_through_the_serial_port() -> None:
    """Results and cycles are golden's. The lock takes its 4,096 cycles, and bytes wait for it."""
    model, shape = mlperf_tiny(Autoencoder, 1.0)
    prune(model, density=0.22, n=4)
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
    image = compile_for(build(model, x), Target.load("up5k"))
    program = golden.parse(image.stream, icebreaker.GEOMETRY)
    inputs = np.random.default_rng(1).integers(0, 256, (2, program.input_words * 4), np.uint8)
    want = golden.run(program, inputs, sequential=True)
    with pty.serve(icebreaker.GEOMETRY, verilog=board_verilog()) as board:
        with open_port(board.path, 1_000_000) as link:
            device = Device(link)
            device.load(image.stream)
            device.restart()
            for row, expected in zip(inputs, want.results, strict=True):
                found, cycles = device.run(row.tobytes(), len(expected))
                assert found == expected.tobytes()
                assert cycles == want.cycles


@pytest.mark.long
def test_the_synthesised_board_fits(tmp_path) -> None:
    """Of each kind of cell no more than the part has; place and route need a tenth of the logic."""
    icebreaker.synthesise(tmp_path)
    tools.run(["yosys", "-p", "read_json top.json; tee -q -o stat.json stat -json"], tmp_path)
    cells = json.loads((tmp_path / "stat.json").read_text())["design"]["num_cells_by_type"]
    assert cells["SB_MAC16"] == 8
    assert cells["SB_SPRAM256KA"] == 3
    assert cells["SB_RAM40_4K"] <= 30
    assert cells["SB_LUT4"] <= 3800
    assert sum(count for name, count in cells.items() if name.startswith("SB_DFF")) <= 3000

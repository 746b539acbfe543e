"""The iCEBreaker: its numbers, its clock, and a pruned network through its serial port."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from secateur.boards.catalogue.board import BoardError
from secateur.boards.catalogue.icebreaker import ICEBREAKER
from secateur.boards.driver.device import Device, open_port
from secateur.boards.flow import ice40
from secateur.boards.flow.build import build as make
from secateur.boards.flow.build import swap
from secateur.boards.flow.design import Design
from secateur.hw.spec import Geometry
from secateur.models import Autoencoder
from secateur.pruning import prune
from secateur.sim import golden, pty
from secateur.target import Target
from tests.boards.flow import fake_tools
from tests.support.networks import mlperf_tiny
from tests.support.pipeline import build, compile_for
from tests.support.primitives.board import BOARD
from tests.support.primitives.ice40_models import PLL, yosys_models
from tests.sw.image.image_files import image_file, random_words


def test_the_engine_is_that_of_the_target() -> None:
    assert Target.load("up5k").geometry == ICEBREAKER.geometry


@pytest.mark.parametrize("wanted", [36, 48, 40.5, 12.75, 132])
@pytest.mark.parametrize("oscillator", [12, 48, 100])
def test_a_clock_is_what_the_pll_makes(wanted: float, oscillator: int) -> None:
    """By the formula and the ranges of the data sheet; where it is refused, all dividers fail."""
    hertz = round(wanted * 1e6)

    def makes(r: int, f: int, q: int) -> bool:
        reference = oscillator * 1e6 / (r + 1)
        vco = reference * (f + 1)
        fits = 10e6 <= reference <= 133e6 and 533e6 <= vco <= 1066e6
        return fits and abs(vco / 2**q - hertz) < 1e-3

    try:
        pll = ice40.Pll40.reach(oscillator * 1_000_000, hertz)
    except ValueError:
        dividers = itertools.product(range(16), range(128), range(1, 7))
        assert not any(makes(*each) for each in dividers)
    else:
        r, f = pll.input_divider - 1, pll.feedback_divider - 1
        assert makes(r, f, pll.output_exponent)
        # icepll's table of filters, by the phase detector's frequency.
        limits = (17, 26, 44, 66, 101, math.inf)
        index = next(i for i, top in enumerate(limits, 1) if oscillator / (r + 1) < top)
        assert pll.filter_range == index


def test_pins_are_those_of_the_schematic() -> None:
    assert ice40.to_pcf(ICEBREAKER).splitlines() == [
        "set_io clk 35",
        "set_io -pullup yes rx 6",
        "set_io tx 9",
        "set_io running 37",
        "set_io error 11",
    ]


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ({"n": 8, "p": 1}, "weight_words must be .* of 64 bits, not 64 of 72"),
        ({"n": 4, "p": 4}, "a compact engine has at most 8 multipliers"),
        (
            {"n": 4, "p": 2, "weight_words": 16385},
            "weight_words must be at most 16384 .* not 16385 of",
        ),
    ],
)
def test_engines_that_do_not_fit_are_refused(size: dict, says: str) -> None:
    geometry = Geometry(**{"weight_words": 64, "bank_words": 64, "tables": 0} | size)
    with pytest.raises(BoardError, match=f"icebreaker: {says}"):
        Design(board=ICEBREAKER, geometry=geometry)
    with pytest.raises(BoardError, match="icebreaker: a PLL cannot make 37 MHz from 12 MHz"):
        Design(board=ICEBREAKER, clock=37_000_000)


def test_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On tools that only say that all went well: what they are asked, and what is reported."""
    fake_tools.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    monkeypatch.setenv("AMARANTH_USE_YOSYS", "builtin")  # not the fake one
    monkeypatch.setenv("FAKE_FMAX", "36.1")
    folder = tmp_path / "out"
    size = {"n": 2, "p": 1, "weight_words": 64, "bank_words": 64, "tables": 0}
    design = Design(board=ICEBREAKER, geometry=Geometry(**size, extended=False), seed=5)
    report = make(design, None, "", folder)
    assert (report["passed"], report["fmax_mhz"], report["seed"]) == (True, 36.1, 5)
    assert report["resources"] == {"ICESTORM_LC": {"used": 4000, "available": 5280}}
    versions = {"yosys": "9.1", "nextpnr-ice40": "9.2", "icepack": "of unknown version"}
    assert report["tools"] == versions
    text = (folder / "report.txt").read_text()
    assert "36.1 MHz after routing (iCE40UP5K, seed 5): met" in text
    assert "`secateur device load`" in text
    assert (folder / "secateur.bit").read_text() == "placed with seed 5 for 36 MHz\n"
    with pytest.raises(BoardError, match="icebreaker: its bitstream cannot hold an image"):
        make(design, image_file(random_words(20, 2, 1), None), "a.sec", folder)
    assert (folder / "secateur.bit").exists()
    with pytest.raises(BoardError, match="was built without an image"):
        swap(folder, image_file(random_words(20, 2, 1), None), "a.sec")
    monkeypatch.setenv("FAKE_FMAX", "35.9")
    with pytest.raises(BoardError, match=r"35\.9 MHz .* the clock is 36 MHz"):
        make(design, None, "", folder)
    assert not (folder / "secateur.bit").exists()


def board_verilog() -> str:
    """The board as ``pty`` wants it, with models of all primitives. Its lights are low for on."""
    top = ice40.to_verilog(
        ICEBREAKER, ICEBREAKER.geometry, clock=ICEBREAKER.clock, divisor=pty.DIVISOR
    )
    primitives = ("SB_MAC16", "SB_SPRAM256KA")
    for name in (*primitives, "SB_PLL40_PAD"):
        assert f"  {name} " in top
    return top + PLL + yosys_models(*primitives) + BOARD


@pytest.mark.long
def test_a_pruned_autoencoder_through_the_serial_port() -> None:
    """Results and cycles are golden's. The lock takes its 4,096 cycles, and bytes wait for it."""
    model, shape = mlperf_tiny(Autoencoder, 1.0)
    prune(model, density=0.22, n=4)
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
    image = compile_for(build(model, x), Target.load("up5k"))
    program = golden.parse(image.stream, ICEBREAKER.geometry)
    inputs = np.random.default_rng(1).integers(0, 256, (2, program.input_words * 4), np.uint8)
    want = golden.run(program, inputs, sequential=True)
    with pty.serve(ICEBREAKER.geometry, verilog=board_verilog()) as board:
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
    (tmp_path / "top.v").write_text(Design(board=ICEBREAKER).verilog(None))
    ice40.synthesise(tmp_path)
    ice40.TOOLS.run(["yosys", "-p", "read_json top.json; tee -q -o stat.json stat -json"], tmp_path)
    cells = json.loads((tmp_path / "stat.json").read_text())["design"]["num_cells_by_type"]
    assert cells["SB_MAC16"] == 8
    assert cells["SB_SPRAM256KA"] == 3
    assert cells["SB_RAM40_4K"] <= 30
    assert cells["SB_LUT4"] <= 3800
    assert sum(count for name, count in cells.items() if name.startswith("SB_DFF")) <= 3000

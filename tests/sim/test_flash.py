"""The engine with an image in a flash, in Verilator: waits as golden counts them, and bit errors.

``pytest -m long tests/sim/test_flash.py`` reads in more ways, and makes 200 inferences with errors.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.back import verilog

from secateur.hw.flash import Flash
from secateur.hw.memory.flash_reader import FlashReader
from secateur.hw.spec import Error, Geometry, Status
from secateur.hw.verilog import to_verilog
from secateur.sim.golden import parse, run
from secateur.sim.ring import waits
from secateur.sim.simulate import SimResult, compare, simulate
from tests.sim.filter_programs import FilterMaker
from tests.support.long import quick
from tests.support.programs import Sample, random_program

GEOMETRY = Geometry(n=4, p=3, s=2, weight_words=8192, bank_words=128, ring=128)
MODEL = Path(__file__).parents[1] / "support" / "jedec_flash.v"
LATE = {"VALID": 5, "HOLD": 3}
FLASHES = {
    "quad": (Flash(pause=60, address=0x200000), LATE),
    "quad-fast": (Flash(pause=60, divider=1, delay=0, continuous=True), {}),
    "single": (Flash(pause=60, quad=False), LATE),
}

#: An engine with the ports of the bench, whose image comes from a flash.
_TOP = """
module secateur (
  input wire clk, input wire rst, input wire control__reset, input wire control__restart,
  input wire image__valid, input wire [7:0] image__payload, output wire image__ready,
  input wire input__valid, input wire [{width}:0] input__payload, output wire input__ready,
  output wire result__valid, output wire [{width}:0] result__payload, input wire result__ready,
  output wire trace__valid, output wire trace__input, output wire [7:0] trace__layer,
  output wire [15:0] trace__m,
  output wire [{width}:0] trace__data, output wire trace__result,
  output wire [2:0] status__state, output wire [3:0] status__error,
  output wire [31:0] status__cycles, output wire [31:0] status__memory_wait,
  output wire status__upset, input wire image_failed
);
  wire cs_n, sck, valid, ready;
  wire [3:0] drive, value, level;
  wire [7:0] payload;
  assign image__ready = 0;
  engine engine (
    .clk, .rst, .control__reset, .control__restart,
    .image__valid(valid), .image__payload(payload), .image__ready(ready),
    .input__valid, .input__payload, .input__ready, .result__valid, .result__payload,
    .result__ready, .trace__valid, .trace__input, .trace__layer, .trace__m, .trace__data,
    .trace__result,
    .status__state, .status__error, .status__cycles, .status__memory_wait, .status__upset,
    .image_failed);
  reader reader (
    .clk, .rst, .image__valid(valid), .image__payload(payload), .image__ready(ready),
    .cs_n, .sck, .drive, .value, .level);
  jedec_flash #({parameters}) flash (.cs_n, .sck, .drive, .value, .level, .reads());
endmodule
"""


def with_flash(flash: Flash, **model: int) -> str:
    """Verilog of an engine with a flash beside it, of parameters of ``jedec_flash``."""
    reader = FlashReader(geometry=GEOMETRY, flash=flash)
    given = {"BASE": flash.address, "ASLEEP": 1} | model
    parameters = ", ".join(f".{name}({value})" for name, value in given.items())
    return "\n".join(
        [
            to_verilog(GEOMETRY, name="engine"),
            verilog.convert(reader, name="reader", emit_src=False),
            MODEL.read_text(),
            _TOP.format(width=8 * GEOMETRY.n - 1, parameters=parameters),
        ]
    )


def program(seed: int) -> Sample:
    return random_program(seed, replace(GEOMETRY, ring=0), several=False, maker=FilterMaker)


@pytest.mark.parametrize(
    "name", ["quad", *(pytest.param(name, marks=pytest.mark.long) for name in list(FLASHES)[1:])]
)
@pytest.mark.parametrize("seed", quick(range(3), (1,)))
def test_waits_are_predicted(name: str, seed: int) -> None:
    """The first input comes when the ring is full, three more at once."""
    flash, model = FLASHES[name]
    sample = program(seed)
    inputs, decoded = sample.inputs(4), parse(sample.image, GEOMETRY)
    golden = run(decoded, inputs, sequential=True)
    result = simulate(
        sample.image, inputs, GEOMETRY, verilog=with_flash(flash, **model), source=flash.source
    )
    assert compare(result, golden, inputs).mismatches == []
    assert (result.state, result.error, result.upset) == (Status.WAITING, Error.NONE, False)
    assert result.cycles == [golden.cycles] * 4
    found = [sum(layers) for layers in waits(decoded, flash.source, 4)]
    assert result.memory_waits == found
    assert found[-1] > 0


def reported(result: SimResult) -> int:
    """Inferences that have ended before any upset."""
    ended = [
        change.upset
        for change in result.status
        if (change.before, change.state) == (Status.RUNNING, Status.WAITING)
    ]
    return ended.index(1) if 1 in ended else len(ended)


@pytest.mark.parametrize("runs", [3, pytest.param(40, marks=pytest.mark.long)])
def test_a_bit_error_is_told_before_its_result(runs: int) -> None:
    """Five inferences a run, of an image that was right when it was checked; then a bit of 16,000
    is wrong. No wrong result is taken as right: it is marked, or the engine stops."""
    flash, model = FLASHES["quad"]
    text = with_flash(flash, **model, ERRORS=1000, CLEAN=1)
    right = marked = wrong = 0
    for seed in range(1, runs + 1):
        sample = program(seed % 5)
        inputs = sample.inputs(5)
        golden = run(parse(sample.image, GEOMETRY), inputs, sequential=True)
        result = simulate(
            sample.image, inputs, GEOMETRY, verilog=text, source=flash.source, power_up=seed
        )
        expected = golden.results.reshape(-1, GEOMETRY.n)
        taken = golden.results.shape[1] * reported(result)
        right += taken
        assert (result.results[:taken] == expected[:taken]).all(), f"seed {seed}"
        differ = result.results[taken:] != expected[taken : len(result.results)]
        wrong += bool(differ.any())
        marked += result.upset
        assert taken == len(expected) or result.upset or result.error != Error.NONE
    assert right
    assert marked
    assert runs < 40 or wrong

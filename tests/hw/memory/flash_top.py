"""An engine with the ports of the bench, whose image comes from a flash beside it."""

from __future__ import annotations

from pathlib import Path

from amaranth.back import verilog

from secateur.hw.flash import Flash
from secateur.hw.memory.flash_reader import FlashReader
from secateur.hw.memory.sdram_source import SdramSource
from secateur.hw.sdram import Sdram
from secateur.hw.spec import Geometry, Status
from secateur.hw.verilog import to_verilog
from secateur.sim.simulate import SimResult

MODELS = Path(__file__).parents[2] / "support"

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
  wire cs_n, sck, valid, ready, from_valid, from_ready;
  wire [3:0] drive, value, level;
  wire [7:0] payload, from_payload;
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
    .clk, .rst, .image__valid(from_valid), .image__payload(from_payload),
    .image__ready(from_ready), .cs_n, .sck, .drive, .value, .level);
  jedec_flash #({parameters}) flash (.cs_n, .sck, .drive, .value, .level, .reads());
{between}
endmodule
"""
_DIRECT = """
  assign {valid, payload} = {from_valid, from_payload};
  assign from_ready = ready;
"""
#: An SDRAM and the wires to it.
SDR_SDRAM = """
  wire [2:0] command;
  wire [1:0] bank;
  wire [12:0] address;
  wire mask, drives;
  wire [15:0] to, from;
  sdr_sdram #({parameters}) sdram (
    .clk, .command, .bank, .address, .mask, .drive(drives), .value(to), .level(from),
    .broken());
"""
_SOURCE = """
  source source (
    .clk, .rst, .input__valid(from_valid), .input__payload(from_payload),
    .input__ready(from_ready), .image__valid(valid), .image__payload(payload),
    .image__ready(ready), .command, .bank, .address, .mask, .drive(drives), .value(to),
    .level(from));
"""


def with_flash(
    geometry: Geometry,
    flash: Flash,
    model: dict[str, int],
    sdram: Sdram | None = None,
    memory: dict[str, int] | None = None,
) -> str:
    """Verilog of an engine with a flash, or with an SDRAM to which the image is copied.

    Parameters
    ----------
    geometry, flash, sdram : of the engine and its source
    model, memory : parameters of ``jedec_flash`` and ``sdr_sdram``
    """
    reader = FlashReader(geometry=geometry, flash=flash)
    texts = [
        to_verilog(geometry, name="engine"),
        verilog.convert(reader, name="reader", emit_src=False),
        (MODELS / "jedec_flash.v").read_text(),
    ]
    between = _DIRECT
    if sdram is not None:
        source = SdramSource(geometry=geometry, sdram=sdram)
        texts.append(verilog.convert(source, name="source", emit_src=False))
        texts.append((MODELS / "sdr_sdram.v").read_text())
        between = SDR_SDRAM.format(parameters=_parameters(memory or {})) + _SOURCE
    parameters = _parameters({"BASE": flash.address, "ASLEEP": 1} | model)
    top = _TOP.format(width=8 * geometry.n - 1, parameters=parameters, between=between)
    return "\n".join([*texts, top])


def _parameters(given: dict[str, int]) -> str:
    return ", ".join(f".{name}({value})" for name, value in given.items())


def reported(result: SimResult) -> int:
    """Inferences that have ended before any upset."""
    ended = [
        change.upset
        for change in result.status
        if (change.before, change.state) == (Status.RUNNING, Status.WAITING)
    ]
    return ended.index(1) if 1 in ended else len(ended)

"""A bench in Verilog for four-state simulators: an inference on the engine's streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from secateur.hw.spec import Geometry
from secateur.sim.golden import parse, run
from tests.support.programs import Sample

_BENCH = """
`timescale 1ns/1ns
module bench;
  reg clk = 0, rst = 1;
  always #5 clk = ~clk;
  reg [7:0] image [0:{images}], byte_in;
  reg [{top}:0] words [0:{inputs}], want [0:{results}], word_in;
  reg byte_valid = 0, word_valid = 0;
  integer bytes = 0, sent = 0, got = 0, faults = 0;
  wire byte_ready, word_ready, valid, upset, passing, given, result;
  wire [{top}:0] pixel, data;
  wire [2:0] state;
  wire [3:0] error;
  wire [31:0] cycles, crc;
  wire [15:0] inferences, scrubs, m;
  wire [7:0] layer;
  secateur engine (
    .clk(clk), .rst(rst), .control__reset(1'b0), .control__restart(1'b0),
    .image__payload(byte_in), .image__valid(byte_valid), .image__ready(byte_ready),
    .input__payload(word_in), .input__valid(word_valid), .input__ready(word_ready),
    .result__payload(pixel), .result__valid(valid), .result__ready(1'b1),
    .status__state(state), .status__error(error), .status__cycles(cycles),
    .status__inferences(inferences), .status__upset(upset), .status__scrubs(scrubs),
    .status__image_crc(crc), .trace__valid(passing), .trace__result(result), .trace__input(given),
    .trace__layer(layer), .trace__m(m), .trace__data(data)
  );
  initial begin
    $readmemh("image.hex", image);
    $readmemh("input.hex", words);
    $readmemh("want.hex", want);
    repeat (4) @(negedge clk);
    rst = 0;
    while (bytes <= {images} && !{rom}) begin
      byte_in = image[bytes];
      byte_valid = 1;
      @(posedge clk) if (byte_ready) bytes = bytes + 1;
      @(negedge clk);
    end
    byte_valid = 0;
    while (sent <= {inputs}) begin
      word_in = words[sent];
      word_valid = 1;
      @(posedge clk) if (word_ready) sent = sent + 1;
      @(negedge clk);
    end
    word_valid = 0;
  end
  always @(posedge clk) if (!rst) begin
    if (^{{byte_ready, word_ready, valid, upset, passing, state, error, cycles, crc, inferences,
          scrubs}} === 1'bx) begin
      faults = faults + 1;
      $display("X at a port, time %0d", $time);
    end
    if (passing && ^{{result, layer, m, data}} === 1'bx) begin
      faults = faults + 1;
      $display("X in the trace, time %0d", $time);
    end
    if (valid) begin
      if (pixel !== want[got]) begin
        faults = faults + 1;
        $display("result %0d is %h instead of %h", got, pixel, want[got]);
      end
      got = got + 1;
      if (got > {results}) begin
        $display("%0d faults, %0d cycles", faults, cycles);
        $finish;
      end
    end
  end
  initial #{limit} begin
    $display("late: %0d bytes, %0d words, %0d results", bytes, sent, got);
    $finish;
  end
endmodule
"""


def write_bench(folder: Path, geometry: Geometry, sample: Sample, *, rom: bool) -> int:
    """Write ``bench.v`` and what it reads; the cycles of its last inference by the golden run.

    It prints "0 faults, CYCLES cycles" if no port has an unknown value after the reset, and results
    are golden's.
    """
    inputs = sample.inputs(2)
    want = run(parse(sample.image, geometry), inputs, sequential=True)
    words = {"input": inputs, "want": want.results}
    sizes = {"images": len(sample.image) - 1}
    (folder / "image.hex").write_text("".join(f"{byte:02x}\n" for byte in sample.image))
    for name, values in words.items():
        rows = np.asarray(values, np.uint8).reshape(-1, geometry.n)
        (folder / f"{name}.hex").write_text(
            "".join(row[::-1].tobytes().hex() + "\n" for row in rows)
        )
        sizes["inputs" if name == "input" else "results"] = len(rows) - 1
    limit = 40 * (len(sample.image) + geometry.weight_words + 4 * want.cycles)
    text = _BENCH.format(top=8 * geometry.n - 1, rom=int(rom), limit=limit, **sizes)
    (folder / "bench.v").write_text(text)
    return want.cycles

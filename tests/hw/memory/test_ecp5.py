"""The ECP5 primitives: the engine built of them, over models of DP16KD and MULT18X18D.

The models are written from the primitives' documentation, for the widths and register modes that
the engine uses; pins, byte enables and INITVAL were compared with what Yosys makes of inferred
memories. A parameter that a model does not know makes it drive nothing.
"""

from __future__ import annotations

import pytest

from secateur.hw.memory.weight_memory import SLICE_WORDS
from secateur.hw.spec import Geometry
from secateur.hw.verilog import to_verilog
from secateur.sim import simulate as bench
from secateur.sim.golden import parse, run
from tests.support.programs import UNLIMITED, assemble, random_program


def scalars(names: str, width: int) -> list[str]:
    return [f"{name}{bit}" for name in names.split() for bit in range(width)]


def vector(name: str, width: int) -> str:
    return "{" + ", ".join(f"{name}{bit}" for bit in reversed(range(width))) + "}"


def dp16kd() -> str:
    ports = [*scalars("DIA DIB", 18), *scalars("ADA ADB", 14), *scalars("CSA CSB", 3)]
    ports += [f"{pin}{side}" for side in "AB" for pin in ("CE", "OCE", "CLK", "WE", "RST")]
    outputs = scalars("DOA DOB", 18)
    init = "\n".join(f"parameter [319:0] INITVAL_{i:02X} = 320'h0;" for i in range(64))
    fill = "\n".join(
        f"for (i = 0; i < 16; i = i + 1) mem[{16 * i} + i] = INITVAL_{i:02X}[20 * i +: 18];"
        for i in range(64)
    )
    return f"""
module DP16KD({", ".join(ports + outputs)});
parameter DATA_WIDTH_A = 18; parameter DATA_WIDTH_B = 18;
parameter REGMODE_A = "NOREG"; parameter REGMODE_B = "NOREG";
parameter WRITEMODE_A = "NORMAL"; parameter WRITEMODE_B = "NORMAL";
parameter CSDECODE_A = "0b000"; parameter CSDECODE_B = "0b000";
parameter CLKAMUX = "CLKA"; parameter CLKBMUX = "CLKB";
parameter RESETMODE = "SYNC"; parameter GSR = "ENABLED";
{init}
input {", ".join(ports)};
output {", ".join(outputs)};
wire [17:0] di = {vector("DIA", 18)};
wire [13:0] ada = {vector("ADA", 14)};
wire [13:0] adb = {vector("ADB", 14)};
reg [17:0] mem [0:1023];
reg [17:0] read_a, out_a, read_b, out_b;
integer i;
initial begin
{fill}
end
wire known = DATA_WIDTH_A == DATA_WIDTH_B && (DATA_WIDTH_A == 18 || DATA_WIDTH_A == 9)
    && {vector("CSA", 3)} == 0 && {vector("CSB", 3)} == 0 && RSTA == 0 && RSTB == 0 && WEB == 0;
always @(posedge CLKA) begin
    if (CEA && WEA) begin
        if (DATA_WIDTH_A == 9) mem[ada[13:4]][9 * ada[3] +: 9] <= di[8:0];
        else begin
            if (ada[0]) mem[ada[13:4]][8:0] <= di[8:0];
            if (ada[1]) mem[ada[13:4]][17:9] <= di[17:9];
        end
    end
    if (CEA && !WEA) read_a <= DATA_WIDTH_A == 9 ? {{9'h0, mem[ada[13:4]][9 * ada[3] +: 9]}}
        : mem[ada[13:4]];
    if (OCEA) out_a <= read_a;
end
always @(posedge CLKB) begin
    if (CEB) read_b <= DATA_WIDTH_B == 9 ? {{9'h0, mem[adb[13:4]][9 * adb[3] +: 9]}}
        : mem[adb[13:4]];
    if (OCEB) out_b <= read_b;
end
assign {vector("DOA", 18)} = known && REGMODE_A == "OUTREG" ? out_a : 18'h0;
assign {vector("DOB", 18)} = known && REGMODE_B == "OUTREG" ? out_b : 18'h0;
endmodule
"""


def mult18x18d() -> str:
    ports = [*scalars("A B C", 18), "SIGNEDA", "SIGNEDB", "SOURCEA", "SOURCEB"]
    ports += ["CLK0", "CE0", "RST0"]
    outputs = scalars("P", 36)
    registers = "\n".join(
        f'parameter REG_{name}_CLK = "NONE"; parameter REG_{name}_CE = "CE0"; '
        f'parameter REG_{name}_RST = "RST0";'
        for name in ("INPUTA", "INPUTB", "OUTPUT", "PIPELINE")
    )
    return f"""
module MULT18X18D({", ".join(ports + outputs)});
{registers}
parameter RESETMODE = "SYNC"; parameter GSR = "ENABLED"; parameter MULT_BYPASS = "DISABLED";
input {", ".join(ports)};
output {", ".join(outputs)};
reg signed [18:0] a, b;
reg signed [37:0] p;
wire known = REG_INPUTA_CLK == "CLK0" && REG_INPUTB_CLK == "CLK0" && REG_OUTPUT_CLK == "CLK0"
    && REG_PIPELINE_CLK == "NONE" && SOURCEA == 0 && SOURCEB == 0;
always @(posedge CLK0) if (RST0) begin a <= 0; b <= 0; p <= 0; end
else if (CE0) begin
    a <= {{SIGNEDA & A17, {vector("A", 18)}}};
    b <= {{SIGNEDB & B17, {vector("B", 18)}}};
    p <= a * b;
end
assign {vector("P", 36)} = known ? p[35:0] : 36'h0;
endmodule
"""


@pytest.mark.long
@pytest.mark.parametrize("rom", [True, False])
def test_engine_of_primitives(rom: bool) -> None:
    """Bit for bit and cycle for cycle, with a weight memory of two slices of different widths."""
    geometry = Geometry(n=4, p=2, weight_words=SLICE_WORDS + 256, bank_words=64)
    sample = random_program(6, geometry, layers=3)
    size = geometry.word_bytes
    # The program is moved to the end of the memory's first slice and beyond it by configuration
    # words that are written over before anything reads them.
    words = [sample.image[at : at + size] for at in range(0, len(sample.image), size)]
    image = stretch(geometry, words)
    program = parse(image, geometry)
    inputs = sample.inputs(2)
    init = None
    if rom:
        init = [
            int.from_bytes(image[at : at + size], "little") for at in range(0, len(image), size)
        ]
    verilog = to_verilog(geometry, init, family="ecp5") + dp16kd() + mult18x18d()
    result = bench.simulate(image, inputs, geometry, verilog=verilog, rom=rom)
    comparison = bench.compare(result, run(program, inputs, sequential=True), inputs)
    assert comparison.mismatches == []
    assert comparison.cycles == comparison.golden_cycles


def stretch(geometry: Geometry, words: list[bytes]) -> bytes:
    program = words[geometry.header_words :]
    unused = bytes([0] * geometry.n + [62])
    padding = [unused] * (SLICE_WORDS - geometry.header_words - 20)
    return assemble(geometry, padding + program, cycles=UNLIMITED)

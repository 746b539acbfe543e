"""The bench in SystemVerilog around the engine: clock, stream sources and sinks, stalls, monitors.

For speed, single beats stay in HDL, and cocotb wakes only when the run has ended. Beats come from,
and go to, files in the folder of the run (``secateur.sim.drivers``).
"""

from __future__ import annotations

from secateur.hw.spec import Geometry

#: Ports of ``bench`` that cocotb reads or writes.
PUBLIC = (
    "rst", "close", "stall", "seed", "target", "sequence_inputs", "sequence_results",
    "image_bytes", "interval", "latency", "rest",
    "results", "now", "state", "error", "stopped",
)  # fmt: skip

_MODULES = """
// Presents the beats of a binary file, most significant byte first, with random pauses.
// A beat, once valid, stays until taken.
module bench_source #(parameter WIDTH = 8, parameter SALT = 1) (
  input wire clk, input wire rst, input wire [15:0] stall, input wire [31:0] seed,
  input integer file,
  output reg valid, output reg [WIDTH-1:0] payload, input wire ready
);
  reg [31:0] dice;
  reg [WIDTH-1:0] beat;
  reg ended;
  always @(posedge clk)
    if (rst) begin
      valid <= 0;
      ended <= file == 0;
      dice <= (seed * 32'd2654435761) ^ SALT;
    end else begin
      dice <= dice ^ (dice << 13) ^ ((dice ^ (dice << 13)) >> 17)
            ^ ((dice ^ (dice << 13) ^ ((dice ^ (dice << 13)) >> 17)) << 5);
      if (!valid || ready) begin
        valid <= 0;
        if (!ended && dice[15:0] >= stall) begin
          if ($fread(beat, file) == WIDTH / 8) begin
            valid <= 1;
            payload <= beat;
          end else ended <= 1;
        end
      end
    end
endmodule

// Presents the bytes of a file again and again, a byte in an interval, each time after a latency.
module bench_memory #(parameter SALT = 1) (
  input wire clk, input wire rst, input wire [15:0] stall, input wire [31:0] seed,
  input integer file, input wire [31:0] size, input wire [31:0] interval,
  input wire [31:0] latency,
  output reg valid, output reg [7:0] payload, input wire ready
);
  reg [31:0] dice, left, at;
  reg [7:0] beat;
  integer got;
  always @(posedge clk)
    if (rst) begin
      valid <= 0;
      at <= 0;
      left <= latency;
      dice <= (seed * 32'd2654435761) ^ SALT;
    end else begin
      dice <= dice ^ (dice << 13) ^ ((dice ^ (dice << 13)) >> 17)
            ^ ((dice ^ (dice << 13) ^ ((dice ^ (dice << 13)) >> 17)) << 5);
      if (left != 0) left <= left - 1;
      if (!valid || ready) begin
        valid <= 0;
        if (left == 0 && size != 0 && dice[15:0] >= stall) begin
          if (at == size) begin
            at <= 0;
            left <= latency == 0 ? 0 : latency - 1;
            got = $fseek(file, 0, 0);
          end
          if (at != size || latency == 0) begin
            got = $fread(beat, file);
            valid <= 1;
            payload <= beat;
            at <= at == size ? 1 : at + 1;
            left <= interval - 1;
          end
        end
      end
    end
endmodule

// Is ready at random times.
module bench_ready #(parameter SALT = 1) (
  input wire clk, input wire rst, input wire [15:0] stall, input wire [31:0] seed,
  output reg ready
);
  reg [31:0] dice;
  always @(posedge clk)
    if (rst) begin
      ready <= 0;
      dice <= (seed * 32'd2654435761) ^ SALT;
    end else begin
      dice <= dice ^ (dice << 13) ^ ((dice ^ (dice << 13)) >> 17)
            ^ ((dice ^ (dice << 13) ^ ((dice ^ (dice << 13)) >> 17)) << 5);
      ready <= dice[15:0] >= stall;
    end
endmodule
"""

_BENCH = """
module bench (
  input wire rst, input wire close, input wire [15:0] stall, input wire [31:0] seed,
  input wire [31:0] target,
  input wire [31:0] sequence_inputs, input wire [31:0] sequence_results,
  input wire [31:0] image_bytes, input wire [31:0] interval, input wire [31:0] latency,
  input wire [31:0] rest,
  output reg [31:0] results, output reg [31:0] now,
  output wire [2:0] state, output wire [3:0] error, output wire stopped
);
  localparam N = {n};
  reg clk = 0;
  always #1 clk = !clk;

  wire input_valid, input_ready, result_valid, result_ready, trace_valid, trace_input, trace_result;
  wire [8*N-1:0] input_payload, result_payload, trace_data;
  wire [15:0] trace_m;
  wire [15:0] trace_layer;
  wire [31:0] cycles, memory_wait;
  wire upset;
  // After every sequence of inferences the engine restarts; inputs wait until it has.
  wire source_valid;
  reg hold, restart;
  reg [5:0] release_in;
  reg [31:0] sequence_taken, sequence_given;
  always @(posedge clk)
    if (rst) begin
      hold <= 0;
      restart <= 0;
      release_in <= 0;
      sequence_taken <= 0;
      sequence_given <= 0;
    end else begin
      restart <= 0;
      if (input_valid && input_ready) begin
        sequence_taken <= sequence_taken + 1;
        if (sequence_taken + 1 == sequence_inputs) hold <= 1;
      end
      if (result_valid && result_ready) sequence_given <= sequence_given + 1;
      if (hold && release_in == 0 && sequence_given == sequence_results && state == 2) begin
        restart <= 1;
        release_in <= 63;
        sequence_taken <= 0;
        sequence_given <= 0;
      end
      if (release_in != 0) release_in <= release_in - 1;
      if (release_in == 1) hold <= 0;
    end

  // The first input may wait until a ring is full.
  reg [31:0] rested;
  wire rests = rested < rest;
  always @(posedge clk)
    if (rst) rested <= 0;
    else if (state == 2 && rests) rested <= rested + 1;

  integer image_file, input_file, result_file, trace_file, status_file;
  initial begin
    image_file = {image_open};
    input_file = $fopen("input.bin", "rb");
    result_file = $fopen("result.txt", "w");
    trace_file = $fopen("trace.txt", "w");
    status_file = $fopen("status.txt", "w");
  end

  bench_source #(.WIDTH(8 * N), .SALT(32'h1234567)) input_source (
    .clk(clk), .rst(rst), .stall(stall), .seed(seed), .file(input_file),
    .valid(source_valid), .payload(input_payload), .ready(input_ready && !hold && !rests));
  assign input_valid = source_valid && !hold && !rests;
  bench_ready #(.SALT(32'h89abcde)) result_sink (
    .clk(clk), .rst(rst), .stall(stall), .seed(seed), .ready(result_ready));
  wire image_valid, image_ready;
  wire [7:0] image_payload;
  {image_source} #({image_width}.SALT(32'h5eca7e)) image_source (
    .clk(clk), .rst(rst), .stall(stall), .seed(seed), .file(image_file),{image_ports}
    .valid(image_valid), .payload(image_payload), .ready(image_ready));
  {top} dut (
    .clk(clk), .rst(rst), .control__reset(1'b0), .control__restart(restart),
    .image__valid(image_valid), .image__payload(image_payload), .image__ready(image_ready),
    .input__valid(input_valid), .input__payload(input_payload), .input__ready(input_ready),
    .result__valid(result_valid), .result__payload(result_payload), .result__ready(result_ready),
    .trace__valid(trace_valid), .trace__input(trace_input), .trace__layer(trace_layer),
    .trace__m(trace_m), .trace__data(trace_data), .trace__result(trace_result),
    .status__state(state), .status__error(error), .status__cycles(cycles),
    .status__memory_wait(memory_wait), .status__upset(upset){more});

  reg [31:0] inferences;  // that have ended: separates those of the trace
  reg [2:0] last_state;
  reg held;
  reg [8*N-1:0] held_payload;
  reg ended;
  assign stopped = ended;
  always @(posedge clk)
    if (rst) begin
      results <= 0;
      inferences <= 0;
      now <= 0;
      last_state <= 0;
      held <= 0;
      ended <= 0;
    end else begin
      now <= now + 1;
      last_state <= state;
      ended <= (results >= target && state != 3) || state == 4;
      if (result_valid && result_ready) begin
        results <= results + 1;
        $fwrite(result_file, "%h\\n", result_payload);
      end
      if (last_state == 3 && state != 3) inferences <= inferences + 1;
      held <= result_valid && !result_ready;
      held_payload <= result_payload;
      if (held && (!result_valid || result_payload != held_payload))
        $error("the result stream changed or withdrew a stalled beat");
      if (trace_valid)
        $fwrite(trace_file, "%h %h %h %h %h %0d\\n",
                trace_input, trace_layer, trace_m, trace_data, trace_result, inferences);
      if (state != last_state)
        $fwrite(status_file, "%0d %0d %0d %0d %0d %0d %0d\\n",
                now, last_state, state, error, cycles, memory_wait, upset);
    end
  reg closed = 0;  // `close` itself may be anything at power-up
  always @(posedge clk)
    if (close && !closed) begin
      closed <= 1;
      $fwrite(status_file, "%0d\\n", now);
      $fclose(result_file);
      $fclose(trace_file);
      $fclose(status_file);
    end
endmodule
"""


def bench_verilog(geometry: Geometry, *, rom: bool, top: str = "secateur") -> str:
    """SystemVerilog of module ``bench`` around the engine.

    Parameters
    ----------
    geometry : of the engine
    rom : the image is built into the engine; nothing is loaded
    top : module name of the engine
    """
    rate = ".size(image_bytes), .interval(interval), .latency(latency),"
    bench = _BENCH.format(
        n=geometry.n,
        top=top,
        more=", .image_failed(1'b0)" if geometry.ring else "",
        image_source="bench_memory" if geometry.ring else "bench_source",
        image_width="" if geometry.ring else ".WIDTH(8), ",
        image_ports=f"\n    {rate}" if geometry.ring else "",
        image_open="0" if rom else '$fopen("image.bin", "rb")',
    )
    return _MODULES + bench


def public_ports() -> str:
    """Verilator control file: only the bench's own ports are visible to cocotb."""
    lines = [f'public_flat_rw -module "bench" -var "{name}"' for name in PUBLIC]
    return "\n".join(["`verilator_config", *lines, ""])

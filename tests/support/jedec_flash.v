// A serial NOR flash as its data sheet has it: single and quad fast reads, power-down, the two ways
// in which quad reads are enabled, sectors erased, pages programmed, status and name. Written from the
// command set alone; time is in ns.
//
// It gives garbage from HOLD after a falling edge to VALID after it, and stops the simulation where
// a host breaks its rules. Behind CLEAN reads a bit of data is wrong by a chance of ERRORS in 2**24.
module jedec_flash #(
  parameter SIZE = 65536, parameter BASE = 0, parameter FILE = "image.bin",
  parameter DUMMIES_QUAD = 4, parameter DUMMIES_SINGLE = 8,
  parameter HOLD = 0, parameter VALID = 1, parameter WAKE = 100, parameter DESELECT = 2,
  parameter ENABLED = 1,   // quad reads are: status 2, bit 1, or status 1, bit 6
  parameter BUSY = 3000,   // for which it is, after an erasure or a page
  parameter ASLEEP = 1, parameter CONTINUES = 0, parameter ERRORS = 0, parameter CLEAN = 0
) (
  input wire cs_n, input wire sck, input wire [3:0] drive, input wire [3:0] value,
  output wire [3:0] level, output reg [31:0] reads
);
  reg [7:0] memory [0:SIZE-1];
  integer file, got;
  initial begin
    for (got = 0; got < SIZE; got = got + 1) memory[got] = 8'hff;
    file = $fopen(FILE, "rb");
    if (file != 0) begin
      got = $fread(memory, file);
      $fclose(file);
    end
  end

  // What the flash drives, and what is on the lines: pulled up where nobody does.
  reg [3:0] own_drive = 0, own = 0;
  wire [3:0] driven = cs_n ? 0 : own_drive;
  assign level = (drive & value) | (driven & own) | ~(drive | driven);
  always @(posedge sck) if (|(drive & driven)) $fatal(1, "two drive a line");

  reg asleep = ASLEEP, quad_enabled = ENABLED, continues = CONTINUES, may_write = 0;
  time awake_at = 0, deselected_at = 0;
  reg [7:0] command, mode, shift;
  reg [23:0] address;
  integer clocks, bits, data_at;
  reg wide;
  reg [7:0] status [0:1];
  initial begin
    status[0] = 0; status[1] = 0; reads = 0;
  end

  // A transfer begins: with a command, or where quad reads continue with an address.
  always @(negedge cs_n) begin
    if ($time - deselected_at < DESELECT) $fatal(1, "deselected for %0d ns", $time - deselected_at);
    if ($time < awake_at) $fatal(1, "selected %0d ns before it is awake", awake_at - $time);
    clocks = 0;
    bits = 0;
    data_at = -1;
    own_drive = 0;
    wide = continues;
    command = continues ? 8'heb : 8'h00;
  end

  // One that is busy answers questions on its status alone.
  time ready_at = 0;
  wire one_line_read = command == 8'h0b || command == 8'h03;
  wire changes = command == 8'h20 || command == 8'h02;
  reg [7:0] page [0:255];
  integer programmed;  // bytes of a page that have come

  integer after;  // clocks behind the command
  always @(posedge sck) if (!cs_n) begin
    if (!continues && clocks < 8) begin
      command = {command[6:0], level[0]};
      if (clocks == 7) begin
        wide = command == 8'heb && quad_enabled;
        programmed = 0;
        if ($time < ready_at && command != 8'h05) $fatal(1, "command %0h while it is busy", command);
        if (!asleep && (command == 8'h05 || command == 8'h9f)) data_at = 0;
      end
    end else if (!asleep) begin
      after = clocks - (continues ? 0 : 8);
      if (wide && after < 6) address = {address[19:0], level};
      else if (wide && after < 8) mode = {mode[3:0], level};
      else if (!wide && (one_line_read || changes) && after < 24)
        address = {address[22:0], level[0]};
      else if (command == 8'h02) begin
        shift = {shift[6:0], level[0]};
        if (after % 8 == 7) begin
          page[(address + programmed) % 256] = shift;
          programmed = programmed + 1;
        end
      end
      else if (command == 8'h31 || command == 8'h01) shift = {shift[6:0], level[0]};
      if (wide && after == 7 + DUMMIES_QUAD) data_at = 0;
      if (command == 8'h0b && after == 23 + DUMMIES_SINGLE) data_at = 0;
      if (command == 8'h03 && after == 23) data_at = 0;
      if (data_at == 0) reads = reads + 1;
      if (wide && after < 8 && (drive | 4'h2) != 4'hf) $fatal(1, "an address on no lines");
    end
    clocks = clocks + 1;
  end

  // Data leave behind falling edges; garbage before.
  wire [7:0] stored = address - BASE < SIZE ? memory[address - BASE] : 8'hff;
  wire [23:0] name = 24'hef4018;
  wire [7:0] here = command == 8'h05 ? {6'b0, may_write, $time < ready_at} :
    command == 8'h9f ? (data_at < 24 ? name[23 - data_at / 8 * 8 -: 8] : 8'h00) : stored;
  reg [3:0] next, wrong;
  task automatic give(input [3:0] lines, input [3:0] levels);
    fork
      begin
        #(HOLD);
        own_drive = lines;
        own = ~levels;
        #(VALID - HOLD);
        own = levels;
      end
    join_none
  endtask
  always @(negedge sck) if (!cs_n && data_at >= 0) begin
    wrong = 0;
    for (got = 0; got < 4; got = got + 1)
      if (reads > CLEAN && ($urandom & 32'hffffff) < ERRORS) wrong[got] = 1;
    if (wide) begin
      next = (data_at % 2 == 0 ? here[7:4] : here[3:0]) ^ wrong;
      give(4'hf, next);
      if (data_at % 2 == 1) address = address + 1;
    end else begin
      next = {2'b0, here[7 - data_at % 8] ^ wrong[1], 1'b0};
      give(4'h2, next);
      if (data_at % 8 == 7) address = address + 1;
    end
    data_at = data_at + 1;
  end

  // What a transfer has asked for, once it is over.
  always @(posedge cs_n) begin
    deselected_at = $time;
    if (data_at >= 0 || wide) begin
      if (wide) continues = mode[5:4] == 2'b10 && clocks >= (continues ? 8 : 16);
    end else if (asleep) begin
      if (clocks == 8 && command == 8'hab) begin
        asleep = 0;
        awake_at = $time + WAKE;
      end
    end else if (clocks == 8 && command == 8'hb9) asleep = 1;
    else if (changes && may_write && (command == 8'h20 ? clocks == 32 : clocks % 8 == 0)) begin
      for (got = 0; got < (command == 8'h20 ? 4096 : programmed); got = got + 1)
        if (command == 8'h20) memory[(address & ~24'hfff) - BASE + got] = 8'hff;
        else memory[{address[23:8], address[7:0] + got[7:0]} - BASE] =
          memory[{address[23:8], address[7:0] + got[7:0]} - BASE] & page[(address + got) % 256];
      ready_at = $time + BUSY;
      may_write = 0;
    end
    else if (clocks == 8 && (command == 8'h06 || command == 8'h50)) may_write = 1;
    else if (clocks == 16 && may_write && (command == 8'h31 || command == 8'h01)) begin
      status[command == 8'h31] = shift;
      quad_enabled = status[1][1] | status[0][6];
      may_write = 0;
    end
  end
endmodule

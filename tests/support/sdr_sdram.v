// An SDR SDRAM of 16 bits as its data sheet has it, for single columns, with a flip-flop at each pin.
// Written from the command set alone; times are in cycles, HOLD and VALID in ns.
//
// Its clock rises when that of the controller falls. A bit of "broken" says which rule a controller
// has broken; with STRICT that ends the simulation. A row that is not refreshed in time is lost: its
// bits are inverted. Behind CLEAN reads of the first half-word a bit of data is wrong by a chance of
// ERRORS in 2**24.
module sdr_sdram #(
  parameter ROWS = 8, parameter LATENCY = 3, parameter RCD = 3, parameter RP = 3,
  parameter RAS = 7, parameter RC = 9, parameter WR = 2, parameter MRD = 2, parameter REFRESHES = 8,
  parameter RETENTION = 1200, parameter POWER_UP = 125, parameter HOLD = 0, parameter VALID = 0,
  parameter STRICT = 1, parameter ERRORS = 0, parameter CLEAN = 0
) (
  input wire clk, input wire [2:0] command, input wire [1:0] bank,
  input wire [12:0] address, input wire mask, input wire drive, input wire [15:0] value,
  output reg [15:0] level, output reg [15:0] broken
);
  localparam BEGIN = 0, OPEN_ROW = 1, MODE = 2, T_RCD = 3, T_RP = 4, T_RC = 5, T_RAS = 6, T_WR = 7,
    T_MRD = 8, REFRESH = 9, LINES = 10;
  task automatic rule(input integer number, input kept);
    if (!kept) begin
      broken[number] = 1;
      if (STRICT) $fatal(1, "SDRAM: rule %0d", number);
    end
  endtask

  // The flip-flops at the pins.
  reg [2:0] pin_command = 7;
  reg [1:0] pin_bank = 0;
  reg [12:0] pin_address = 0;
  reg pin_mask = 1, pin_drive = 0;
  reg [15:0] pin_value = 0;
  reg own_drive = 0;
  reg [15:0] own = 0;
  always @(posedge clk) begin
    {pin_command, pin_bank, pin_address} <= {command, bank, address};
    {pin_mask, pin_drive, pin_value} <= {mask, drive, value};
    level <= pin_drive ? pin_value : own_drive ? own : 16'hdead;
    rule(LINES, !(pin_drive && own_drive));
  end

  integer now = 0, sent = 0, i, j;
  reg [15:0] memory [0:ROWS*2048-1];
  reg lost [0:ROWS*4-1];
  integer kept_at [0:ROWS*4-1];  // when a row was refreshed or opened
  integer turn = 0;              // the next row that is refreshed
  integer turned [0:ROWS-1];     // when its turn was; -1: not since the mode was set
  integer refreshed = -100000, refreshes = 0, moded = -100000, reads = 0;
  reg [1:0] stage = 0;           // of the beginning: power, precharged, refreshed, mode
  reg [3:0] open = 0;
  reg [12:0] row [0:3];
  integer opened [0:3], closed [0:3], written [0:3];
  reg out_valid [0:3];
  reg [15:0] out [0:3];
  reg [15:0] wrong;
  integer place;
  initial begin
    broken = 0;
    for (i = 0; i < ROWS * 4; i = i + 1) begin lost[i] = 1; kept_at[i] = 0; end
    for (i = 0; i < 4; i = i + 1) begin
      opened[i] = -100000; closed[i] = -100000; written[i] = -100000; out_valid[i] = 0;
    end
  end

  task automatic touch(input integer at);
    begin
      if (now - kept_at[at] > RETENTION) lost[at] = 1;
      kept_at[at] = now;
    end
  endtask
  task automatic give(input valid, input [15:0] data);
    fork
      begin
        #(HOLD);
        own = ~own;
        own_drive = own_drive && valid;
        #(VALID - HOLD);
        own_drive = valid;
        own = data;
      end
    join_none
  endtask

  always @(negedge clk) begin
    now = now + 1;
    give(out_valid[LATENCY - 2], out[LATENCY - 2]);
    for (i = 3; i > 0; i = i - 1) begin out_valid[i] = out_valid[i-1]; out[i] = out[i-1]; end
    out_valid[0] = 0;
    if (pin_command != 7) begin
      // The controller begins anew, behind a silence: no row need have been kept.
      if (pin_command == 3'b010 && now - sent >= POWER_UP) begin stage = 0; refreshes = 0; end
      sent = now;
      rule(BEGIN, now >= POWER_UP);
      rule(T_MRD, now - moded >= MRD);
      rule(T_RC, now - refreshed >= RC);
    end
    case (pin_command)
      3'b011: begin  // ACTIVATE
        rule(BEGIN, stage == 3);
        rule(REFRESH, now - refreshed <= 9 * RETENTION / ROWS);  // at most eight may be late
        rule(OPEN_ROW, !open[pin_bank] && pin_address < ROWS);
        rule(T_RP, now - closed[pin_bank] >= RP);
        rule(T_RC, now - opened[pin_bank] >= RC);
        open[pin_bank] = 1;
        row[pin_bank] = pin_address;
        opened[pin_bank] = now;
        touch(pin_address % ROWS * 4 + pin_bank);
      end
      3'b101, 3'b100: begin  // READ, WRITE
        rule(OPEN_ROW, open[pin_bank] && !pin_address[10] && pin_address < 512 && !pin_mask);
        rule(T_RCD, now - opened[pin_bank] >= RCD);
        place = (row[pin_bank] % ROWS * 4 + pin_bank) * 512 + pin_address[8:0];
        if (pin_command == 3'b101) begin
          if (place == 0) reads = reads + 1;
          wrong = reads > CLEAN && ($urandom & 32'hffffff) < ERRORS ? 1 << ($urandom & 15) : 0;
          out_valid[0] = 1;
          out[0] = (lost[place / 512] ? ~memory[place] : memory[place]) ^ wrong;
        end else begin
          rule(LINES, pin_drive);
          written[pin_bank] = now;
          lost[place / 512] = 0;
          memory[place] = pin_value;
        end
      end
      3'b010: for (j = 0; j < 4; j = j + 1) if (pin_address[10] || j == pin_bank) begin  // PRECHARGE
        if (stage == 0 && pin_address[10]) stage = 1;
        if (open[j]) begin
          rule(T_RAS, now - opened[j] >= RAS);
          rule(T_WR, now - written[j] >= WR);
        end
        open[j] = 0;
        closed[j] = now;
      end
      3'b001: begin  // REFRESH
        rule(BEGIN, stage != 0);
        rule(OPEN_ROW, open == 0);
        for (j = 0; j < 4; j = j + 1) begin
          rule(T_RP, now - closed[j] >= RP);
          rule(T_RC, now - opened[j] >= RC);
          touch(turn * 4 + j);
        end
        if (stage == 3 && turned[turn] >= 0) rule(REFRESH, now - turned[turn] <= RETENTION);
        turned[turn] = stage == 3 ? now : -1;
        turn = (turn + 1) % ROWS;
        refreshed = now;
        refreshes = refreshes + 1;
        if (stage == 1 && refreshes >= REFRESHES) stage = 2;
      end
      3'b000: begin  // MODE: one column, CAS latency
        rule(BEGIN, stage >= 2);
        rule(OPEN_ROW, open == 0);
        rule(MODE, pin_address == LATENCY << 4 && pin_bank == 0);
        stage = 3;
        moded = now;
        for (j = 0; j < ROWS; j = j + 1) turned[j] = -1;
      end
      3'b111: ;
      default: rule(MODE, 0);
    endcase
  end
endmodule

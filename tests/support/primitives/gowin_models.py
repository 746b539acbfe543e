"""Models of Gowin's primitives, from their documentation, for the modes that the engine uses.

A parameter that a model does not know makes it drive nothing. The PLL, whatever it is to make,
makes the oscillator's own clock, and locks after a hundred cycles.
"""

MULT18X18 = """
module MULT18X18(A, SIA, B, SIB, ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET, DOUT, SOA, SOB);
parameter AREG = 1'b0; parameter BREG = 1'b0; parameter OUT_REG = 1'b0;
parameter PIPE_REG = 1'b0; parameter ASIGN_REG = 1'b0; parameter BSIGN_REG = 1'b0;
parameter SOA_REG = 1'b0; parameter MULT_RESET_MODE = "SYNC";
input [17:0] A, SIA, B, SIB;
input ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET;
output [35:0] DOUT;
output [17:0] SOA, SOB;
reg signed [18:0] a, b;
reg signed [37:0] product;
wire known = AREG == 1 && BREG == 1 && OUT_REG == 1 && PIPE_REG == 0 && ASIGN_REG == 0
    && BSIGN_REG == 0 && SOA_REG == 0 && ASEL == 0 && BSEL == 0;
always @(posedge CLK) if (RESET) begin a <= 0; b <= 0; product <= 0; end
else if (CE) begin
    a <= {ASIGN & A[17], A};
    b <= {BSIGN & B[17], B};
    product <= a * b;
end
assign DOUT = known ? product[35:0] : 36'h0;
assign SOA = 0, SOB = 0;
endmodule
"""

CLOCKS = """
module rPLL #(
  parameter FCLKIN = "0", parameter DEVICE = "", parameter CLKFB_SEL = "internal",
  parameter IDIV_SEL = 0, parameter FBDIV_SEL = 0, parameter ODIV_SEL = 8,
  parameter DYN_IDIV_SEL = "true", parameter DYN_FBDIV_SEL = "true",
  parameter DYN_ODIV_SEL = "true", parameter DYN_DA_EN = "true",
  parameter PSDA_SEL = "0000", parameter DUTYDA_SEL = "0000"
) (
  input CLKIN, CLKFB, RESET, RESET_P, input [5:0] FBDSEL, IDSEL, ODSEL,
  input [3:0] PSDA, DUTYDA, FDLY, output CLKOUT, LOCK
);
  reg [6:0] count = 0;
  assign CLKOUT = CLKIN;
  assign LOCK = count == 100;
  always @(posedge CLKIN) if (!LOCK && !RESET && !RESET_P) count <= count + 1;
endmodule

module DQCE(input CLKIN, CE, output CLKOUT);
  reg open = 0;
  always @(negedge CLKIN) open <= CE;
  assign CLKOUT = CLKIN & open;
endmodule
"""

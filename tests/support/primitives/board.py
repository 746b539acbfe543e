"""A board as ``pty`` wants it."""

#: Around the module ``top`` of a board whose lights are low for on.
BOARD = """
module secateur(input clk, input rst, input rx, output tx, output running);
  wire off, error;
  assign running = !off;
  top board(.clk(clk), .rx(rx), .tx(tx), .running(off), .error(error));
endmodule
"""

"""A simulated board: the engine behind its UART in Verilator, behind a pseudo-terminal.

A program that opens the terminal as a serial port talks to the simulated line, byte for byte; baud
rates are ignored. The clock stands still while the board is idle. While a request is on its way or
not yet answered, the board sends signs of life, so that a slow simulation does not time out.
"""

from __future__ import annotations

import contextlib
import os
import pty
import tempfile
import threading
import tty
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from secateur.hw.spec import Geometry, words_of
from secateur.sim import verilator

#: Cycles of a bit: few, since each is simulated.
DIVISOR = 4
#: Ports of ``bench`` that cocotb reads or writes.
PUBLIC = ("rst", "send", "send_go", "sending", "got", "got_go", "running")

_BENCH = """
// An independent UART on the other end of the line: one byte at a time each way. A change of `*_go`
// announces a byte.
module bench (
  input wire rst,
  input wire [7:0] send, input wire send_go, output wire sending,
  output reg [7:0] got, output reg got_go, output wire running
);
  localparam D = {divisor};
  reg clk = 0;
  always #1 clk = !clk;
  wire tx;
  reg rx = 1;
  secateur dut (.clk(clk), .rst(rst), .rx(rx), .tx(tx), .running(running));

  reg send_seen = 0;
  integer out_at = 10 * D;
  wire [9:0] frame = {{1'b1, send, 1'b0}};
  assign sending = send_go != send_seen;
  always @(posedge clk)
    if (sending) begin
      rx <= frame[out_at / D];
      out_at <= out_at + 1;
      if (out_at == 10 * D - 1) send_seen <= send_go;
    end else out_at <= 0;

  integer in_at = -1;
  reg [7:0] bits;
  initial got_go = 0;
  always @(posedge clk)
    if (in_at < 0) begin
      if (!tx) in_at <= 1;
    end else begin
      in_at <= in_at + 1;
      if (in_at % D == D / 2) begin
        if (in_at / D == 0 && tx) in_at <= -1;
        else if (in_at / D == 9) begin
          in_at <= -1;
          if (!tx) $error("the UART sent a byte without a stop bit");
          got <= bits;
          got_go <= !got_go;
        end else bits <= {{tx, bits[7:1]}};
      end
    end
endmodule
"""


@dataclass
class Board:
    """A simulated board.

    Attributes
    ----------
    path : its serial port
    """

    path: str
    _thread: threading.Thread
    _failures: list[BaseException] = field(default_factory=list)

    def wait(self) -> None:
        """Wait until the simulation ends by itself, which is a failure.

        Raises
        ------
        SimulationError : it has failed
        """
        self._thread.join()
        if self._failures:
            raise self._failures[0]


def build(
    geometry: Geometry,
    *,
    rom: bytes | None = None,
    divisor: int = DIVISOR,
    verilog: str | None = None,
) -> Path:
    """The simulator's executable, from the cache or built now.

    Parameters
    ----------
    geometry : of the engine
    rom : bytes of an image that is built into the engine, or None
    divisor : cycles of a bit on the line
    verilog : a module ``secateur`` with the ports that ``bench`` connects, and the modules that it
        needs; None: the engine behind its link

    Raises
    ------
    SimulationError : a tool fails
    """
    from secateur.hw.verilog import to_verilog

    words = None if rom is None else words_of(rom, geometry.word_bytes)
    engine = verilog or to_verilog(geometry, init=words, interface="uart", divisor=divisor)
    public = [f'public_flat_rw -module "bench" -var "{name}"' for name in PUBLIC]
    control = "\n".join(["`verilator_config", *public, ""])
    return verilator.build(engine + _BENCH.format(divisor=divisor), control)


@contextlib.contextmanager
def serve(
    geometry: Geometry, *, rom: bytes | None = None, verilog: str | None = None
) -> Iterator[Board]:
    """A simulated board, until the context ends.

    Parameters
    ----------
    geometry, rom, verilog : as for ``build``

    Raises
    ------
    SimulationError : a tool or the simulation fails
    """
    program = build(geometry, rom=rom, verilog=verilog)
    master, slave = pty.openpty()
    stop, stopper = os.pipe()
    tty.setraw(slave)
    # The terminal stays open here as well: it must outlive each program that uses it.
    opened = {master, slave, stop, stopper}
    failures: list[BaseException] = []

    def simulate() -> None:
        settings = {
            "SECATEUR_TERMINAL": str(master),
            "SECATEUR_STOP": str(stop),
            "SECATEUR_DIVISOR": str(DIVISOR),
        }
        with tempfile.TemporaryDirectory(prefix="secateur-") as name:
            try:
                verilator.execute(
                    program, Path(name), "secateur.sim.pty_bench", settings, files=(master, stop)
                )
            except verilator.SimulationError as error:
                failures.append(error)
                os.write(master, b"\n")  # so that no one waits for the first sign of life

    thread = threading.Thread(target=simulate, daemon=True)
    board = Board(os.ttyname(slave), thread, failures)
    try:
        thread.start()
        os.read(slave, 1)
        if failures:
            raise failures[0]
        yield board
    finally:
        opened.remove(stopper)
        os.close(stopper)
        thread.join()
        for number in opened:
            os.close(number)
    board.wait()

"""RAMs of an ASIC: modules of their own, one per size, that a foundry's macros replace.

Their Verilog is the specification of the macro. Nothing else in the engine holds a large array.
"""

from __future__ import annotations

import re

from amaranth.hdl import ClockSignal, Instance
from amaranth.utils import ceil_log2

#: Module names, for tools: kind, bits of a word, words.
NAME = re.compile(r"\bsecateur_ram_(1r1w|1rw1r)_(\d+)x(\d+)\b")

_ONE_READ_ONE_WRITE = """
// {depth} words of {width} bits; one port writes, one reads, if necessary in the same cycle. A read
// of the word that is written in the same cycle is undefined, as are contents at power-up.
module {name} (
  input clk,
  input write_en, input [{high}:0] write_addr, input [{top}:0] write_data,
  input [{high}:0] read_addr, output reg [{top}:0] read_data
);
  reg [{top}:0] mem [0:{last}];
  always @(posedge clk) begin
    if (write_en) mem[write_addr] <= write_data;
    read_data <= mem[read_addr];
  end
endmodule
"""
_TWO_READ = """
// {depth} words of {width} bits; port a writes or reads, port b reads. A read in a cycle in which
// port a writes is undefined, as are contents at power-up.
module {name} (
  input clk,
  input a_write_en, input [{high}:0] a_addr, input [{top}:0] a_write_data,
  output reg [{top}:0] a_read_data,
  input [{high}:0] b_addr, output reg [{top}:0] b_read_data
);
  reg [{top}:0] mem [0:{last}];
  always @(posedge clk) begin
    if (a_write_en) mem[a_addr] <= a_write_data;
    else a_read_data <= mem[a_addr];
    b_read_data <= mem[b_addr];
  end
endmodule
"""
_KINDS = {"1r1w": _ONE_READ_ONE_WRITE, "1rw1r": _TWO_READ}


def one_read_one_write(*, width: int, depth: int, write: tuple, read: tuple) -> Instance:
    """An instance of a RAM with a write port and a read port.

    Parameters
    ----------
    width : bits of a word
    depth : words
    write : enable, address, data
    read : address; data, a cycle later
    """
    return Instance(
        f"secateur_ram_1r1w_{width}x{depth}",
        i_clk=ClockSignal(),
        i_write_en=write[0],
        i_write_addr=write[1],
        i_write_data=write[2],
        i_read_addr=read[0],
        o_read_data=read[1],
    )


def two_read(*, width: int, depth: int, write: tuple, a: tuple, b: tuple) -> Instance:
    """An instance of a RAM with two read ports, the first of which also writes.

    Parameters
    ----------
    width : bits of a word
    depth : words
    write : enable, data; to the address of ``a``
    a : address; data, a cycle later
    b : address; data, a cycle later
    """
    return Instance(
        f"secateur_ram_1rw1r_{width}x{depth}",
        i_clk=ClockSignal(),
        i_a_write_en=write[0],
        i_a_write_data=write[1],
        i_a_addr=a[0],
        o_a_read_data=a[1],
        i_b_addr=b[0],
        o_b_read_data=b[1],
    )


def definitions(verilog: str) -> str:
    """Verilog of all RAM modules of which ``verilog`` has instances."""
    found = sorted(set(NAME.findall(verilog)))
    return "".join(_definition(kind, int(width), int(depth)) for kind, width, depth in found)


def _definition(kind: str, width: int, depth: int) -> str:
    name = f"secateur_ram_{kind}_{width}x{depth}"
    high, top, last = ceil_log2(depth) - 1, width - 1, depth - 1
    sizes = {"depth": depth, "width": width, "high": high, "top": top, "last": last}
    return _KINDS[kind].format(name=name, **sizes)

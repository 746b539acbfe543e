"""A small first-in first-out queue in LUT RAM, or in block RAM, with an output register."""

from __future__ import annotations

from amaranth.hdl import Module, Shape, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

#: Cycles from a write into an empty queue to ``output.valid``.
FIFO_LATENCY = 2


class CreditFifo(wiring.Component):
    """A queue whose writer counts credits: there is no back-pressure on the write side.

    The writer must not have more than ``depth`` payloads in the queue or on the way to it.

    Parameters
    ----------
    shape : of a payload
    depth : payloads that fit, at least 2
    block : in block RAM, whose own register is the output register; all else is the same

    Members
    -------
    write_en : In(1)  a payload comes
    write_data : In(shape)  that payload
    output : Out(stream of shape)  in order
    more : Out(1)  behind the payload that ``output`` has, there is another
    """

    def __init__(self, *, shape, depth: int, block: bool = False):
        if depth < 2:
            raise ValueError(f"depth must be at least 2, not {depth!r}")
        self.shape, self.depth, self.block = shape, depth, block
        super().__init__(
            {
                "write_en": In(1),
                "write_data": In(shape),
                "output": Out(stream.Signature(shape)),
                "more": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        width = Shape.cast(self.shape).width
        # A word is not read in the cycle in which it is written.
        attributes = {"no_rw_check": 1} | ({} if self.block else {"ram_style": "distributed"})
        m.submodules.mem = mem = memory.Memory(
            shape=width, depth=self.depth, init=[], attrs=attributes
        )
        write = mem.write_port()
        read = mem.read_port(domain="sync" if self.block else "comb")
        level = Signal(range(self.depth + 1))
        filled = Signal()
        valid = Signal()
        payload = Signal(width, reset_less=True)
        take = Signal()
        m.d.comb += [
            write.en.eq(self.write_en),
            write.data.eq(self.write_data),
            take.eq(filled & (~valid | self.output.ready)),
            self.output.valid.eq(valid),
            self.more.eq(filled),
            self.output.payload.eq(payload),
        ]
        if self.block:
            m.d.comb += [read.en.eq(take), payload.eq(read.data)]
        else:
            with m.If(take):
                m.d.sync += payload.eq(read.data)
        with m.If(take):
            m.d.sync += valid.eq(1)
        with m.Elif(self.output.ready):
            m.d.sync += valid.eq(0)
        for port, advance in ((write, self.write_en), (read, take)):
            address = Signal.like(port.addr)
            m.d.comb += port.addr.eq(address)
            with m.If(advance):
                m.d.sync += address.eq(address + 1)
                if self.depth & (self.depth - 1):
                    with m.If(address == self.depth - 1):
                        m.d.sync += address.eq(0)
        with m.If(self.write_en & ~take):
            m.d.sync += [level.eq(level + 1), filled.eq(1)]
        with m.Elif(take & ~self.write_en):
            m.d.sync += [level.eq(level - 1), filled.eq(level != 1)]
        return m

"""What the fetcher itself needs of the configuration: it is ahead of the issue stage."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal

from secateur.hw import spec
from secateur.hw.interfaces import Kind, writes_register
from secateur.hw.spec import Reg


def row_words(low, common, named):
    """Words of a row's body.

    Parameters
    ----------
    low, common : common bytes of its header words
    named : it names its table
    """
    kept = spec.ROW_TABLE
    return Cat(low, common[:kept], Mux(named, 0, common[kept:7]))


def register_copies(
    m: Module, geometry: spec.Geometry, valid, held, word, named
) -> tuple[dict, Signal]:
    """Copies of GX, GY and GZ, and FLAG2_FILTERS.

    Parameters
    ----------
    m : module that the registers become part of
    geometry : of the engine
    valid : there is a word in ``held``
    held : a word of the memory, and a cycle later ``word``, rotated
    named : becomes FLAG2_TABLES, a cycle sooner than the rest: a row's count may come as soon

    Returns
    -------
    copies, filters : of GX, GY and GZ by ``x``, ``y`` and ``z``, and the flag
    """
    n = geometry.n
    config = valid & (held.kind == Kind.CONFIG)
    registers = {"x": Reg.GX, "y": Reg.GY, "z": Reg.GZ}
    if geometry.s > 1 or geometry.tables:
        registers["flags"] = Reg.FLAGS2
    copies = {}
    for name, register in registers.items():
        copies[name] = Signal(16, name=f"copy_{name}")
        lane = 16 * (register % (n // 2))
        enable = Signal(name=f"copy_{name}_enable")
        m.d.sync += enable.eq(config & writes_register(held.common, register, n))
        value = word.lanes.as_value()[lane : lane + 16]
        with m.If(enable):
            m.d.sync += copies[name].eq(value)
        if name == "flags" and geometry.tables:
            m.d.comb += named.eq(Mux(enable, value, copies[name])[spec.FLAG2_TABLES])
    flags = copies.pop("flags", Const(0, 16))
    return copies, flags[spec.FLAG2_FILTERS]

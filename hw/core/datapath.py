"""The datapath of the engine with a high clock: a multiplier of its own for each channel and lane.

Sums leave N side by side; lanes follow each other a cycle apart.
"""

from __future__ import annotations

from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib import wiring

from secateur.hw import spec
from secateur.hw.core.array import Array
from secateur.hw.core.bank import OffsetGenerator
from secateur.hw.core.drain import Drain, result_depth
from secateur.hw.interfaces import FAST, datapath_ports
from secateur.hw.pipeline import ResetWay
from secateur.hw.spec import Reg


class Datapath(wiring.Component):
    """Banks and lanes, and the drain of their sums.

    Parameters
    ----------
    geometry : of the engine
    family : "generic", "ecp5" or "asic"
    bels : sites of the multipliers, lane after lane, or None

    Attributes
    ----------
    front : the blocks that it needs in front of it
    results : results that may be on their way

    Members
    -------
    issued, address, access, accepted, reset, output : see ``datapath_ports``
    """

    front = FAST

    def __init__(self, *, geometry: spec.Geometry, family: str = "generic", bels=None):
        self.geometry, self.results = geometry, result_depth(geometry.p)
        self.array = Array(geometry=geometry, family=family, bels=bels)
        self.drain = Drain(geometry=geometry, family=family)
        super().__init__(datapath_ports(geometry))

    def elaborate(self, platform) -> Module:
        m = Module()
        array, drain, registers = self.array, self.drain, self.issued.registers
        offsets = OffsetGenerator(p=self.geometry.p)
        way = ResetWay(m, self.reset)
        m.submodules.offsets = ResetInserter(way.next())(offsets)
        m.submodules.array = array
        m.submodules.drain = ResetInserter(way.next())(drain)
        # The array has no reset: its accumulators are cleared until an image is accepted.
        clear = Signal(init=1)
        m.d.sync += clear.eq(way.next() | ~self.accepted)
        wiring.connect(m, wiring.flipped(self.issued), array.issued, drain.issued)
        m.d.comb += [
            offsets.start.eq(self.issued.offsets),
            offsets.columns.eq(registers[Reg.OFF_PC]),
            offsets.column_step.eq(registers[Reg.OFF_DC]),
            offsets.row_step.eq(registers[Reg.OFF_DR]),
            array.shift.eq(offsets.shift),
            array.offset.eq(offsets.offset),
            array.clear.eq(clear),
            array.address.eq(self.address),
            array.access.eq(self.access),
            array.write.eq(drain.write),
            drain.sums.eq(array.sums),
        ]
        wiring.connect(m, drain.output, wiring.flipped(self.output))
        return m

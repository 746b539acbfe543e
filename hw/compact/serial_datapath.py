"""The datapath of the compact engine: few multipliers, one requantiser, few registers."""

from __future__ import annotations

from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib import wiring

from secateur.hw import spec
from secateur.hw.compact.serial_array import SerialArray
from secateur.hw.compact.serial_drain import SERIAL_RESULTS, SerialDrain
from secateur.hw.interfaces import COMPACT, datapath_ports
from secateur.hw.pipeline import ResetWay


class SerialDatapath(wiring.Component):
    """Banks and multiply-accumulators, and the drain of their sums, one by one.

    Parameters
    ----------
    geometry : of the engine, see ``check_compact``
    family : "generic" or "ice40"

    Attributes
    ----------
    front : the blocks that it needs in front of it
    results : results that may be on their way

    Members
    -------
    issued, address, access, accepted, reset, output : see ``datapath_ports``
    """

    front = COMPACT
    results = SERIAL_RESULTS

    def __init__(self, *, geometry: spec.Geometry, family: str = "generic"):
        self.array = SerialArray(geometry=geometry, family=family)
        self.drain = SerialDrain(geometry=geometry, family=family)
        super().__init__(datapath_ports(geometry))

    def elaborate(self, platform) -> Module:
        m = Module()
        array, drain = self.array, self.drain
        way = ResetWay(m, self.reset)
        m.submodules.array = array
        m.submodules.drain = ResetInserter(way.next())(drain)
        # The array has no reset: its accumulators are cleared until an image is accepted.
        clear = Signal(init=1)
        m.d.sync += clear.eq(way.next() | ~self.accepted)
        wiring.connect(m, wiring.flipped(self.issued), array.issued, drain.issued)
        m.d.comb += [
            array.clear.eq(clear),
            array.address.eq(self.address),
            array.access.eq(self.access),
            array.write.eq(drain.write),
            drain.sum.eq(array.sum),
        ]
        wiring.connect(m, drain.output, wiring.flipped(self.output))
        return m

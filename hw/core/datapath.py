"""Datapaths: an array of multipliers and the drain of its sums, behind one list of ports."""

from __future__ import annotations

from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib import wiring

from secateur.hw import spec
from secateur.hw.core.array import Array
from secateur.hw.core.bank import OffsetGenerator
from secateur.hw.core.drain import Drain, result_depth
from secateur.hw.core.filters import FilterLanes
from secateur.hw.interfaces import FAST, Front, datapath_ports
from secateur.hw.pipeline import ResetWay
from secateur.hw.spec import Reg


class Datapath(wiring.Component):
    """Base of all datapaths: sums go from the array to the drain, and pixels back to the array.

    Parameters
    ----------
    geometry : of the engine
    array : from words and addresses to sums, see ``array_ports``
    drain : from sums to pixels, see ``drain_ports``
    front : the blocks that it needs in front of it
    results : results that may be on their way

    Members
    -------
    issued, address, access, accepted, reset, output : see ``datapath_ports``
    """

    def __init__(self, *, geometry: spec.Geometry, array, drain, front: Front, results: int):
        self.geometry, self.array, self.drain = geometry, array, drain
        self.front, self.results = front, results
        super().__init__(datapath_ports(geometry))

    def elaborate(self, platform) -> Module:
        m = Module()
        array, drain, way = self.array, self.drain, ResetWay(m, self.reset)
        self._add_offsets(m, way)
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
            drain.sums.eq(array.sums),
        ]
        wiring.connect(m, drain.output, wiring.flipped(self.output))
        if self.geometry.s > 1:
            self._add_filters(m)
        return m

    def _add_filters(self, m: Module) -> None:
        """Add the filter lanes: from words to the array, and header words to the drain."""
        m.submodules.filters = filters = FilterLanes(geometry=self.geometry)
        wiring.connect(m, wiring.flipped(self.issued), filters.issued)
        m.d.comb += [
            filters.side.eq(self.side),
            filters.origins.eq(self.origins),
            self.own_address.eq(filters.address[0]),
            self.array.filter_address.eq(filters.address),
            self.array.own.eq(filters.own),
            self.drain.header.eq(filters.header),
        ]

    def _add_offsets(self, m: Module, way: ResetWay) -> None:
        """Add the generator of the banks' offsets, if the array needs one."""


class ParallelDatapath(Datapath):
    """The datapath of an engine with a high clock: sums leave N side by side, lane after lane.

    Parameters
    ----------
    geometry : of the engine
    family : "generic", "ecp5" or "asic"
    bels : sites of the hard multipliers, see ``Engine``
    """

    def __init__(self, *, geometry: spec.Geometry, family: str = "generic", bels=None):
        super().__init__(
            geometry=geometry,
            array=Array(geometry=geometry, family=family, bels=bels),
            drain=Drain(geometry=geometry, family=family),
            front=FAST,
            results=result_depth(geometry.p),
        )

    def _add_offsets(self, m: Module, way: ResetWay) -> None:
        offsets = OffsetGenerator(p=self.geometry.p)
        m.submodules.offsets = ResetInserter(way.next())(offsets)
        registers = self.issued.late
        m.d.comb += [
            offsets.start.eq(self.issued.late_init),
            offsets.columns.eq(registers[Reg.OFF_PC]),
            offsets.column_step.eq(registers[Reg.OFF_DC]),
            offsets.row_step.eq(registers[Reg.OFF_DR]),
            self.array.shift.eq(offsets.shift),
            self.array.offset.eq(offsets.offset),
        ]

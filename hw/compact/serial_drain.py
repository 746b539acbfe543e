"""The compact drain: one sum per cycle, through one requantiser, to pixels of N channels."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from secateur.hw import spec
from secateur.hw.compact.serial_array import SUM_LATENCY, check_compact
from secateur.hw.core.delivery import Delivery
from secateur.hw.core.drain import drain_ports
from secateur.hw.core.requantise import REQUANTISE_LATENCY, Requantiser
from secateur.hw.core.rows import RowParameters
from secateur.hw.core.walk import WALK_LATENCY
from secateur.hw.interfaces import GROUP, group_end
from secateur.hw.memory.memory import Ram, check_family
from secateur.hw.pipeline import delay
from secateur.hw.spec import Reg

_STEPS = 2  # of the requantiser, per cycle
#: Cycles from a sum to its code, behind the table.
CODE_LATENCY = REQUANTISE_LATENCY // _STEPS + 1
#: Results that may be on their way: a group has at most two in eight cycles, and has left after 40.
SERIAL_RESULTS = 16


class SerialDrain(wiring.Component):
    """Sums to pixels, one channel per cycle.

    Parameters
    ----------
    geometry : of the engine, see ``check_compact``
    family : one of spec.FAMILIES

    Members
    -------
    issued : In(issued_signature(n))  of the issue stage
    sums : In(ACC_BITS)  one per cycle, SUM_LATENCY and more cycles after a group's last word
    write : Out(write_layout(n))  write bus; data come with the address
    output : Out(output_signature(n))  results and trace
    """

    def __init__(self, *, geometry: spec.Geometry, family: str = "generic"):
        self.geometry, self.family = check_compact(geometry), check_family(family)
        n = geometry.n
        super().__init__(drain_ports(n, {"sums": In(signed(spec.ACC_BITS))}))

    def elaborate(self, platform) -> Module:
        m = Module()
        n, issued = self.geometry.n, self.issued
        m.submodules.rows = rows = RowParameters(n=n, block=True, tables=self.geometry.tables > 0)
        m.submodules.requantiser = requantiser = Requantiser(n=1, steps=_STEPS)
        m.submodules.delivery = delivery = Delivery(
            n=n, results=SERIAL_RESULTS, pace=n, data_delay=0, block=True
        )

        # `first` comes two cycles before the group's first sum: one for the shift, one to choose.
        to_first = SUM_LATENCY - 2
        to_walk = SUM_LATENCY + CODE_LATENCY + n - 1 - WALK_LATENCY
        early = self._later(m, group_end(issued.word), to_first, "group")
        late = self._later(m, early, to_walk - to_first, "group_late")

        bias, delta = self._choose(m, rows, early)
        code = self._look_up(m, requantiser.codes[0], rows.table)
        m.d.comb += [
            rows.valid.eq(issued.valid),
            rows.word.eq(issued.word),
            requantiser.sums[0].eq(self.sums),
            requantiser.load.eq(1),
            requantiser.bias[0].eq(bias),
            requantiser.delta[0].eq(delta),
            requantiser.configure(issued.late),
            delivery.group.eq(late),
            # A pixel gathers in the register of the write bus, one channel per cycle.
            delivery.codes.eq(Cat(delivery.write.data.as_value()[8:], code)),
            self.write.eq(delivery.write),
        ]
        wiring.connect(m, wiring.flipped(self.issued), delivery.issued)
        wiring.connect(m, delivery.output, wiring.flipped(self.output))
        return m

    @staticmethod
    def _later(m: Module, group, cycles: int, name: str):
        """``group`` some cycles later, by counting: groups are MIN_ROW_WORDS cycles apart."""
        while cycles > spec.MIN_ROW_WORDS:
            group = delay(m, group, 1, name, reset_less=False)
            cycles -= 1
        left = Signal(range(cycles + 1), name=f"{name}_left")
        kept = Signal(GROUP, name=f"{name}_kept")
        later = Signal(GROUP, name=f"{name}_later")
        with m.If(group.valid):
            m.d.sync += [kept.eq(group), left.eq(cycles - 1)]
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        m.d.comb += later.eq(kept)
        m.d.comb += later.valid.eq(kept.valid & (left == 0))
        with m.If(later.valid & ~group.valid):
            m.d.sync += kept.valid.eq(0)
        return later

    def _choose(self, m: Module, rows: RowParameters, first):
        """Shift and bias as the requantiser takes them: one and no cycles before the sum."""
        n, count = self.geometry.n, self.geometry.multipliers
        channel = Signal(range(n))
        bias_channel = delay(m, channel, 1, "channel")
        m.d.sync += channel.eq(Mux(first.valid, 0, channel + 1))
        # The row's last channel takes its bias `count` cycles after the choice of its first shift.
        done = self._later(m, first, count, "row_done")
        m.d.comb += rows.next.eq(done.valid & done.row_last)
        bias = Array(rows.bias[lane] for lane in range(n))
        delta = Array(rows.delta[lane] for lane in range(n))
        return bias[bias_channel], delta[channel]

    def _look_up(self, m: Module, code, named):
        """The code, or its entry in a table, a cycle later.

        A row names its table when its first shift is chosen.
        """
        plain = delay(m, code, 1, "code")
        entries = self.geometry.tables * spec.TABLE_ENTRIES
        if not entries:
            return plain
        m.submodules.table = table = Ram(width=8, depth=entries, family=self.family, output=False)
        flags, entry = self.issued.late[Reg.FLAGS2], self.issued.entry
        number = Mux(
            flags[spec.FLAG2_TABLES],
            delay(m, named, CODE_LATENCY, "row_table"),
            flags[spec.FLAG2_TABLE :],
        )
        m.d.comb += [
            table.write_en.eq(entry.valid & (entry.address < entries)),
            table.write_addr.eq(entry.address),
            table.write_data.eq(entry.data),
            table.read_addr.eq(Cat(code, number)),
        ]
        return Mux(flags[spec.FLAG2_LOOKUP], table.read_data, plain)

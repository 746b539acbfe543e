"""Filter lanes: each has a stream word of its own, and from it an address and weights."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from secateur.hw import spec
from secateur.hw.core.lane import AT_CHOICE, AT_SELECT, AT_WEIGHTS, own_layout
from secateur.hw.interfaces import (
    REGISTERS,
    Kind,
    header_layout,
    issued_signature,
    origins_layout,
)
from secateur.hw.memory.weight_memory import SIDE_LATENCY
from secateur.hw.pipeline import delay, gather
from secateur.hw.spec import Reg

#: Cycles from ``issued.word`` to the word of lane 0; lane k's comes k later.
WORD_DELAY = SIDE_LATENCY - 1
#: Cycles from a lane's word to its address, and to that at the bank.
ADDRESS_LATENCY = 3
AT_BANK = ADDRESS_LATENCY + 1


class FilterLane(wiring.Component):
    """One lane's running address, and its weights until they are due.

    A move to the next kernel row counts from where the lane is: ``cur += KR + unit * step``.

    Parameters
    ----------
    geometry : of the engine

    Members
    -------
    registers : In(REGISTERS)  the configuration
    word : In(word_bits)  stream word
    body : In(1)  it is one of a body, of filter lanes
    first : In(1)  it is the first of a pass
    origins : In(origins_layout)  a cycle after ``word``, those of its pass
    address : Out  byte address, ADDRESS_LATENCY cycles after ``word``; held while there is none
    own : Out(own_layout(n))  each field in its own time after the bank's address
    passed : Out(8 * n + 3)  lanes of ``word``, and the table that it names if it is a row's second
        header word, some cycles later, see ``header_at``
    """

    def __init__(self, *, geometry: spec.Geometry, header_at: int = 0):
        if not 0 <= header_at < AT_BANK + AT_WEIGHTS:
            raise ValueError(
                f"header_at must be 0 to {AT_BANK + AT_WEIGHTS - 1}, not {header_at!r}"
            )
        self.geometry, self.header_at = geometry, header_at
        self.width = ceil_log2(geometry.bank_words * geometry.n)
        n = geometry.n
        super().__init__(
            {
                "registers": In(REGISTERS),
                "word": In(geometry.word_bits),
                "body": In(1),
                "first": In(1),
                "origins": In(origins_layout(self.width)),
                "address": Out(self.width),
                "own": Out(own_layout(n)),
                "passed": Out(8 * n + 3),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        n, flags = self.geometry.n, self.registers[Reg.FLAGS]
        source, unit = self._address(m)
        signs = Signal()
        to_choice = AT_BANK + AT_CHOICE - 1
        m.d.sync += signs.eq(
            Mux(
                delay(m, source, to_choice - 1, "source"),
                flags[spec.FLAG_B_SIGNED],
                flags[spec.FLAG_A_SIGNED],
            )
        )
        low = self.address[: ceil_log2(n)]
        m.d.comb += [
            self.own.filters.eq(self.registers[Reg.FLAGS2][spec.FLAG2_FILTERS]),
            self.own.select.eq(delay(m, low, 1 + AT_SELECT, "select")),
            self.own.broadcast.eq(delay(m, unit, to_choice, "broadcast")),
            self.own.signed.eq(signs),
        ]
        self._weights(m, source)
        return m

    def _address(self, m: Module):
        """Three steps: decode, base and difference, address. Returns source and unit, decoded."""
        regs, log_n = self.registers, ceil_log2(self.geometry.n)
        common = self.word[8 * self.geometry.n :]
        valid, first, to_b, row, source, unit = (
            Signal(name=name) for name in ("valid", "first2", "to_b", "down", "source", "unit")
        )
        bytewise = Signal(2)
        move = Signal(7)
        switch = common[6:] == spec.STEP_SOURCE >> 6
        of_b = switch | (source & ~self.first)
        m.d.sync += [
            valid.eq(self.body),
            first.eq(self.body & self.first),
            *(
                bytewise[index].eq(regs[Reg.FLAGS][mode:][:2] == spec.Mode.BROADCAST)
                for index, mode in enumerate((spec.FLAG_A_MODE, spec.FLAG_B_MODE))
            ),
        ]
        with m.If(self.body):
            m.d.sync += [
                to_b.eq(switch),
                row.eq(common[6:] == spec.STEP_ROW >> 6),
                source.eq(of_b),
                unit.eq(Mux(of_b, bytewise[1], bytewise[0])),
                move.eq(Mux(common[7], common & spec.STEP_FIELD, common)),
            ]
        valid3 = Signal()
        restart = Signal()
        base = Signal(self.width)
        difference = Signal(self.width)
        down = Mux(source, regs[Reg.B_KR], regs[Reg.A_KR])[: self.width]
        m.d.sync += [
            valid3.eq(valid),
            restart.eq(first | to_b),
            base.eq(Mux(to_b, self.origins.b, self.origins.a)),
            difference.eq(Mux(unit, move, move << log_n) + Mux(row, down, 0)),
        ]
        with m.If(valid3):
            m.d.sync += self.address.eq(Mux(restart, base, self.address) + difference)
        return source, unit

    def _weights(self, m: Module, source) -> None:
        """Weights wait for their operands; 0 unless there is a word."""
        n, flags, wait = self.geometry.n, self.registers[Reg.FLAGS], AT_BANK + AT_WEIGHTS - 1
        lanes, at = self.word[: 8 * n], 0
        table = self.word[8 * n + spec.ROW_TABLE :][:3]
        for at in range(wait + 1):
            if at == self.header_at:
                m.d.comb += self.passed.eq(Cat(lanes, delay(m, table, at, "table")))
            if at < wait:
                lanes = delay(m, lanes, 1, f"lanes{at}")
        body = delay(m, self.body, wait, "body")
        late = delay(m, source, wait - 1, "late")
        wshift = Mux(late, flags[spec.FLAG_B_WSHIFT], flags[spec.FLAG_A_WSHIFT])
        for index in range(n):
            weight = lanes[8 * index :][:8]
            # The low bits are cleared by the flip-flops' resets: no gates.
            low = Signal(spec.WSHIFT, name=f"low{index}", reset_less=True)
            high = Signal(8, name=f"high{index}", reset_less=True)
            with m.If(body):
                whole = Cat(weight[spec.WSHIFT :], weight[7].replicate(spec.WSHIFT))
                m.d.sync += high.eq(Mux(wshift, weight, whole))
            with m.Else():
                m.d.sync += high.eq(0)
            with m.If(body & ~wshift):
                m.d.sync += low.eq(weight[: spec.WSHIFT])
            with m.Else():
                m.d.sync += low.eq(0)
            m.d.comb += self.own.weights[index].eq(Cat(low, high).as_signed())


class FilterLanes(wiring.Component):
    """S filter lanes, and the header words of rows for the drain.

    The words of lane 0 come from the issue stage, those of the others from their banks of the
    weight memory, a cycle later from lane to lane. Header words leave one by one: lane k keeps its
    two for k cycles more, so that both words of a lane come behind those of the lane before.

    Parameters
    ----------
    geometry : of the engine

    Members
    -------
    issued : In(issued_signature(n))  of the issue stage
    side : In((S - 1) x word_bits)  see WeightMemory
    origins : In(origins_layout)  a cycle after ``issued.word``, those of its pass
    address : Out(S x width)  lane k's AT_BANK + k - 1 cycles after WORD_DELAY
    own : Out(S x own_layout(n))  for each lane
    header : Out(header_layout(n))  header words, two for each row, also with pixel lanes
    """

    def __init__(self, *, geometry: spec.Geometry):
        if geometry.s < 2:
            raise ValueError(f"s must be at least 2, not {geometry.s!r}")
        self.geometry = geometry
        self.width = ceil_log2(geometry.bank_words * geometry.n)
        n, s = geometry.n, geometry.s
        super().__init__(
            {
                "issued": In(issued_signature(n)),
                "side": In(data.ArrayLayout(geometry.word_bits, s - 1)),
                "origins": In(origins_layout(self.width)),
                "address": Out(data.ArrayLayout(self.width, s)),
                "own": Out(data.ArrayLayout(own_layout(n), s)),
                "header": Out(header_layout(n)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        word, regs = self.issued.word, self.issued.registers
        filters = regs[Reg.FLAGS2][spec.FLAG2_FILTERS]
        whole = Cat(word.lanes, word.common)
        body = delay(m, self.issued.valid & (word.kind == Kind.BODY), WORD_DELAY, "body") & filters
        first = delay(m, word.first, WORD_DELAY, "first")
        origins = delay(m, self.origins.as_value(), WORD_DELAY, "origins")
        words = [delay(m, whole, WORD_DELAY, "word"), *self.side]
        passed = []
        for index, lane_word in enumerate(words):
            m.submodules[f"lane{index}"] = lane = FilterLane(
                geometry=self.geometry, header_at=index
            )
            m.d.comb += [
                lane.registers.eq(regs),
                lane.word.eq(lane_word),
                lane.body.eq(body),
                lane.first.eq(first),
                lane.origins.eq(origins),
                self.address[index].eq(lane.address),
                self.own[index].eq(lane.own),
            ]
            passed.append(lane.passed)
            body, first, origins = (
                delay(m, value, 1, f"{name}_{index}")
                for value, name in ((body, "body"), (first, "first"), (origins, "origins"))
            )
        self._headers(m, passed, filters)
        return m

    def _headers(self, m: Module, passed: list, filters) -> None:
        """From lane 0's first header word on, a word in each cycle, of all rows side by side."""
        issued = self.issued
        begins = delay(m, issued.valid & (issued.word.kind == Kind.HEAD_A), WORD_DELAY, "begins")
        count = Signal(range(2 * self.geometry.s))
        more = Signal()
        with m.If(begins | more):
            m.d.sync += [count.eq(count + 1), more.eq(1)]
            with m.If(Mux(filters, count == 2 * self.geometry.s - 1, count == 1)):
                m.d.sync += [count.eq(0), more.eq(0)]
        valid = begins | more
        chosen = [valid & (count[1:] == index) for index in range(len(passed))]
        m.d.comb += [
            self.header.valid.eq(delay(m, valid, 2, "valid", reset_less=False)),
            self.header.second.eq(delay(m, count[0], 2, "second")),
            Cat(self.header.lanes, self.header.table).eq(gather(m, passed, chosen, "lanes")),
        ]

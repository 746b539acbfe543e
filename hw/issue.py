"""The issue stage: one word a cycle, in order; configuration, waits, watchdog."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from . import spec
from .address import REGISTERS
from .drain import host_layout, result_depth
from .fetch import END_TAGS, Kind, word_layout, writes_register
from .spec import Error, Reg
from .table import table_write_layout


class State(enum.Enum):
    """States of the issue stage."""

    IDLE = 0  # no image yet, or the banks are being wiped
    RUN = 1  # words issue
    SETUP = 2  # registers settle, the layer is checked
    OFFSETS = 3  # a LOAD waits for the window offsets
    CLEAR = 4
    INPUT = 5  # takes words from the host
    LANDING = 6  # waits for writes to land, entries of tables among them
    ERROR = 7


#: Cycles of SETUP: the register file is written in the second, its checks are known in the fourth.
SETUP_CYCLES = 4
#: More than the reset takes from the first part of the engine to the last.
RESET_WAY = 16


class Issue(wiring.Component):
    """Issues the words of the program at the cycles that ``docs/stream.md`` defines.

    Parameters
    ----------
    geometry : of the engine

    Members
    -------
    enable : In, static; the program may begin
    limit : In, static; cycles after which the watchdog ends an inference
    fetched : In, stream of words
    input : In, stream of input words (N bytes)
    released : In, results that have left, see Drain
    valid, word : Out, the word that issued in the cycle before; END_TAGS are 0 if none did
    registers : Out, the configuration
    init : Out, strobe: a layer's registers are settled; offsets : Out, the same for LOAD, too
    host : Out, writes of LOAD and CLEAR, and of zeros everywhere after a reset
    entry : Out, entries of tables
    layer : Out, STARTs since the last LOAD
    error : Out, spec.Error; running : Out; cycles : Out, of the last inference
    inferences : Out, inferences that have ended, modulo 2**16
    """

    def __init__(self, *, geometry: spec.Geometry):
        self.geometry = geometry
        n = geometry.n
        super().__init__(
            {
                "enable": In(1),
                "limit": In(32),
                "fetched": In(stream.Signature(word_layout(n))),
                "input": In(stream.Signature(8 * n)),
                "released": In(2),
                "valid": Out(1),
                "word": Out(word_layout(n)),
                "registers": Out(REGISTERS, init=self._first_registers()),
                "init": Out(1),
                "offsets": Out(1),
                "host": Out(host_layout(n)),
                "entry": Out(table_write_layout()),
                "layer": Out(8),
                "error": Out(Error),
                "running": Out(1),
                "cycles": Out(32),
                "inferences": Out(16),
            }
        )

    def _first_registers(self) -> list[int]:
        """All zero, but for a window as large as the banks while they are wiped."""
        first = [0] * spec.REGISTERS
        first[Reg.OUT_S] = self.geometry.bank_words
        return first

    def elaborate(self, platform) -> Module:
        m = Module()
        geometry = self.geometry
        n, p = geometry.n, geometry.p
        word, regs = self.fetched.payload, self.registers
        flags = regs[Reg.FLAGS]
        is_config = word.kind == Kind.CONFIG
        starts = is_config & word.common[7]
        loads = is_config & word.common[6] & ~word.common[7]
        index = word.common & spec.COMMON_REGISTER
        fills_table = is_config & (index == spec.INDEX_TABLE) & ~word.common[6:].any()

        # What much depends on has flip-flops of its own beside the state.
        state = Signal(State)
        run, takes, clears, fills = (
            Signal(name=name) for name in ("run", "takes", "clears", "fills")
        )
        wiping, wiped = self._wipe(m)
        gate, room = self._gate(m, run & self.fetched.valid & self.fetched.ready & word.group_last)
        held = word.group_last & ~(gate & room)
        m.d.comb += self.fetched.ready.eq(run & ~held)
        issue = self.fetched.valid & self.fetched.ready
        m.d.sync += [self.valid.eq(issue), self.word.eq(word)]
        m.d.sync += [self.word[tag].eq(word[tag] & issue) for tag in END_TAGS]
        is_zero = self._configure(m)

        # Waits: `last` is the last cycle of a state; `left` counts down to it.
        left = Signal(17)
        last = Signal()
        m.d.sync += [left.eq(left - 1), last.eq(left == 2)]

        def go(next_state: State) -> list:
            return [
                state.eq(next_state),
                run.eq(next_state is State.RUN),
                takes.eq(next_state is State.INPUT),
                clears.eq(next_state is State.CLEAR),
            ]

        def enter(next_state: State, cycles, one) -> list:
            return [*go(next_state), left.eq(cycles), last.eq(one)]

        def fail(error: Error) -> list:
            return [*go(State.ERROR), self.error.eq(error)]

        loading = Signal()
        ending = Signal()
        accepted, accepted_last = Signal(), Signal()
        m.d.comb += [
            self.input.ready.eq(takes),
            accepted.eq(takes & self.input.valid),
            accepted_last.eq(accepted & last),
        ]
        clear_some, clear_one, input_one, bad = Signal(), Signal(), Signal(), Signal()
        size, count = regs[Reg.OUT_S], regs[Reg.GX]
        zero = is_zero[Reg.GX]
        for register in (Reg.GY, Reg.GZ, Reg.LANES):
            zero = zero | (is_zero[register] & ~loading)
        m.d.sync += [
            clear_some.eq((size != 0) & flags[spec.FLAG_CLEAR]),
            clear_one.eq(size == 1),
            input_one.eq(count == 1),
            bad.eq(zero | (self._too_many_lanes() & ~loading)),
        ]
        with m.Switch(state):
            with m.Case(State.IDLE):
                with m.If(self.enable & wiped):
                    m.d.sync += go(State.RUN)
            with m.Case(State.RUN):
                with m.If(issue):
                    m.d.sync += loading.eq(loads)
                    with m.If(starts | loads):
                        m.d.sync += enter(State.SETUP, SETUP_CYCLES, SETUP_CYCLES == 1)
                    with m.If(fills_table):
                        m.d.sync += [*enter(State.LANDING, n, 0), fills.eq(1)]
                    with m.If(word.layer_last):
                        m.d.sync += enter(State.LANDING, spec.tail_cycles(p) - 1, 0)
                        m.d.sync += ending.eq(flags[spec.FLAG_RESULT])
                    with m.If((word.kind == Kind.HEAD_B) & word.bad):
                        m.d.sync += fail(Error.ROW)
            with m.Case(State.SETUP):
                with m.If(last):
                    with m.If(bad):
                        m.d.sync += fail(Error.ROW)
                    with m.Elif(loading):
                        m.d.sync += enter(State.OFFSETS, p, p == 1)
                    with m.Elif(clear_some):
                        m.d.sync += enter(State.CLEAR, size, clear_one)
                    with m.Else():
                        m.d.sync += go(State.RUN)
            with m.Case(State.OFFSETS):
                with m.If(last):
                    m.d.sync += enter(State.INPUT, count, input_one)
            with m.Case(State.INPUT):
                with m.If(~accepted):
                    m.d.sync += [left.eq(left), last.eq(last)]
                with m.If(accepted_last):
                    tail = spec.load_tail(p) - 1
                    m.d.sync += enter(State.LANDING, tail, tail == 1)
            with m.Case(State.CLEAR, State.LANDING):
                with m.If(last):
                    m.d.sync += [*go(State.RUN), fills.eq(0)]

        settled = (state == State.SETUP) & last & ~bad
        m.d.sync += [self.init.eq(settled & ~loading), self.offsets.eq(settled)]
        with m.If(settled):
            m.d.sync += self.layer.eq(Mux(loading, 0, self.layer + 1))
        self._host_writes(m, accepted, clears | wiping, settled)
        self._table_writes(m, issue & fills_table, fills)

        # An inference ends in the first cycle in which the next word may issue.
        # The tables at the start of a program take no time of an inference, whichever it is.
        begun = Signal()
        ended = ending & run
        with m.If(issue & ~fills_table):
            m.d.sync += begun.eq(1)
        with m.Elif(ended):
            m.d.sync += begun.eq(0)
        with m.If(ended):
            m.d.sync += ending.eq(0)
        waits = takes | (run & self.fetched.valid & held & gate & ~room)
        over = self._count(m, accepted_last, ended, waits | ~begun)
        with m.If(self.init | accepted_last):
            m.d.sync += self.running.eq(1)
        with m.Elif(ended):
            m.d.sync += self.running.eq(0)
        with m.If(over & (state != State.ERROR)):
            m.d.sync += fail(Error.WATCHDOG)
        past_tables = Signal()
        entries = spec.TABLE_ENTRIES * geometry.tables
        past = self.entry.address >= entries if entries else Const(1)
        m.d.sync += past_tables.eq(self.entry.valid & past)
        with m.If(past_tables):
            m.d.sync += fail(Error.ROW)
        return m

    def _wipe(self, m: Module):
        """Zeros into all banks after a reset, once it has reached all parts. Returns whether that
        is going on, and whether it is over."""
        banks, landing = self.geometry.bank_words, spec.load_tail(self.geometry.p)
        total = RESET_WAY + banks + landing
        left = Signal(range(total + 1), init=total)
        wiping, ends, wiped = Signal(), Signal(), Signal()
        m.d.sync += [
            wiping.eq((left > landing) & (left <= landing + banks)),
            ends.eq(left == 1),
        ]
        with m.If(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.If(ends):
            m.d.sync += [wiped.eq(1), self.registers[Reg.OUT_S].eq(0)]
        return wiping, wiped

    def _too_many_lanes(self):
        """LANES against P, by a table: a comparison of 16 bits is a carry as long."""
        lanes, p = self.registers[Reg.LANES], self.geometry.p
        low = lanes[: p.bit_length()]
        table = Const(-1 << (p + 1), 1 << len(low))
        return lanes[len(low) :].any() | table.bit_select(low, 1)

    def _gate(self, m: Module, group):
        """Whether the last word of a group may issue: the drain is free, and the result queue."""
        regs = self.registers
        lanes = regs[Reg.LANES]
        depth = result_depth(self.geometry.p)
        is_result = regs[Reg.FLAGS][spec.FLAG_RESULT]
        gate, room = Signal(init=1), Signal(init=1)
        left = Signal(range(self.geometry.p + 1))
        single = Signal()
        m.d.sync += single.eq(lanes == 1)
        with m.If(group):
            m.d.sync += [gate.eq(single), left.eq(lanes - 1)]
        with m.Elif(~gate):
            m.d.sync += [gate.eq(left == 1), left.eq(left - 1)]
        reserved = Signal(range(depth + 1))
        most = Signal(range(depth + 1))
        take = Mux(group & is_result, lanes[: len(left)], 0)
        m.d.sync += [
            reserved.eq(reserved + take - self.released),
            most.eq(depth - lanes[: len(left)]),
            room.eq(~is_result | (reserved <= most)),
        ]
        return gate, room

    def _configure(self, m: Module) -> dict:
        """The register file, written two cycles after a configuration word issues.

        Returns, of the registers that may not be 0, whether they are; kept beside them, because
        four tests of 16 bits in one cycle are too many.
        """
        n = self.geometry.n
        lanes = Signal(8 * n, reset_less=True)
        zeros = Signal(n // 2, reset_less=True)
        m.d.sync += lanes.eq(self.word.lanes)
        m.d.sync += [
            zeros[lane].eq(self.word.lanes.as_value().word_select(lane, 16) == 0)
            for lane in range(n // 2)
        ]
        is_zero = {
            register: Signal(init=1, name=f"zero_{register.name}")
            for register in (Reg.GX, Reg.GY, Reg.GZ, Reg.LANES)
        }
        config = self.valid & (self.word.kind == Kind.CONFIG)
        for register in Reg:
            enable = Signal(name=f"write_{register.name}")
            m.d.sync += enable.eq(config & writes_register(self.word.common, register, n))
            with m.If(enable):
                lane = register % (n // 2)
                m.d.sync += self.registers[register].eq(lanes.word_select(lane, 16))
                if register in is_zero:
                    m.d.sync += is_zero[register].eq(zeros[lane])
        return is_zero

    def _host_writes(self, m: Module, accepted, clearing, restart) -> None:
        host, flags = self.host, self.registers[Reg.FLAGS]
        index = Signal(16)
        fill = Mux(flags[spec.FLAG_FILL], 0x80, 0).replicate(self.geometry.n)
        m.d.sync += [
            host.valid.eq(accepted | clearing),
            host.local.eq(clearing),
            host.m.eq(index),
            host.data.eq(Mux(clearing, fill, self.input.payload)),
        ]
        with m.If(restart):
            m.d.sync += index.eq(0)
        with m.Elif(accepted | clearing):
            m.d.sync += index.eq(index + 1)

    def _table_writes(self, m: Module, begin, writing) -> None:
        """The entries of a word, one cycle late: the register before it has been written by then.

        The register TABLE counts them.
        """
        entries = Signal(8 * self.geometry.n, reset_less=True)
        late = Signal()
        pointer = self.registers[Reg.TABLE]
        m.d.sync += late.eq(writing)
        m.d.comb += [
            self.entry.valid.eq(late),
            self.entry.address.eq(pointer),
            self.entry.data.eq(entries[:8]),
        ]
        with m.If(begin):
            m.d.sync += entries.eq(self.fetched.payload.lanes)
        with m.Elif(late):
            m.d.sync += entries.eq(entries >> 8)
        with m.If(late):
            m.d.sync += pointer.eq(pointer + 1)

    def _count(self, m: Module, begin, end, waits):
        """The cycles of the inference; returns whether they exceed the limit."""
        count = Signal(32)
        over, begun, waited = Signal(), Signal(), Signal(init=1)
        above = [Signal(name=f"above{half}") for half in range(2)]
        equal = Signal()
        m.d.sync += [
            begun.eq(begin),
            waited.eq(waits),
            above[0].eq(count[:16] > self.limit[:16]),
            above[1].eq(count[16:] > self.limit[16:]),
            equal.eq(count[16:] == self.limit[16:]),
            over.eq(above[1] | (equal & above[0])),
        ]
        with m.If(begun):
            m.d.sync += count.eq(2)
        with m.Elif(end):
            m.d.sync += [
                self.cycles.eq(count),
                self.inferences.eq(self.inferences + 1),
                count.eq(0),
            ]
        with m.Elif(~waited):
            m.d.sync += count.eq(count + 1)
        return over

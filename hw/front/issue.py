"""The issue stage: one word a cycle, in order; configuration, waits, watchdog."""

from __future__ import annotations

import operator

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.core.drain import result_depth
from secateur.hw.front.configuration import Configuration
from secateur.hw.front.stopwatch import Stopwatch
from secateur.hw.interfaces import (
    END_TAGS,
    REGISTERS,
    Kind,
    host_layout,
    table_write_layout,
    word_layout,
)
from secateur.hw.pipeline import exceeds
from secateur.hw.spec import Error, Reg


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


class _Flow:
    """The state, and flip-flops beside it for what much depends on.

    ``last`` is the last cycle of a state; ``left`` counts down to it.
    """

    def __init__(self):
        self.state = Signal(State)
        self.run = Signal()
        self.takes = Signal()
        self.clears = Signal()
        self.fills = Signal()  # LANDING of entries of tables
        self.loading = Signal()  # SETUP of a LOAD
        self.ending = Signal()  # the layer gives results: it is the last
        self.left = Signal(17)
        self.last = Signal()

    def go(self, state: State) -> list:
        """Assignments that enter ``state``; ``left`` and ``last`` are set elsewhere, if at all."""
        return [
            self.state.eq(state),
            self.run.eq(state is State.RUN),
            self.takes.eq(state is State.INPUT),
            self.clears.eq(state is State.CLEAR),
        ]

    def enter(self, state: State, cycles, one) -> list:
        """Assignments that enter ``state`` for ``cycles``; ``one``: whether that is 1."""
        return [*self.go(state), self.left.eq(cycles), self.last.eq(one)]


class Issue(wiring.Component):
    """Issues the words of the program at the cycles that ``docs/stream.md`` defines.

    Parameters
    ----------
    geometry : of the engine
    results : results that may be on their way; None: as many as ``Drain`` takes
    compact : few registers: words come in the cycle in which they issue, ``host`` with its input

    Members
    -------
    enable : In, static; the program may begin
    limit : In, static; cycles after which the watchdog ends an inference
    fetched : In, stream of words
    input : In, stream of input words (N bytes)
    released : In, results that have left, see Drain
    valid, word : Out, the word that issued in the cycle before, compact in this
        one; END_TAGS are 0 if none did
    registers : Out, the configuration
    init : Out, strobe: a layer's registers are settled; offsets : Out, the same for LOAD, too
    host : Out, writes of LOAD and CLEAR, and of zeros everywhere after a reset
    entry : Out, entries of tables
    layer : Out, STARTs since the last LOAD
    error : Out, spec.Error; running : Out; cycles : Out, of the last inference
    inferences : Out, inferences that have ended, modulo 2**16
    """

    def __init__(
        self, *, geometry: spec.Geometry, results: int | None = None, compact: bool = False
    ):
        self.geometry, self.compact = geometry, compact
        self.results = result_depth(geometry.p) if results is None else results
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
                "registers": Out(REGISTERS),
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

    def elaborate(self, platform) -> Module:
        m = Module()
        word = self.fetched.payload
        m.submodules.configuration = configuration = Configuration(
            geometry=self.geometry, compact=self.compact
        )
        m.submodules.stopwatch = stopwatch = Stopwatch()
        is_config = word.kind == Kind.CONFIG
        index = word.common & spec.COMMON_REGISTER
        fills_table = is_config & (index == spec.INDEX_TABLE) & ~word.common[6:].any()

        # What much depends on has flip-flops of its own beside the state.
        flow = _Flow()
        issue = self.fetched.valid & self.fetched.ready
        gate, room = self._gate(m, issue & word.group_last)
        held = word.group_last & ~(gate & room)
        # Only body words are held: what is done with others need not wait for that.
        configures = flow.run & self.fetched.valid
        accepted = Signal()
        wiping, wiped = self._wipe(m)
        m.d.comb += [
            self.fetched.ready.eq(flow.run & ~held),
            self.input.ready.eq(flow.takes),
            accepted.eq(flow.takes & self.input.valid),
            configuration.valid.eq(configures if self.compact else self.valid),
            configuration.word.eq(self.word),
            configuration.loading.eq(flow.loading),
            configuration.wiped.eq(wiped),
            configuration.next_entry.eq(self.entry.valid),
            self.registers.eq(configuration.registers),
            self.cycles.eq(stopwatch.cycles),
            self.inferences.eq(stopwatch.inferences),
        ]
        domain = m.d.comb if self.compact else m.d.sync
        domain += [self.valid.eq(issue), self.word.eq(word)]
        domain += [self.word[tag].eq(word[tag] & issue) for tag in END_TAGS]
        self._walk_states(m, flow, configuration, issue, fills_table, accepted, wiping, wiped)

        checked = (flow.state == State.SETUP) & flow.last
        settled = checked & ~configuration.bad
        m.d.sync += [self.init.eq(settled & ~flow.loading), self.offsets.eq(settled)]
        with m.If(settled):
            m.d.sync += self.layer.eq(Mux(flow.loading, 0, self.layer + 1))
        self._host_writes(m, accepted, flow.clears, flow.state == State.SETUP)
        self._table_writes(m, flow.fills)

        self._inference(m, flow, stopwatch, issue & ~fills_table, accepted, held & gate & ~room)
        self._stop(m, flow, configures, checked & configuration.bad, stopwatch.over)
        return m

    def _walk_states(
        self, m: Module, flow: _Flow, configuration, issue, fills_table, accepted, wiping, wiped
    ) -> None:
        """All transitions but that to ERROR."""
        p = self.geometry.p
        word, registers = self.fetched.payload, configuration.registers
        is_config = word.kind == Kind.CONFIG
        starts = is_config & word.common[7]
        loads = is_config & word.common[6] & ~word.common[7]
        m.d.sync += [flow.left.eq(flow.left - 1), flow.last.eq(flow.left == 2)]
        with m.If(flow.ending & flow.run):
            m.d.sync += flow.ending.eq(0)
        with m.Switch(flow.state):
            with m.Case(State.IDLE):
                m.d.sync += flow.clears.eq(wiping)
                with m.If(self.enable & wiped):
                    m.d.sync += flow.go(State.RUN)
            with m.Case(State.RUN):
                # How long the next state lasts does not wait for whether the word issues.
                setup = Mux(fills_table, self.geometry.n, SETUP_CYCLES)
                m.d.sync += flow.left.eq(Mux(is_config, setup, spec.tail_cycles(p) - 1))
                m.d.sync += flow.last.eq(0)
                with m.If(self.fetched.valid & is_config):
                    m.d.sync += flow.loading.eq(loads)
                    with m.If(starts | loads):
                        m.d.sync += flow.go(State.SETUP)
                    with m.If(fills_table):
                        m.d.sync += [*flow.go(State.LANDING), flow.fills.eq(1)]
                with m.If(issue & word.layer_last):
                    m.d.sync += flow.go(State.LANDING)
                    m.d.sync += flow.ending.eq(registers[Reg.FLAGS][spec.FLAG_RESULT])
            with m.Case(State.SETUP):
                with m.If(flow.last):
                    with m.If(flow.loading):
                        m.d.sync += flow.enter(State.OFFSETS, p, p == 1)
                    with m.Elif(configuration.clear_some):
                        size, one = registers[Reg.OUT_S], configuration.clear_one
                        m.d.sync += flow.enter(State.CLEAR, size, one)
                    with m.Else():
                        m.d.sync += flow.go(State.RUN)
            with m.Case(State.OFFSETS):
                with m.If(flow.last):
                    count, one = registers[Reg.GX], configuration.input_one
                    m.d.sync += flow.enter(State.INPUT, count, one)
            with m.Case(State.INPUT):
                with m.If(~accepted):
                    m.d.sync += [flow.left.eq(flow.left), flow.last.eq(flow.last)]
                with m.Elif(flow.last):
                    tail = spec.load_tail(p) - 1
                    m.d.sync += flow.enter(State.LANDING, tail, tail == 1)
            with m.Case(State.CLEAR, State.LANDING):
                with m.If(flow.last):
                    m.d.sync += [*flow.go(State.RUN), flow.fills.eq(0)]

    def _inference(
        self, m: Module, flow: _Flow, stopwatch: Stopwatch, begins, accepted, full
    ) -> None:
        """When an inference begins and ends, and which of its cycles are the host's.

        It ends in the first cycle in which the next word may issue. The tables at the start of a
        program take no time of an inference, whichever it is.
        """
        begun = Signal()
        taken = Signal()
        ended = flow.ending & flow.run
        waits = flow.takes | (flow.run & self.fetched.valid & full)
        m.d.comb += [
            taken.eq(accepted & flow.last),
            stopwatch.limit.eq(self.limit),
            stopwatch.begin.eq(taken),
            stopwatch.end.eq(ended),
            stopwatch.waits.eq(waits | ~begun),
        ]
        with m.If(begins):
            m.d.sync += begun.eq(1)
        with m.Elif(ended):
            m.d.sync += begun.eq(0)
        with m.If(self.init | taken):
            m.d.sync += self.running.eq(1)
        with m.Elif(ended):
            m.d.sync += self.running.eq(0)

    def _stop(self, m: Module, flow: _Flow, configures, refused, over) -> None:
        """The transition to ERROR.

        A wrong row is found in one cycle and stops the engine in the next: what issues in between
        writes nothing outside the windows of the banks.
        """
        word = self.fetched.payload
        wrong = Signal()
        entries = spec.TABLE_ENTRIES * self.geometry.tables
        past_tables = Signal()
        past = self.entry.address >= entries if entries else Const(1)
        m.d.sync += past_tables.eq(self.entry.valid & past)
        m.d.sync += wrong.eq(
            (configures & (word.kind == Kind.HEAD_B) & word.first) | refused | past_tables
        )
        with m.If((wrong | over) & (flow.state != State.ERROR)):
            m.d.sync += flow.go(State.ERROR)
            m.d.sync += self.error.eq(Mux(wrong, Error.ROW, Error.WATCHDOG))

    def _wipe(self, m: Module):
        """Zeros into all banks after a reset, once it has reached all parts. Returns whether that
        goes on in the next cycle, and whether it is over."""
        banks, landing = self.geometry.bank_words, spec.load_tail(self.geometry.p)
        total = RESET_WAY + banks + landing
        left = Signal(range(total + 1), init=total)
        wiping = Signal()
        ends = Signal()
        wiped = Signal()
        above = exceeds if self.compact else operator.gt
        m.d.sync += [
            wiping.eq(above(left, landing + 1) & ~above(left, landing + 1 + banks)),
            ends.eq(left == 1),
        ]
        with m.If(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.If(ends):
            m.d.sync += wiped.eq(1)
        return wiping, wiped

    def _gate(self, m: Module, issues):
        """Whether the last word of a group may issue: the drain is free, and the result queue.

        That of the next group comes MIN_ROW_WORDS cycles or more after this one, so that both may
        learn late what has issued.
        """
        regs = self.registers
        lanes = regs[Reg.LANES][: self.geometry.p.bit_length()]
        depth = self.results
        group = Signal()
        few = Signal()  # so few lanes that the drain is free before any other group ends
        less = Signal.like(lanes)
        gate = Signal(init=1)
        left = Signal.like(lanes)
        is_result = regs[Reg.FLAGS][spec.FLAG_RESULT]
        m.d.sync += [group.eq(issues), few.eq(lanes <= 2), less.eq(lanes - 2)]
        with m.If(group):
            m.d.sync += [gate.eq(few), left.eq(less)]
        with m.Elif(~gate):
            m.d.sync += [gate.eq(left == 1), left.eq(left - 1)]
        reserved = Signal(range(depth + 1))
        most = Signal(range(depth + 1))
        room = Signal(init=1)
        take = Signal.like(lanes)
        m.d.sync += [
            take.eq(Mux(group & is_result, lanes, 0)),
            reserved.eq(reserved + take - self.released),
            most.eq(depth - lanes),
            room.eq(~is_result | (reserved <= most)),
        ]
        return gate, room

    def _host_writes(self, m: Module, accepted, clearing, restart) -> None:
        host, flags = self.host, self.registers[Reg.FLAGS]
        index = Signal(16)
        data = Signal.like(host.data, reset_less=True)  # cleared by one flip-flop, for a short path
        fill = Mux(flags[spec.FLAG_FILL], 0x80, 0).replicate(self.geometry.n)
        domain = m.d.comb if self.compact else m.d.sync
        domain += [
            host.valid.eq(accepted | clearing),
            host.local.eq(clearing),
            host.m.eq(index),
            data.eq(Mux(clearing, fill, self.input.payload)),
        ]
        m.d.comb += host.data.eq(data)
        with m.If(restart):
            m.d.sync += index.eq(0)
        with m.Elif(accepted | clearing):
            m.d.sync += index.eq(index + 1)

    def _table_writes(self, m: Module, writing) -> None:
        """The entries of a word, a cycle late: the register before it has been written by then.

        Every word comes in: what it is takes longer to say than what the state is.
        """
        entries = Signal(8 * self.geometry.n, reset_less=True)
        late = Signal()
        m.d.sync += late.eq(writing)
        m.d.comb += [
            self.entry.valid.eq(late),
            self.entry.address.eq(self.registers[Reg.TABLE]),
            self.entry.data.eq(entries[:8]),
        ]
        with m.If(~writing):
            m.d.sync += entries.eq(self.fetched.payload.lanes)
        with m.Elif(late):
            m.d.sync += entries.eq(entries >> 8)

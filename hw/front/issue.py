"""The issue stage: one word per cycle, in order; configuration, waits, watchdog."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.ahead import takes_ahead
from secateur.hw.front.before import Before
from secateur.hw.front.configuration import Configuration
from secateur.hw.front.flow import SETUP_CYCLES, Flow, State
from secateur.hw.front.gate import Gate
from secateur.hw.front.intake import Intake
from secateur.hw.front.stopwatch import Stopwatch
from secateur.hw.front.writes import HostWrites, TableWrites, Wipe
from secateur.hw.interfaces import END_TAGS, Kind, issued_signature, word_layout
from secateur.hw.pipeline import delay
from secateur.hw.spec import Error, Reg

_OFFSETS_STAND = 4  # least cycles from the last word of a LOAD until its window's offsets stand


class Issue(wiring.Component):
    """Issues the words of the program in the cycles that ``stream.md`` defines.

    Parameters
    ----------
    geometry : of the engine
    results : results that may be on their way
    latency : cycles from the issue of a word to ``issued.word``, 0 or 1

    Members
    -------
    enable : In(1)  static; the program may begin
    limit : In(32)  static; cycles after which the watchdog ends an inference
    fetched : In(stream of word_layout(n))  words of the program
    input : In(stream)  input words of N bytes
    released : In(2)  results that have left, or were dropped
    soon : In(1)  an input word of the next cycle would meet a pixel
    more : In(1)  behind the word of ``fetched`` there is another; with a ring, as is the next
    stuck : In(1)  no further word will come
    issued : Out(issued_signature(n))  for the blocks behind
    error : Out(Error)  why the engine has stopped, or NONE
    running : Out(1)  an inference runs
    cycles : Out(32)  of the last inference
    memory_wait : Out(32)  cycles besides, in which it waited for words of a ring
    inferences : Out(16)  that have ended, modulo 2**16
    """

    def __init__(self, *, geometry: spec.Geometry, results: int, latency: int = 1):
        if latency not in (0, 1):
            raise ValueError(f"latency must be 0 or 1 cycles, not {latency!r}")
        self.geometry, self.results, self.latency = geometry, results, latency
        n = geometry.n
        super().__init__(
            {
                "enable": In(1),
                "limit": In(32),
                "fetched": In(stream.Signature(word_layout(n))),
                "input": In(stream.Signature(8 * n)),
                "released": In(2),
                "soon": In(1),
                "more": In(1),
                "stuck": In(1),
                "issued": Out(issued_signature(n)),
                "error": Out(Error),
                "running": Out(1),
                "cycles": Out(32),
                "memory_wait": Out(32),
                "inferences": Out(16),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        word, issued = self.fetched.payload, self.issued
        m.submodules.configuration = configuration = Configuration(
            geometry=self.geometry, latency=1 + self.latency
        )
        m.submodules.stopwatch = stopwatch = Stopwatch(apart=self.geometry.ring > 0)
        is_config = word.kind == Kind.CONFIG
        fills_table = is_config & word.first

        flow = Flow()
        starved, there = self._starve(m, flow)
        issue = self.fetched.valid & self.fetched.ready
        m.submodules.gate = gate = Gate(p=self.geometry.p, results=self.results)
        before = Before(
            m,
            p=self.geometry.p,
            last=issue & word.layer_last,
            filters=issued.registers[Reg.FLAGS2][spec.FLAG2_FILTERS],
            frozen=starved,
        )
        held = word.group_last & ~(gate.free & gate.room) | (fills_table & ~before.idle)
        # Commands are never held: conditions on them need not wait for that.
        configures = flow.run & self.fetched.valid
        accepted, taken = Signal(), Signal(name="taken")
        m.submodules.intake = intake = Intake()
        m.submodules.wipe = wipe = Wipe(geometry=self.geometry, fast=self.latency > 0)
        m.d.comb += [
            gate.registers.eq(issued.registers),
            gate.group.eq(issue & word.group_last),
            gate.frozen.eq(starved),
            gate.released.eq(self.released),
            self.fetched.ready.eq(flow.run & there & ~held),
            self.input.ready.eq(flow.takes | intake.ready),
            accepted.eq(self.input.valid & flow.takes),
            configuration.valid.eq(issued.valid if self.latency else configures),
            configuration.word.eq(issued.word),
            configuration.loading.eq(flow.loading),
            configuration.wiped.eq(wipe.wiped),
            configuration.next_entry.eq(issued.entry.valid),
            issued.registers.eq(configuration.registers),
            stopwatch.starved.eq(starved),
        ]
        domain = m.d.sync if self.latency else m.d.comb
        domain += [issued.valid.eq(issue), issued.word.eq(word)]
        domain += [issued.word[tag].eq(word[tag] & issue) for tag in END_TAGS]
        settled = self._settle(m, flow, configuration, before)
        self._walk_states(m, flow, configuration, wipe, issue, settled, accepted)
        refused = self._begin_layers(m, flow, configuration, before, settled)
        at_once = self._take_ahead(m, flow, intake)
        m.d.sync += taken.eq((accepted & flow.last) | at_once)  # a cycle late, for short paths
        self._intake(m, flow, intake, configuration, taken)
        self._write(m, flow, intake)
        full = held & gate.free & ~gate.room
        self._inference(m, flow, stopwatch, issue & ~fills_table, taken, full)
        self._stop(m, flow, configures, refused, stopwatch.over)
        return m

    def _starve(self, m: Module, flow: Flow) -> tuple:
        """Whether this stage waits for a word of a ring, and whether the word may issue.

        In cycles in which it waits, nothing passes for whatever counts cycles here: the count of an
        inference is that of an engine with all words on chip. The header words of a row issue one
        after the other, as the drain takes them.
        """
        if not self.geometry.ring:
            return Const(0), Const(1)
        there = Signal()
        starved = Signal()
        m.d.comb += [
            there.eq((self.fetched.payload.kind != Kind.HEAD_A) | self.more),
            starved.eq(flow.run & ~(self.fetched.valid & there)),
        ]
        return starved, there

    def _settle(self, m: Module, flow: Flow, configuration, before: Before) -> Signal:
        """A strobe in the last cycle of SETUP, which waits for the layer before."""
        settled = Signal()
        ready = Mux(configuration.clear_some, before.drained, before.landed) | flow.loading
        m.d.comb += settled.eq(flow.settles & flow.last & ready)
        return settled

    def _begin_layers(
        self, m: Module, flow: Flow, configuration, before: Before, settled
    ) -> Signal:
        """Strobes at the end of SETUP. Returns one that refuses the layer."""
        issued, starts = self.issued, settled & ~configuration.bad
        layers = starts & ~flow.loading
        hand_over = before.hand_over(
            layers & ~configuration.clear_some,
            layers & configuration.clear_some,
            starts & flow.loading,
        )
        overlaps = spec.overlaps(self.geometry.p)
        late = configuration.late if overlaps else configuration.registers
        m.d.comb += [configuration.hand_over.eq(hand_over), issued.late.eq(late)]
        m.d.sync += [issued.init.eq(layers), issued.late_init.eq(hand_over)]
        with m.If(hand_over):
            m.d.sync += issued.layer.eq(Mux(flow.loading, 0, issued.layer + 1))
        return settled & configuration.bad

    def _intake(self, m: Module, flow: Flow, intake: Intake, configuration, taken) -> None:
        """Words of the next input between the pixels of this inference.

        They go to the window of the LOAD before, which the banks keep once its offsets stand. None
        comes in the cycle of ``taken``: the LOAD lands.
        """
        kept = delay(m, taken & ~intake.open, _OFFSETS_STAND - 1, "kept", reset_less=False)
        opens = configuration.hand_over & ~flow.loading & flow.opening
        m.d.comb += [
            intake.opens.eq(opens if takes_ahead(self.geometry.p) else 0),
            intake.taken.eq(taken),
            intake.closed.eq(flow.state == State.ERROR),
            intake.words.eq(configuration.registers[Reg.GX]),
            intake.one.eq(configuration.input_one),
            intake.soon.eq(self.soon),
            intake.pauses.eq(flow.clears | flow.loading),
            intake.accepted.eq(self.input.valid & self.input.ready),
            self.issued.keep.eq(kept),
        ]

    def _write(self, m: Module, flow: Flow, intake: Intake) -> None:
        """Input words, clears and entries of tables to the blocks behind."""
        n, issued = self.geometry.n, self.issued
        m.submodules.host = host = HostWrites(n=n, latency=self.latency)
        m.submodules.tables = tables = TableWrites(n=n)
        m.d.comb += [
            host.registers.eq(issued.registers),
            host.restart.eq(flow.settles),
            host.accepted.eq(self.input.valid & self.input.ready),
            host.ahead.eq(intake.open),
            host.index.eq(intake.index),
            host.word.eq(self.input.payload),
            host.clearing.eq(flow.clears),
            issued.host.eq(host.host),
            tables.registers.eq(issued.registers),
            tables.writing.eq(flow.fills),
            tables.lanes.eq(self.fetched.payload.lanes),
            issued.entry.eq(tables.entry),
        ]

    def _walk_states(
        self, m: Module, flow: Flow, configuration, wipe: Wipe, issue, settled, accepted
    ) -> None:
        """All transitions but that to ERROR."""
        p = self.geometry.p
        word, registers = self.fetched.payload, configuration.registers
        is_config = word.kind == Kind.CONFIG
        fills_table = is_config & word.first
        starts = is_config & word.common[7]
        loads, opens = (
            is_config & word.common[6] & bit for bit in (~word.common[7], word.common[7])
        )
        ends, rest = self._rest(m, registers)
        m.d.sync += [flow.left.eq(flow.left - 1), flow.last.eq(flow.left == 2)]
        with m.If(flow.ended):
            m.d.sync += flow.ending.eq(0)
        with m.Switch(flow.state):
            with m.Case(State.IDLE):
                m.d.sync += flow.clears.eq(wipe.wiping)
                with m.If(self.enable & wipe.wiped):
                    m.d.sync += flow.go(State.RUN)
            with m.Case(State.RUN):
                # How long the next state lasts does not wait for whether the word issues.
                setup = Mux(fills_table, self.geometry.n, SETUP_CYCLES)
                m.d.sync += flow.left.eq(Mux(is_config, setup, rest))
                m.d.sync += flow.last.eq(0)
                with m.If(self.fetched.valid & is_config):
                    m.d.sync += [flow.loading.eq(loads), flow.opening.eq(opens)]
                    with m.If(starts | loads):
                        m.d.sync += flow.go(State.SETUP)
                    with m.If(issue & fills_table):
                        m.d.sync += [*flow.go(State.LANDING), flow.fills.eq(1)]
                with m.If(issue & word.layer_last):
                    m.d.sync += flow.go(State.LANDING)
                    m.d.sync += flow.ending.eq(ends)
            with m.Case(State.SETUP):
                with m.If(flow.last & ~settled):
                    m.d.sync += flow.last.eq(1)
                with m.If(settled):
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

    def _take_ahead(self, m: Module, flow: Flow, intake: Intake) -> Signal:
        """A LOAD of which words have come settles at once. Returns a strobe: all have."""
        behind = flow.settles & flow.last & flow.loading & intake.open
        at_once = behind & intake.none
        with m.If(behind):
            m.d.sync += flow.enter(State.INPUT, intake.left, intake.last)
        with m.If(at_once):
            m.d.sync += flow.enter(State.LANDING, spec.load_tail(self.geometry.p) - 1, 0)
        return at_once

    def _rest(self, m: Module, registers) -> tuple[Signal, Signal]:
        """Whether the inference ends with the layer, and how long LANDING lasts behind it."""
        p, ends = self.geometry.p, Signal()
        rest = Signal(range(max(spec.tail_cycles(p, True), spec.front_cycles(p, True))))
        gives = registers[Reg.FLAGS][spec.FLAG_RESULT]
        m.d.comb += ends.eq(gives & ~registers[Reg.FLAGS2][spec.FLAG2_MORE])
        lengths = [
            Mux(
                registers[Reg.FLAGS2][spec.FLAG2_FILTERS] if self.geometry.s > 1 else 0,
                cycles(p, filters=True) - 1,
                cycles(p) - 1,
            )
            for cycles in (spec.front_cycles, spec.tail_cycles)
        ]
        # A layer's registers stand long before its last word.
        domain = m.d.sync if spec.overlaps(p) else m.d.comb
        domain += rest.eq(Mux(ends, lengths[1], lengths[0]))
        return ends, rest

    def _inference(self, m: Module, flow: Flow, stopwatch: Stopwatch, begins, taken, full) -> None:
        """When an inference begins and ends, and in which of its cycles it waits for the host.

        It ends in the first cycle in which the next word may issue. The tables at the start of a
        program do not count for any inference.
        """
        begun, runs = (Signal(name=name) for name in ("begun", "runs"))
        for name in ("cycles", "memory_wait", "inferences"):
            m.d.comb += getattr(self, name).eq(getattr(stopwatch, name))
        m.d.comb += [
            self.running.eq(runs | taken),
            stopwatch.limit.eq(self.limit),
            stopwatch.begin.eq(taken),
            stopwatch.end.eq(flow.ended),
            stopwatch.waits.eq(flow.takes | (flow.run & self.fetched.valid & full) | ~begun),
        ]
        with m.If(begins):
            m.d.sync += begun.eq(1)
        with m.Elif(flow.ended):
            m.d.sync += begun.eq(0)
        with m.If(self.issued.init | taken):
            m.d.sync += runs.eq(1)
        with m.Elif(flow.ended):
            m.d.sync += runs.eq(0)

    def _stop(self, m: Module, flow: Flow, configures, refused, over) -> None:
        """The transition to ERROR.

        A wrong row is found in one cycle and stops the engine in the next. A word that issues in
        between writes nothing outside the windows of the banks.
        """
        word = self.fetched.payload
        wrong, past_tables = (Signal(name=name) for name in ("wrong", "past_tables"))
        entries = spec.TABLE_ENTRIES * self.geometry.tables
        past = self.issued.entry.address >= entries if entries else Const(1)
        m.d.sync += past_tables.eq(self.issued.entry.valid & past)
        m.d.sync += wrong.eq(
            (configures & (word.kind == Kind.HEAD_B) & word.first)
            | refused
            | past_tables
            | self.stuck
        )
        with m.If((wrong | over) & (flow.state != State.ERROR)):
            m.d.sync += flow.go(State.ERROR)
            m.d.sync += self.error.eq(Mux(wrong, Error.ROW, Error.WATCHDOG))

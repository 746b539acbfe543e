"""The ring against a naive model: what is read is what was written there in the program's order.

A writer and a reader at will, a memory of four words. The model counts words without end; it
watches one of them, any. The reader keeps what the fetcher keeps: it turns back only to words that
are not free, and passes over the same words again. ``pytest -m long tests/hw/memory`` goes deeper.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from amaranth.hdl import Assert, Assume, Const, Elaboratable, Module, Mux, Signal
from amaranth.lib import data

from secateur.hw import ring
from secateur.hw.front.ring.walk import RingWalk
from secateur.hw.interfaces import Kind
from secateur.hw.memory.ring_fill import RingFill
from secateur.hw.memory.weight_memory import WeightMemory
from secateur.hw.pipeline import delay
from tests.hw.proofs import prove

BITS = 5  # of the model's counts: more than the words that a bounded run writes


class Side:
    """What RingWalk sees of a fetcher's address side."""

    def __init__(self) -> None:
        names = ("go", "loop", "match", "at_last", "armed", "final_row", "arm", "filters")
        for name in names:
            setattr(self, name, Signal(name=f"side_{name}"))
        self.step = Signal(2, init=1, name="side_step")
        self.expect = Signal(Kind, name="side_expect")


class RingTop(Elaboratable):
    """``fault``: the writer does not wait for slots, or the reader not for words."""

    def __init__(self, s: int, fault: str) -> None:
        self.fault = fault
        self.geometry = SimpleNamespace(
            ring=4, s=s, header_words=1, weight_words=64, word_bytes=3, word_bits=1
        )
        names = ("write", "data", "last", "go", "match", "again", "final_row", "config", "arm")
        self.free = {name: Signal(name=name) for name in names}
        self.watched = Signal(BITS, name="watched")
        self.inputs = [*self.free.values(), self.watched]

    def elaborate(self, platform: object) -> Module:
        m, side = Module(), Side()
        geometry = self.geometry
        m.submodules.fill = fill = RingFill(geometry=geometry)
        m.submodules.memory = memory = WeightMemory(width=1, depth=4, s=geometry.s)
        walk = RingWalk(
            m, geometry=geometry, side=side, first=Signal(1), filled=fill.filled, full=fill.full
        )
        self._write(m, fill, memory)
        number = self._read(m, side, walk, memory)
        m.d.comb += fill.free.eq(walk.free)
        self._compare(m, side, fill, memory, number)
        return m

    def _following(self, number, last):
        """The word behind one; a pass begins with a group of its own, in its first bank."""
        s = self.geometry.s
        return Mux(last, number + s - number % s, number + 1)

    def _write(self, m: Module, fill: RingFill, memory: WeightMemory) -> None:
        free, before = self.free, Signal()
        late = Signal()
        self.written = Signal(BITS, init=1)
        self.value = Signal()
        wait = 0 if self.fault == "writer" else fill.full
        m.d.sync += [before.eq(free["write"]), late.eq(free["data"])]
        m.d.comb += [
            Assume(~(free["write"] & (before | wait))),  # words are two cycles apart
            fill.valid.eq(free["write"]),
            fill.last.eq(free["last"]),
            memory.write_en.eq(fill.write_en),
            memory.write_addr.eq(fill.write_addr),
            memory.write_data.eq(late),
        ]
        with m.If(free["write"]):
            m.d.sync += self.written.eq(self._following(self.written, free["last"]))
            with m.If(self.written == self.watched):
                m.d.sync += self.value.eq(free["data"])
        # Which words were the last of their passes: the reader must know.
        self.lasts = Signal(1 << BITS)
        with m.If(free["write"] & free["last"]):
            m.d.sync += self.lasts.bit_select(self.written, 1).eq(1)

    def _read(self, m: Module, side: Side, walk: RingWalk, memory: WeightMemory):
        free, latency = self.free, ring.read_cycles(self.geometry)
        number, body, end = (Signal(BITS, init=1, name=n) for n in ("number", "body", "end"))
        again, rows = Signal(name="passes_again"), Signal(name="in_row")
        released = Signal(BITS)  # words below it are free, or will be
        ready = 1 if self.fault == "reader" else walk.ready
        last = self.lasts.bit_select(number, 1)
        m.d.comb += [
            side.go.eq(free["go"] & ready),
            side.at_last.eq(last),
            side.match.eq(free["match"] & rows),
            side.loop.eq(side.match & free["again"] & ~free["final_row"]),
            side.armed.eq(rows),
            side.final_row.eq(free["final_row"]),
            side.arm.eq(free["arm"]),
            memory.read_addr.eq(walk.slot),
        ]
        # A row begins with the word behind that which came from the memory a cycle ago.
        came = delay(m, number, latency + 1, "came")
        valid = delay(m, side.go, latency + 1, "valid", reset_less=False)
        passed = delay(m, last, latency + 1, "passed_last")
        begin = self._following(came, 0)
        m.d.comb += Assume(~free["arm"] | (valid & ~rows & ~passed & (begin <= number)))
        with m.If(free["arm"]):
            m.d.sync += [body.eq(begin), rows.eq(1), again.eq(0)]
        # It is read to its end again and again, not over the end of a pass of the program.
        m.d.comb += [
            Assume(~rows | (self.lasts >> body == 0) | (number < body)),
            Assume(~(again & side.go) | (side.match == (number == end))),
            Assume(~side.loop | (released <= body)),
        ]
        with m.If(side.go):
            m.d.sync += number.eq(Mux(side.loop, body, self._following(number, last)))
            with m.If(side.match):
                m.d.sync += [end.eq(number), again.eq(side.loop), rows.eq(side.loop)]
        # Words are free in the last pass, or if they are of no row.
        kind = Mux(free["config"], Kind.CONFIG, Kind.BODY)
        late = delay(m, rows & side.go, latency, "late_row", reset_less=False)
        live = delay(m, side.go, latency, "live", reset_less=False)
        here = delay(m, number, latency, "here")
        m.d.comb += [side.expect.eq(kind), Assume(~(free["config"] & (late | rows | free["arm"])))]
        queued = Signal(data.StructLayout({"row": len(walk.free), "done": 1}))
        walk.release(live, queued, 0, Const(0))
        done = delay(m, rows & free["final_row"], latency, "row_done")
        with m.If(live & (free["config"] | done)):
            m.d.sync += released.eq(here + 1)
        return number

    def _compare(self, m: Module, side: Side, fill: RingFill, memory, number) -> None:
        """The watched word, when it comes from the memory."""
        latency, before, begun = ring.read_cycles(self.geometry), Signal(BITS), Signal()
        m.d.sync += [before.eq(self.watched), begun.eq(1)]
        m.d.comb += Assume(~begun | (self.watched == before))
        read = delay(m, side.go & (number == self.watched), latency, "is_read", reset_less=False)
        m.d.comb += Assert(~read | (memory.read_data == self.value))
        m.d.comb += Assert(~side.go | (number < self.written))


@pytest.mark.parametrize(
    ("s", "depth"),
    [
        (2, 15),
        pytest.param(1, 18, marks=pytest.mark.long),
        pytest.param(2, 20, marks=pytest.mark.long),
    ],
)
def test_proof(s: int, depth: int, tmp_path: Path) -> None:
    top = RingTop(s, "none")
    passed, log = prove(top, top.inputs, tmp_path, mode="bmc", depth=depth)
    assert passed, log[-2000:]


@pytest.mark.parametrize("fault", ["writer", "reader"])
def test_the_proof_can_fail(fault: str, tmp_path: Path) -> None:
    """Within the depth of the proof: a writer that does not wait, a reader that does not."""
    top = RingTop(2, fault)
    assert not prove(top, top.inputs, tmp_path, mode="bmc", depth=15)[0]

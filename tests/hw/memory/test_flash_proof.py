"""The reader of a flash against a naive one: which bytes leave, and in which cycles.

The flash is a count of clocks and one byte that is watched, any; all others may be anything at any
time. What is sent before data is shortened, and so is the header: its first byte is the number of
words, of one byte. The taker pauses at will. ``pytest -m long tests/hw/memory`` goes deeper.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from amaranth.hdl import Assert, Assume, Elaboratable, Module, Mux, Signal

from secateur.hw.flash import Step
from secateur.hw.memory import image_words
from secateur.hw.memory.flash_reader import FlashReader
from secateur.hw.ring import Source
from tests.hw.proofs import prove
from tests.support.long import long

GEOMETRY = SimpleNamespace(weight_words=4, word_bytes=1)
CLOCK, REST = Step(True, True), Step()


def flash(latency: int = 6) -> SimpleNamespace:
    """Four lines; the flash is deselected for a clock, and one begins a read."""
    return SimpleNamespace(
        quad=True, byte_clocks=2, divider=2, delay=1, pause=1, data=Step(True, True, 0, 0),
        first=(CLOCK,), again=(Step(True), REST, CLOCK), other=(), slots=None,
        source=Source(interval=4, latency=latency),
    )  # fmt: skip


class FlashTop(Elaboratable):
    """``depth``: bytes that the reader takes in advance, if not those that it needs."""

    def __init__(self, flash: SimpleNamespace, depth: int | None = None) -> None:
        self.flash, self.depth = flash, depth
        self.free = {name: Signal(4, name=name) for name in ("noise", "words", "watched")}
        self.ready, self.value = Signal(), Signal(8)
        self.inputs = [*self.free.values(), self.ready, self.value]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.reader = reader = FlashReader(geometry=GEOMETRY, flash=self.flash)
        reader.depth = self.depth or reader.depth
        words, watched = self.free["words"], self.free["watched"]
        for given in (words, watched, self.value):
            before, begun = Signal.like(given), Signal(name=f"begun_{given.name}")
            m.d.sync += [before.eq(given), begun.eq(1)]
            m.d.comb += Assume(~begun | (given == before))
        m.d.comb += [
            Assume((words >= 3) & (words < 6) & (watched < words)),
            Assume((watched != 0) | (self.value == words)),
            reader.image.ready.eq(self.ready),
        ]
        self._flash(m, reader, words, watched)
        self._compare(m, reader, words, watched)
        return m

    def _flash(self, m: Module, reader: FlashReader, words, watched) -> None:
        """What it gives from a falling edge on, until the next and a cycle longer."""
        falls, fallen, sck = Signal(5), Signal(5), Signal()
        m.d.sync += [sck.eq(reader.sck), fallen.eq(falls)]
        m.d.comb += falls.eq(Mux(reader.cs_n, 0, fallen + (sck & ~reader.sck)))
        at = Signal(5)
        m.d.comb += at.eq(falls - 1)  # behind the clock that begins a read
        byte, part = at[1:], at[0]
        content = Mux(byte == watched, self.value, Mux(byte == 0, words, 0))
        given = (byte == watched) | (byte == 0)
        level = Mux(part, content[:4], content[4:])
        now, late = Signal(4), Signal(4)
        m.d.comb += now.eq(Mux(given & (falls >= 1), level, self.free["noise"]))
        m.d.sync += late.eq(now)
        m.d.comb += reader.level.eq(late)

    def _compare(self, m: Module, reader: FlashReader, words, watched) -> None:
        """The watched byte; and that each is there from the cycle on that its rate says."""
        image, source = reader.image, self.flash.source
        at, begun = Signal(4), Signal()
        since, wait = Signal(2), Signal(5)  # the byte before was there; until the next one is
        taken = image.valid & image.ready
        last = at + 1 == words
        m.d.comb += Assert(~image.valid | (at != watched) | (image.payload == self.value))
        held, payload = Signal(), Signal(8)
        m.d.sync += [held.eq(image.valid & ~image.ready), payload.eq(image.payload)]
        m.d.comb += Assert(~held | (image.valid & (image.payload == payload)))
        with m.If(begun):
            m.d.comb += Assert(image.valid == (wait == 0))
        with m.If(taken):
            rest = source.interval - 1 - since
            m.d.sync += [
                at.eq(Mux(last, 0, at + 1)),
                begun.eq(1),
                since.eq(0),
                wait.eq(rest + Mux(last, source.latency, 0)),
            ]
        with m.Elif(image.valid):
            m.d.sync += since.eq(Mux(since == 3, 3, since + 1))
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)


@pytest.fixture(autouse=True)
def short_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_words, "WORDS_AT", 0)


@pytest.mark.parametrize("depth", [28, long(36), long(52)])
def test_proof(depth: int, tmp_path: Path) -> None:
    """A pass and the beginning of the next, and with ``long`` that of a third."""
    top = FlashTop(flash())
    passed, log = prove(top, top.inputs, tmp_path, mode="bmc", depth=depth)
    assert passed, log[-2000:]


@pytest.mark.parametrize("fault", ["depth", "latency"])
def test_the_proof_can_fail(fault: str, tmp_path: Path) -> None:
    """Too few bytes in advance; a latency that is shorter than what is sent between two passes."""
    top = FlashTop(flash(5 if fault == "latency" else 6), 2 if fault == "depth" else None)
    assert not prove(top, top.inputs, tmp_path, mode="bmc", depth=36)[0]

"""The fetcher: walks the weight memory and parses the program into tagged words."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from secateur.hw import spec
from secateur.hw.front.copies import register_copies, row_words
from secateur.hw.front.ring.walk import RingWalk
from secateur.hw.front.side import AddressSide, count_passes, rotate
from secateur.hw.interfaces import Kind, word_layout
from secateur.hw.memory.fifo import CreditFifo
from secateur.hw.pipeline import delay
from secateur.hw.ring import FETCH_WORDS, memory_words

FIFO_DEPTH = FETCH_WORDS


class Fetcher(wiring.Component):
    """Walks words ``header_words .. last`` again and again, later rounds from the LOOP mark on.

    Loops over the bodies of rows. In layers of filter lanes it reads every S-th word, that of
    lane 0. It begins again at the first row of such a layer, and drops the words that it has read
    by then. Behind the layer it waits until the lanes have their words.

    The address side runs ahead of the data side by the memory's latency. It learns the length of
    a row and its number of passes from the data side before the first pass over the row is over,
    as long as a row has MIN_ROW_WORDS words; no cycle is lost in turning back. Words on the way
    are covered by credits, so that a stalled output loses none and resumes at one word per cycle.

    Parameters
    ----------
    geometry : of the engine
    latency : of the weight memory, in cycles
    rotate : cycles from a word of the memory to the queue, 1 or 2
    block : the queue is in block RAM

    Members
    -------
    enable : In(1)  static; the walk begins
    last : In  static; address of the program's last word
    mem_addr : Out  of a word of the weight memory
    mem_data : In  that word, ``latency`` cycles later
    mem_read : Out(1)  it is wanted
    output : Out(stream of word_layout(n))  tagged words
    row : Out  word of each bank of the weight memory that the lanes of ``output`` take; with S > 1
    aside : Out(1)  lanes take words from the banks from 1 on; with S > 1
    taken : In(1)  strobe: they have taken the last of a layer; with S > 1
    first : In  static; address at which later rounds begin; with a ring, as are the next five
    filled, full : In(1)  of the ring, see RingLoader
    free : Out  group of the first slot of the ring that is in use
    more : Out(1)  the word behind that of ``output`` has been fetched, too
    stuck : Out(1)  no word will ever come: the ring is full, and none of its words can go
    """

    def __init__(
        self, *, geometry: spec.Geometry, latency: int, rotate: int = 2, block: bool = False
    ):
        if latency + 3 > spec.MIN_ROW_WORDS:
            raise ValueError(
                f"latency must be at most {spec.MIN_ROW_WORDS - 3} cycles, not {latency!r}"
            )
        if rotate not in (1, 2):
            raise ValueError(f"rotate must be 1 or 2 cycles, not {rotate!r}")
        self.geometry, self.latency, self.rotate, self.block = geometry, latency, rotate, block
        self.layout = word_layout(geometry.n)
        address, slot = (ceil_log2(w) for w in (geometry.weight_words, memory_words(geometry)))
        self.side_bits = ceil_log2(geometry.s)
        rows = {"row": Out(slot - self.side_bits), "aside": Out(1), "taken": In(1)}
        in_ring = {
            "first": In(address),
            "filled": In(1),
            "full": In(1),
            "free": Out(slot + 1 - self.side_bits),
            "more": Out(1),
            "stuck": Out(1),
        }
        super().__init__(
            {
                "enable": In(1),
                "last": In(address),
                "mem_addr": Out(slot),
                "mem_data": In(geometry.word_bits),
                "mem_read": Out(1),
                "output": Out(stream.Signature(self.layout)),
                **(rows if geometry.s > 1 else {}),
                **(in_ring if geometry.ring else {}),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        n, header_words = self.geometry.n, self.geometry.header_words
        width = len(self.last)
        side = AddressSide(width, header_words)
        self._walk(m, side)
        walk = self._place(m, side)

        # Data side, first step: the kind of this word.
        seen = delay(m, side.tags, self.latency, "tags", reset_less=False)
        seen = data.View(side.tags.shape(), seen)
        where = delay(m, side.address, self.latency, "where")
        count_low = Signal(8)
        live = Signal()
        m.d.comb += live.eq(seen.valid & (seen.turn == side.turn))
        raw, begins, row_final, arm = self._parse(m, seen, live, where, side, count_low)
        common, shift = self.mem_data[8 * n :], self.side_bits
        count = row_words(count_low, common, side.named)
        body = Signal(width)
        words = Signal(spec.ROW_COUNT_BITS + shift)
        before_body = Signal(width)
        m.d.sync += [
            body.eq(where + side.step),
            before_body.eq(where - side.step),
            words.eq(Mux(side.filters, count << shift, count)),
        ]

        # Second step: the row is known, the address side takes over. Third: rotated words.
        with m.If(arm):
            m.d.sync += [
                side.armed.eq(1),
                side.body_start.eq(body),
                side.body_before_end.eq(before_body + words),
                side.last_row.eq(row_final),
            ]
        held_valid, held, turned_valid, turned = rotate(
            m, n=n, registers=self.rotate, raw=raw, valid=live
        )
        copies, filters = register_copies(m, self.geometry, held_valid, held, turned, side.named)
        jump = Const(0)
        if shift:
            jump = delay(m, begins, 3, "begins", reset_less=False) & filters
            self._jump(m, side, jump, begins, where)
            if walk is not None:
                walk.jump(jump, begins, self.filled)
            with m.If(jump):
                m.d.sync += [held_valid.eq(0), turned_valid.eq(0)]
        # `arm` comes before the first pass of the row ends: a row has MIN_ROW_WORDS words or more.
        pass_ends = Signal()
        m.d.sync += pass_ends.eq(side.go & side.match)
        count_passes(m, pass_ends, arm, side.left, side.final, copies)

        back, queued = self._enqueue(m, turned, turned_valid & ~jump, where, walk)
        dropped = Mux(jump, turned_valid + held_valid + live, seen.valid & ~live) if shift else 0
        m.d.sync += back.eq(dropped)
        self._count(m, side, back, walk, live, queued)
        return m

    def _count(
        self, m: Module, side: AddressSide, back, walk: RingWalk | None, live, queued
    ) -> None:
        """Read while there is a credit, and a word in the ring; words give theirs back."""
        credits = Signal(range(-1, FIFO_DEPTH), init=FIFO_DEPTH - 1)  # less 1: its sign is the test
        leaves, ready = self.output.valid & self.output.ready, Const(1)
        pop = Signal()
        if walk is not None:
            ready = walk.ready
            walk.release(live, queued, leaves, self.aside if self.side_bits else Const(0))
            walk.watch(credits == FIFO_DEPTH - 1)
        m.d.comb += side.go.eq(self.enable & ~credits[-1] & ~side.held & ready)
        m.d.sync += [pop.eq(leaves), credits.eq(credits + pop + back - side.go)]

    def _place(self, m: Module, side: AddressSide) -> RingWalk | None:
        """Where words are: at their own addresses, or in the ring."""
        if not self.geometry.ring:
            m.d.comb += self.mem_addr.eq(side.address)
            return None
        walk = RingWalk(
            m,
            geometry=self.geometry,
            side=side,
            first=self.first,
            filled=self.filled,
            full=self.full,
        )
        m.d.comb += [
            self.mem_addr.eq(walk.slot),
            self.free.eq(walk.free),
            self.stuck.eq(walk.stuck),
        ]
        return walk

    def _enqueue(self, m: Module, word, valid, where, walk: RingWalk | None):
        """Add the queue of fetched words.

        Returns
        -------
        back : a register for the number of words that do not reach it
        queued : what the queue has beside the first word
        """
        shift = self.side_bits
        rows = {"row": len(self.row)} if shift else {}
        if shift and walk is not None:
            rows, where = {"row": len(walk.free), "done": 1}, walk.where
        m.submodules.fifo = fifo = CreditFifo(
            shape=data.StructLayout({"word": self.layout} | rows),
            depth=FIFO_DEPTH,
            block=self.block,
        )
        m.d.comb += [
            fifo.write_en.eq(valid),
            fifo.write_data.word.eq(word),
            fifo.output.ready.eq(self.output.ready),
            self.output.valid.eq(fifo.output.valid),
            self.output.payload.eq(fifo.output.payload.word),
        ]
        if shift:
            row = delay(m, where[shift:], 2, "row")
            m.d.comb += [fifo.write_data.row.eq(row), self.row.eq(fifo.output.payload.row)]
        if walk is not None:
            m.d.comb += self.more.eq(fifo.more)
        if "done" in rows:
            m.d.comb += fifo.write_data.done.eq(delay(m, walk.done, 2, "queued_done"))
        return Signal(range(4), name="back"), fifo.output.payload

    def _jump(self, m: Module, side: AddressSide, jump, begins, where) -> None:
        """To the rows of filter lanes, and behind them on when the lanes have their words."""
        shift = self.side_bits
        first = Signal(len(where) - shift)
        m.d.comb += side.step.eq(Mux(side.filters, 1 << shift, 1))
        with m.If(begins):
            m.d.sync += first.eq(where[shift:] + 1)
        with m.If(side.go & side.tags.row & side.last_row & side.filters):
            m.d.sync += [side.filters.eq(0), side.held.eq(1)]
        with m.If(self.taken):
            m.d.sync += [side.held.eq(0), self.aside.eq(0)]
        with m.If(jump):
            m.d.sync += [
                side.address.eq(first << shift),
                side.at_last.eq(0),
                side.match.eq(0),
                side.armed.eq(0),
                side.filters.eq(1),
                side.turn.eq(~side.turn),
                side.expect.eq(Kind.HEAD_A),
                side.arm.eq(0),
                self.aside.eq(1),
            ]

    def _walk(self, m: Module, side: AddressSide) -> None:
        """The address side, one word in each cycle of ``go``."""
        address, tags, left, final = side.address, side.tags, side.left, side.final
        before_last = Signal(len(address))
        single = Signal()
        at_last, shift, loop = side.at_last, self.side_bits, side.loop
        final_row = side.final_row  # all three: a flip-flop of its own, beside the address
        loop_start = self.first if self.geometry.ring else side.loop_start
        m.d.comb += [
            loop.eq(side.match & ~final_row),
            self.mem_read.eq(side.go),
            tags.valid.eq(side.go),
            tags.pas.eq(side.match),
            tags.group.eq(side.match & final["z"]),
            tags.line.eq(side.match & final["z"] & final["x"]),
            tags.row.eq(side.match & final_row),
            tags.turn.eq(side.turn),
        ]
        m.d.sync += [final[name].eq(left[name] == 1) for name in left]
        m.d.sync += final_row.eq((left["x"] == 1) & (left["y"] == 1) & (left["z"] == 1))
        last_side = self.last[shift:] << shift
        m.d.sync += [
            before_last.eq(Mux(side.filters, last_side, self.last) - side.step),
            single.eq(self.last == loop_start),
        ]
        following = Mux(at_last, loop_start, (address + side.step)[: len(address)])
        with m.If(side.go):
            m.d.sync += [
                address.eq(Mux(loop, side.body_start, following)),
                at_last.eq(~loop & Mux(at_last, single, address == before_last)),
                side.match.eq(side.armed & ~side.match & (address == side.body_before_end)),
            ]
            with m.If(tags.row):
                m.d.sync += side.armed.eq(0)
        with m.Elif(~self.enable):
            m.d.sync += at_last.eq(single)

    def _parse(self, m: Module, seen, live, where, side: AddressSide, count_low):
        """Tell the kind of the word from the memory.

        Returns
        -------
        raw : the word with its tags
        begins : it is a START
        row_final : the row that it is in is its layer's last
        arm : strobe one cycle after a row's second header word
        """
        common = self.mem_data[8 * self.geometry.n :]
        raw = Signal(self.layout)
        expect, arm = side.expect, side.arm
        first = Signal()
        row_final = Signal()
        begins = Signal()
        start = (common & spec.COMMON_START).any()
        m.d.comb += begins.eq(live & (expect == Kind.CONFIG) & start)
        entries = common == spec.INDEX_TABLE
        short = row_words(count_low, common, side.named) < spec.MIN_ROW_WORDS
        m.d.comb += [
            raw.lanes.eq(self.mem_data),
            raw.common.eq(common),
            raw.kind.eq(expect),
            raw.first.eq(
                Mux(expect == Kind.CONFIG, entries, Mux(expect == Kind.HEAD_B, short, first))
            ),
            raw.pass_last.eq(seen.pas),
            raw.group_last.eq(seen.group),
            raw.line_last.eq(seen.line),
            raw.row_last.eq(seen.row),
            raw.layer_last.eq(seen.row & row_final),
        ]
        m.d.sync += arm.eq(0)
        with m.If(live):
            with m.Switch(expect):
                with m.Case(Kind.CONFIG):
                    if not self.geometry.ring:
                        with m.If((common & spec.COMMON_REGISTER) == spec.INDEX_LOOP):
                            m.d.sync += side.loop_start.eq(where + 1)
                    with m.If(start):
                        m.d.sync += expect.eq(Kind.HEAD_A)
                with m.Case(Kind.HEAD_A):
                    m.d.sync += [count_low.eq(common), expect.eq(Kind.HEAD_B)]
                with m.Case(Kind.HEAD_B):
                    m.d.sync += [arm.eq(1), first.eq(1), expect.eq(Kind.BODY)]
                    m.d.sync += row_final.eq((common & spec.ROW_LAST).any())
                with m.Case(Kind.BODY):
                    m.d.sync += first.eq(seen.pas)
                    with m.If(seen.row):
                        m.d.sync += expect.eq(Mux(row_final, Kind.CONFIG, Kind.HEAD_A))
        return raw, begins, row_final, arm

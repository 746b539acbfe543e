"""Where the fetcher is in the ring: which slots it reads, which it frees, and when it waits."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.utils import ceil_log2

from secateur.hw import ring, spec
from secateur.hw.interfaces import Kind
from secateur.hw.pipeline import delay

#: Cycles after which a walk that waits for a word, while all slots are in use, waits for ever.
STUCK_CYCLES = 64


class RingWalk:
    """Follows the address side of a fetcher, slot by slot.

    Slots count modulo twice the ring's words: words of one pass are in consecutive ones. A walk
    reads a word for the first time if its group of S words is complete, and again at will. A word
    is free once it has been read in the last pass over its row, and a configuration word once it
    has been read; then all slots before it are, too.

    Parameters
    ----------
    m : module of the fetcher
    geometry : of the engine
    side : address side of the fetcher
    first, filled, full : members of the fetcher

    Attributes
    ----------
    slot : of the word that is read
    ready : it may be read
    where : slot of the word that comes from the memory
    done : that word is read in the last pass over its row
    free : group of the first slot that is in use
    stuck : no word will ever come
    """

    def __init__(self, m: Module, *, geometry: spec.Geometry, side, first, filled, full):
        self._m, self._side, self._shift = m, side, ceil_log2(geometry.s)
        self._lag, self._full = ring.side_free_cycles(geometry) - 2, full
        shift, begin = self._shift, geometry.header_words
        bits = ceil_log2(geometry.ring) + 1
        self.slot = Signal(bits, name="slot", init=begin)
        self.free = Signal(bits - shift, name="free_group", init=begin >> shift)
        self.stuck = Signal(name="stuck")
        self._level = Signal(range(-1, geometry.ring + 1), name="level", init=-1)  # groups less 1
        self._again = Signal(name="again")  # the words have been read before
        self.ready = self._again | ~self._level[-1]
        armed = Signal(name="armed_before")
        m.d.sync += armed.eq(side.armed)
        latency = ring.read_cycles(geometry)
        self.where = delay(m, self.slot, latency, "slot")
        self.done = delay(m, side.armed & armed & side.final_row, latency, "done")
        self._body = Signal(bits, name="body_slot")
        self._follow(first, filled)

    def _follow(self, first, filled) -> None:
        m, side, shift = self._m, self._side, self._shift
        start = Signal.like(self.slot, name="body_start_slot")
        m.d.sync += self._body.eq(self.where + side.step)
        with m.If(side.arm):
            m.d.sync += start.eq(self._body)
        next_pass = Cat(first[:shift], self.slot[shift:] + 1)
        following = Mux(side.at_last, next_pass, self.slot + side.step)
        used = Signal(name="group_used")
        ends = (side.filters | self.slot[:shift].all() | side.at_last) if shift else Const(1)
        m.d.comb += used.eq(side.go & ~self._again & ends)
        m.d.sync += self._level.eq(self._level + filled - used)
        with m.If(side.go):
            m.d.sync += self.slot.eq(Mux(side.loop, start, following))
            with m.If(side.loop):
                m.d.sync += self._again.eq(1)
            with m.Elif(side.match):
                m.d.sync += self._again.eq(0)

    def jump(self, jump, begins, filled) -> None:
        """To the rows of filter lanes, as the fetcher does; words read since then are unread.

        Parameters
        ----------
        jump : strobe of the fetcher
        begins : strobe, some cycles before: the word from the memory is the START
        filled : member of the fetcher
        """
        m, shift = self._m, self._shift
        group = Signal(len(self.free), name="first_group")
        unread = (self.slot[shift:] - group)[: len(group)].as_signed()
        with m.If(begins):
            m.d.sync += group.eq(self.where[shift:] + 1)
        with m.If(jump):
            m.d.sync += [
                self.slot.eq(group << shift),
                self._level.eq(self._level + filled + unread),
            ]

    def release(self, live, queued, taken, aside) -> None:
        """Free slots.

        Parameters
        ----------
        live : the word from the memory is fetched
        queued : word of the banks, and ``done``, of a word of filter lanes that issues
        taken : strobe: such a word issues
        aside : lanes use the other banks
        """
        m, side, freed = self._m, self._side, Signal(name="freed")
        ends = (side.expect == Kind.CONFIG) | self.done
        m.d.sync += freed.eq(live & ends & ~aside)
        with m.If(freed):
            m.d.sync += self.free.eq(self._body[self._shift :])
        if self._shift:  # the lanes read their words after the fetcher
            strobe = delay(m, taken & queued.done & aside, self._lag, "lag", reset_less=False)
            row = delay(m, queued.row, self._lag, "lag_row")
            with m.If(strobe):
                m.d.sync += self.free.eq(row + 1)

    def watch(self, idle) -> None:
        """Find out that no word will come: the ring is full of words that stay.

        Parameters
        ----------
        idle : no word is on its way from the fetcher to the issue stage
        """
        m, left = self._m, Signal(range(STUCK_CYCLES), init=STUCK_CYCLES - 1, name="stuck_in")
        m.d.sync += self.stuck.eq(left == 0)
        with m.If(self._full & ~self.ready & idle):
            with m.If(left != 0):
                m.d.sync += left.eq(left - 1)
        with m.Else():
            m.d.sync += left.eq(STUCK_CYCLES - 1)

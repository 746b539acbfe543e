"""When the words of an image are in the ring: a source of constant rate, in closed form by word."""

from __future__ import annotations

from secateur.hw import ring
from secateur.hw.ring import Source
from secateur.hw.spec import Geometry


class Supply:
    """Fills the ring, as far as its words have been freed.

    Parameters
    ----------
    geometry : of the array, with a ring
    source : that fills it
    words : of the image
    mark : the word at which later inferences begin
    """

    def __init__(self, geometry: Geometry, source: Source, words: int, mark: int) -> None:
        self._source, self._bytes, self._words, self._mark = source, geometry.n + 1, words, mark
        self._side, self._groups = geometry.s, geometry.ring // geometry.s
        self._first = geometry.header_words  # word from which on this pass is kept
        self._at, self._base = 0, 0  # next word, and the slot of word 0
        self._ready, self._rests = source.latency, 0  # of the next byte; none is taken before
        self._complete = [0] * (geometry.header_words // geometry.s)  # per group
        self._free: list[tuple[int, int]] = []  # groups that are free, and from when on
        self._asked = 0  # events of it that are needed no more

    def step(self) -> int:
        """By how much the slots of a pass are behind those of the one before."""
        return ((self._words - 1) // self._side + 1 - self._mark // self._side) * self._side

    def release(self, slot: int, when: int) -> None:
        """All words before a slot may be overwritten from a cycle on."""
        self._free.append((slot // self._side, when))

    def when(self, slot: int) -> int | None:
        """The first cycle in which a word may be read; None if its slot is not free yet."""
        group = slot // self._side
        while len(self._complete) <= group:
            if not self._fill():
                return None
        return self._complete[group]

    def _fill(self) -> bool:
        """One more word; False if it has no slot yet."""
        slot, interval = self._base + self._at, self._source.interval
        kept, free = self._at >= self._first, 0
        if kept and slot // self._side >= self._groups:
            found = self._freed(slot // self._side - self._groups + 1)
            if found is None:
                return False
            free = found
        begins = max(self._ready, self._rests)
        second = max(self._ready + interval, begins + 1)
        before_last = second + (self._bytes - 2) * interval
        last = max(before_last, free)
        self._ready = max(before_last + interval, last + 1)
        ends = self._at == self._words - 1
        if kept and (ends or slot % self._side == self._side - 1):
            self._complete.append(last + ring.FILL_CYCLES)
        self._at += 1
        if ends:
            self._base += self.step()
            self._at, self._first = 0, self._mark
            self._rests = last + ring.PASS_CYCLES + 1
            self._ready += self._source.latency
        return True

    def _freed(self, groups: int) -> int | None:
        """When so many groups are free."""
        while self._asked < len(self._free) and self._free[self._asked][0] < groups:
            self._asked += 1
        return self._free[self._asked][1] if self._asked < len(self._free) else None

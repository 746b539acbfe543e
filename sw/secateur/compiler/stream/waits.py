"""How long an array with a ring waits for its source, predicted word by word.

The golden interpreter steps through all cycles of the same (``sim/ring.py``); this goes from word
to word, and from group to group where groups of a row are alike.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from secateur.compiler.encode import Encoded
from secateur.compiler.schedule import Plan
from secateur.compiler.stream.supply import Supply
from secateur.hw import ring, spec
from secateur.hw.ring import Source
from secateur.hw.spec import Geometry

_LONG_AGO = -(1 << 60)
#: Inferences that follow each other at once before the last is taken for all that follow.
_SETTLED = 8


@dataclass(frozen=True)
class _Part:
    """Words between two commands, and the rows behind them.

    Attributes
    ----------
    at : first word
    common : common bytes of the configuration words; the last is the command
    inputs : words that a LOAD takes; 0: it is a layer
    ahead : in later inferences these have come by then
    rows, counts : first header word of the first row group; words of a body of each
    side, groups, passes, lanes : of the layer; passes of each group
    clear : cycles of a CLEAR
    ends : the inference ends with it
    """

    at: int
    common: bytes
    inputs: int = 0
    ahead: bool = False
    rows: int = 0
    counts: tuple[int, ...] = ()
    side: int = 1
    groups: int = 1
    passes: int = 1
    lanes: int = 1
    clear: int = 0
    ends: bool = False


def _parts(planned: Plan, encoded: Encoded) -> tuple[list[_Part], int]:
    """The inputs and layers of a program, and the word at which later inferences begin."""
    common = encoded.words[:, -1].tobytes()
    at = mark = planned.geometry.header_words
    first = len(encoded.words) - sum(encoded.layer_words)
    found = list[_Part]()
    given = [planned.layouts[tensor].words for tensor in planned.network.given]
    for index in range(at, first):
        if common[index] == spec.INDEX_LOOP:
            mark = index + 1
        if common[index] & spec.COMMON_LOAD:
            ahead, words = planned.opens is not None, given[len(found)]
            found.append(_Part(at, common[at : index + 1], inputs=words, ahead=ahead))
            at = index + 1
    for layer_plan, words, parts in zip(
        planned.layers, encoded.layer_words, encoded.layer_parts, strict=True
    ):
        side, counts = layer_plan.side, tuple(layer_plan.counts)
        rows = at + words - sum((2 + count) * side for count in counts)
        start = next(i for i in range(rows - 1, at - 1, -1) if common[i] & spec.COMMON_START)
        found.append(
            _Part(
                at,
                common[at : start + 1],
                rows=rows,
                counts=counts,
                side=side,
                groups=layer_plan.lane_map.groups,
                passes=layer_plan.body.passes,
                lanes=layer_plan.lane_map.lanes,
                clear=parts.clear,
                ends=layer_plan is planned.layers[-1],
            )
        )
        at += words
    return found, mark


def predict(
    planned: Plan,
    encoded: Encoded,
    geometry: Geometry,
    source: Source,
    inferences: int | None = None,
) -> list[list[int]]:
    """Cycles in which inferences wait for words, by layer: (inferences, layers).

    The first input comes when the ring is full, each further one as soon as it is taken.

    Parameters
    ----------
    planned, encoded : the program
    geometry : of the array, with a ring; the plan may use fewer filter lanes
    source : that fills it
    inferences : how many; None: until two are alike
    """
    parts, mark = _parts(planned, encoded)
    walk = _Walk(geometry, source, len(encoded.words), mark)
    found = list[list[int]]()
    for index in range(inferences or _SETTLED):
        found.append(walk.inference(parts, first=index == 0))
        if inferences is None and index > 1 and found[-1] == found[-2]:
            break
    return found


class _Walk:
    """Cycles of the reads and the issues of words, one inference after the other.

    ``waited`` are the cycles in which words were missing so far. Others, such as those of the last
    word of a group, do not count them.
    """

    def __init__(self, geometry: Geometry, source: Source, words: int, mark: int) -> None:
        self._geometry = geometry
        self._supply = Supply(geometry, source, words, mark)
        self._patience = (words + geometry.ring) * geometry.word_bytes
        self._patience = 2 * self._patience * source.interval + 4 * source.latency + 1000
        self._mark, self._base = mark, 0
        self._read_cycles = ring.read_cycles(self._geometry)
        self._read = -1  # cycle of the last read
        self._recent = deque([_LONG_AGO] * ring.FETCH_WORDS, ring.FETCH_WORDS)  # issues
        self._dropped = list[int]()  # reads in vain count until these cycles
        self._next = 0  # cycle of the next issue, without waits
        self._known = 0  # cycle from which on a word of a last pass is known to be one
        self.waited = 0
        self._group = self._layer = _LONG_AGO
        self._filters = False

    def inference(self, parts: list[_Part], *, first: bool) -> list[int]:
        """Waits by layer; all but the first begin at the mark, and with an input that is there."""
        found, begun = list[int](), self.waited
        for part in parts:
            skipped = 0 if first else max(0, self._mark - part.at)
            if part.inputs:
                self._configure(part, skipped)
                self._next += spec.setup_cycles(self._geometry.p) - 1
                self._next += spec.load_tail(self._geometry.p)
                if first or not part.ahead:
                    self._next += self._geometry.p + part.inputs
                if first and part is parts[0]:
                    self._next += self._patience
                begun = self.waited
            else:
                self._configure(part, skipped)
                self._rows(part)
                found.append(self.waited - begun)
                begun = self.waited
        self._base += self._supply.step()
        return found

    def _fetch(self, slot: int, *, again: bool = False, ahead: int = 0) -> int:
        """Read a word; returns the cycle.

        Parameters
        ----------
        slot : of the word
        again : it has been read before
        ahead : words before it whose issue is not known yet
        """
        read = max(self._read + 1, self._recent[ahead] + 2)
        if not again:
            there = self._supply.when(slot)
            assert there is not None, "the compiler refuses rows that the ring cannot hold"
            read = max(read, there)
        while self._dropped and self._on_the_way(read) + ahead >= ring.FETCH_WORDS:
            read += 1
        self._read = read
        return read

    def _on_the_way(self, now: int) -> int:
        """Reads that have not come to their issue, and those in vain."""
        issued = sum(each + 2 > now for each in self._recent)
        return issued + sum(each > now for each in self._dropped)

    def _issue(self, there: int, due: int = _LONG_AGO) -> int:
        """Issue a word.

        Parameters
        ----------
        there : cycle from which on it may issue
        due : the cycle in which it does, without waits

        Returns
        -------
        cycle of the issue
        """
        self.waited += max(0, there - self._next - self.waited)
        now = max(self._next, due)
        self._next = now + 1
        self._recent.append(now + self.waited)
        return now + self.waited

    def _configure(self, part: _Part, skipped: int) -> None:
        """Configuration words, and what a START waits for."""
        p, entries = self._geometry.p, spec.tail_cycles(self._geometry.p, self._filters)
        fetch, slot = ring.fetch_cycles(self._geometry), 0
        for index, common in enumerate(part.common[skipped:]):
            slot = self._base + part.at + skipped + index
            read = self._fetch(slot)
            self._supply.release(slot + 1, read + ring.free_cycles(self._geometry))
            if common == spec.INDEX_TABLE:
                self._issue(read + fetch, self._layer + entries)
                self._next += spec.table_cycles(self._geometry.n)
            else:
                self._issue(read + fetch)
        if part.inputs:
            return
        self._next += spec.setup_cycles(p)
        if part.clear:
            self._next = max(self._next, self._layer + entries) + part.clear
        self._next = max(self._next, self._layer + spec.landing_cycles(p, self._filters))
        if part.side > 1:
            self._jump(slot + 1)

    def _jump(self, slot: int) -> None:
        """Behind the START of filter lanes: words are read in vain until that is known."""
        until = self._read + self._read_cycles + 3
        self._dropped = []
        for now in range(self._read + 1, until + 1):
            there = self._supply.when(slot)
            if there is None or there > now or self._on_the_way(now) >= ring.FETCH_WORDS:
                continue
            self._dropped.append(max(until, now + self._read_cycles) + 2)
            slot += 1
        self._read = until

    def _rows(self, part: _Part) -> None:
        fetch, p = ring.fetch_cycles(self._geometry), self._geometry.p
        self._group = _LONG_AGO
        slot = self._base + part.rows
        for count in part.counts:
            # A row's first header word issues when the second is there.
            heads = [self._fetch(slot + i * part.side, ahead=i) for i in range(2)]
            self._known = heads[1] + self._read_cycles + 3
            self._issue(max(heads[0] + fetch, heads[1] + fetch - 1))
            self._issue(heads[1] + fetch)
            slot += 2 * part.side
            self._groups(part, slot, count)
            slot += count * part.side
        self._layer, self._filters = self._next - 1, part.side > 1
        cycles = spec.tail_cycles if part.ends else spec.front_cycles
        self._next = self._layer + cycles(p, self._filters)
        if part.side > 1:
            held = self._layer + self.waited + ring.side_held_cycles(self._geometry)
            self._read = max(self._read, held - 1)

    def _groups(self, part: _Part, slot: int, count: int) -> None:
        """All groups of a row. Once two are alike, so are all but the last."""
        group, before = 0, None
        while group < part.groups:
            for number in range(part.passes):
                final = group == part.groups - 1 and number == part.passes - 1
                self._pass(
                    part,
                    slot,
                    count,
                    again=group + number > 0,
                    final=final,
                    ends=number == part.passes - 1,
                )
            group += 1
            now = self._next
            state = [each - now - self.waited for each in self._recent]
            state += [self._read - now - self.waited, self._group - now, self.waited]
            if before is not None and state == before[1] and group < part.groups - 1:
                more = part.groups - 1 - group
                self._shift(more * (now - before[0]))
                group += more
            before = now, state

    def _shift(self, cycles: int) -> None:
        """Groups that are like the one before."""
        self._next, self._group = self._next + cycles, self._group + cycles
        self._read, self._known = self._read + cycles, self._known + cycles
        self._recent = deque((each + cycles for each in self._recent), ring.FETCH_WORDS)

    def _pass(
        self, part: _Part, slot: int, count: int, *, again: bool, final: bool, ends: bool
    ) -> None:
        fetch, geometry = ring.fetch_cycles(self._geometry), self._geometry
        for place in range(count):
            read = self._fetch(slot + place * part.side, again=again)
            behind = slot + (place + 1) * part.side
            done = final and read >= self._known
            if done and part.side == 1:
                self._supply.release(behind, read + ring.free_cycles(geometry))
            last = ends and place == count - 1
            now = self._issue(read + fetch, self._group + part.lanes if last else _LONG_AGO)
            if last:
                self._group = self._next - 1
            if done and part.side > 1:
                self._supply.release(behind, now + ring.side_free_cycles(geometry))
        self._known = self._read + 3

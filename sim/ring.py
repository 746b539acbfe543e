"""How long an engine with a ring waits for its source: a naive model, cycle by cycle.

Written from ``ring.md`` and ``hw/spec.py`` alone: a source, a ring, a walk that reads it, and an
issue stage, each a few lines, and all of them stepped in every cycle. It knows nothing of values.
"""

from __future__ import annotations

import itertools
from collections import deque

from secateur.hw import ring, spec
from secateur.hw.ring import Source
from secateur.hw.spec import Reg
from secateur.sim.program import Load, Program
from secateur.sim.ring_words import ROW, Kind, Word, inference, loop_mark

_NEVER = 1 << 60


class _Ring:
    """The source and the ring: which groups of S words are complete, and which are free."""

    def __init__(self, program: Program, source: Source) -> None:
        geometry = program.geometry
        self.geometry, self.source, self.size = geometry, source, geometry.word_bytes
        self.s, self.groups = geometry.s, geometry.ring // geometry.s
        self.words, self.mark = len(program.words), loop_mark(program)
        self.slots = 0  # from the number of a word in this pass to its slot
        self.begin = geometry.header_words
        self.at = self.lane = 0
        self.ready = source.latency  # when the next byte is
        self.rests = 0  # no byte is taken before
        self.complete: deque[tuple[int, int]] = deque([(0, 0)])  # from a cycle on, so many groups
        self.free: deque[tuple[int, int]] = deque([(0, self.begin // self.s)])

    @staticmethod
    def _now(events: deque[tuple[int, int]], now: int) -> int:
        while len(events) > 1 and events[1][0] <= now:
            events.popleft()
        return events[0][1]

    def has(self, slot: int, now: int) -> bool:
        """Whether a word may be read for the first time."""
        return slot // self.s < self._now(self.complete, now)

    def release(self, slot: int, now: int) -> None:
        """All words before a slot may be overwritten from a cycle on."""
        self.free.append((now, max(slot // self.s, self.free[-1][1])))

    def step(self, now: int) -> bool:
        """A cycle; whether a byte was taken."""
        if now < self.ready or now < self.rests:
            return False
        ends, kept, slot = self.lane == self.size - 1, self.at >= self.begin, self.slots + self.at
        if ends and kept and slot // self.s - self._now(self.free, now) == self.groups:
            return False
        self.ready = max(self.ready + self.source.interval, now + 1)
        self.lane = 0 if ends else self.lane + 1
        if ends:
            last = self.at == self.words - 1
            if kept and (last or slot % self.s == self.s - 1):
                self.complete.append((now + ring.FILL_CYCLES, slot // self.s + 1))
            self.at += 1
            if last:
                self.slots += next_slots(self.words, self.mark, self.s)
                self.at, self.begin = 0, self.mark
                self.rests = now + ring.PASS_CYCLES + 1
                self.ready += self.source.latency
        return True


def next_slots(words: int, mark: int, s: int) -> int:
    """By how much the slots of a pass are behind those of the one before.

    Parameters
    ----------
    words : of the image
    mark : first word of the pass
    s : slots of a group
    """
    return ((words - 1) // s + 1 - mark // s) * s


class _Walk:
    """Reads the words of one inference after the other, up to FETCH_WORDS ahead of their issue."""

    def __init__(self, program: Program, words: _Ring) -> None:
        self.program, self.ring = program, words
        self.read = ring.read_cycles(program.geometry)
        self.slots, self.first = 0, True
        self.ahead = inference(program, True)
        self.next = next(self.ahead)
        self.queue: deque[Word] = deque()
        self.returns: list[int] = []  # cycles from which on a read no longer counts
        self.out = 0  # reads that count
        self.known = 0  # from this cycle on, words of a last pass are known to be
        self.body = 0  # slot of the first word of the row that is not free
        self.jump: int | None = None  # a jump to the rows of filter lanes is on its way
        self.spec = 0  # slot that is read until then
        self.held = 0  # until the lanes of a layer have their words

    def step(self, now: int) -> bool:
        """A cycle; whether a word was read."""
        self.out -= sum(each <= now for each in self.returns)
        self.returns = [each for each in self.returns if each > now]
        if now < self.held or self.out == ring.FETCH_WORDS:
            return False
        if self.jump is not None and now <= self.jump:
            if not self.ring.has(self.spec, now):
                return False
            self.out += 1
            self.returns.append(max(self.jump, now + self.read) + 2)
            self.spec += 1
            return True
        self.jump = None
        word = self.next
        slot = self.slots + word.at
        if not word.again and not self.ring.has(slot, now):
            return False
        word.read = now
        self.out += 1
        self.queue.append(word)
        self._pass(word, slot, now)
        following = next(self.ahead, None)
        if following is None:
            begin = self.program.words
            self.slots += next_slots(len(begin), self.ring.mark, self.ring.s)
            self.ahead = inference(self.program, False)
            following = next(self.ahead)
        self.next = following
        return True

    def _pass(self, word: Word, slot: int, now: int) -> None:
        """What the read of a word changes."""
        behind = now + ring.free_cycles(self.program.geometry)
        if word.kind not in ROW:
            self.ring.release(slot + 1, behind)
            if word.kind == Kind.START and word.of is not None and word.of.side > 1:
                self.jump, self.spec = now + self.read + 3, slot + 1
        elif word.kind == Kind.SECOND:
            self.known = now + self.read + 3
        elif word.kind == Kind.BODY:
            word.done = word.last_pass and now >= self.known
            if word.done and word.side == 1:
                self.ring.release(slot + 1, behind)
            if word.pass_ends:
                self.known = now + 3
            if word.layer_ends and word.side > 1:
                self.held = _NEVER
        word.slot = slot

    def issued(self, now: int) -> Word:
        """The next word issues: its read no longer counts, and lanes of filters read theirs."""
        word, geometry = self.queue.popleft(), self.program.geometry
        self.returns.append(now + 2)
        if word.done and word.side > 1:
            self.ring.release(word.slot + word.side, now + ring.side_free_cycles(geometry))
        if word.layer_ends and word.side > 1:
            self.held = now + ring.side_held_cycles(geometry)
        return word


class _Issue:
    """The issue stage, in cycles of an engine whose words are all on chip: ``now``."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.next = 0  # cycle of the next issue at the earliest
        self.group = self.layer = -_NEVER  # of the last words of the group and layer before
        self.filters = False  # whether the lanes of the layer before were filters
        self.input_cycles = 0  # from the first input word of a LOAD to the word behind it
        self.opens = any(layer.opens for layer in program.layers)
        self.ahead = False  # the input has come when its LOAD issues
        load = next(step for step in program.later if isinstance(step, Load))
        begins = program.cycles + load.due + spec.setup_cycles(program.geometry.p) - 1
        self.late = program.interval - begins if self.opens else 0

    def due(self, word: Word) -> int:
        """The cycle in which a word that is there issues at the earliest."""
        if word.group_ends and word.of is not None:
            return self.group + word.of.reg[Reg.LANES]
        if word.kind == Kind.ENTRIES:
            return self.layer + spec.tail_cycles(self.program.geometry.p, self.filters)
        return -_NEVER

    def issue(self, word: Word, now: int) -> None:
        """A word issues."""
        geometry, before = self.program.geometry, self.layer
        p = geometry.p
        self.next = now + 1
        if word.kind == Kind.ENTRIES:
            self.next += spec.table_cycles(geometry.n)
        elif word.kind == Kind.LOAD:
            self.next += spec.setup_cycles(p)
            self.next += 0 if self.ahead else p  # the window offsets; then words are taken
        elif word.kind == Kind.START and word.of is not None:
            reg, self.group = word.of.reg, -_NEVER
            self.next += spec.setup_cycles(p)
            if word.of.flag(spec.FLAG_CLEAR) and reg[Reg.OUT_S]:
                drained = before + spec.tail_cycles(p, self.filters)
                self.next = max(self.next, drained) + spec.clear_cycles(reg[Reg.OUT_S])
            self.next = max(self.next, before + spec.landing_cycles(p, self.filters))
        if word.group_ends:
            self.group = now
        if word.layer_ends and word.of is not None:
            self.layer, self.filters = now, word.of.side > 1
            cycles = spec.tail_cycles if word.of.ends else spec.front_cycles
            self.next = now + cycles(p, self.filters)

    def take(self, word: Word, rests: bool) -> None:
        """The input words of a LOAD; with ``rests`` it is not known yet when they come."""
        words = 0 if self.ahead else word.reg[Reg.GX]
        self.input_cycles = words - 1 + spec.load_tail(self.program.geometry.p)
        self.ahead = self.opens
        if not rests:
            self.next += self.input_cycles


def waits(program: Program, source: Source, inferences: int = 2) -> list[list[int]]:
    """Cycles in which inferences wait for words, by layer: (inferences, layers).

    The first input comes when the ring is full. Every further one comes as soon as it is taken, and
    all results are taken at once. The sum over the layers is ``status.memory_wait``.

    Parameters
    ----------
    program : of ``parse``, for a geometry with a ring
    source : that fills it
    inferences : how many

    Raises
    ------
    ValueError : words are taken ahead, and some may come with the LOAD: how many depends on waits
    """
    issue = _Issue(program)
    if issue.late:
        raise ValueError(f"{issue.late} words of an input taken ahead come with its LOAD")
    words = _Ring(program, source)
    walk = _Walk(program, words)
    fetch, found, counts = ring.fetch_cycles(program.geometry), list[list[int]](), False
    patience = source.interval + source.latency + 4 * ring.PASS_CYCLES + ring.FETCH_WORDS
    quiet = starved = 0
    rests = False  # the host waits until the ring is full
    for cycle in itertools.count():
        moved = words.step(cycle)
        moved |= walk.step(cycle)
        quiet, now = 0 if moved else quiet + 1, cycle - starved
        if rests and quiet > patience:
            issue.next, rests = now + issue.input_cycles, False
        if rests or now < issue.next:
            continue
        queue = walk.queue
        there = bool(queue) and queue[0].read + fetch <= cycle
        if there and queue[0].kind == Kind.FIRST:
            there = len(queue) > 1 and queue[1].read + fetch - 1 <= cycle
        if not there:
            starved += 1
            if counts:
                found[-1][(queue[0] if queue else walk.next).layer] += 1
        elif now >= issue.due(queue[0]):
            word = walk.issued(cycle)
            issue.issue(word, now)
            if word.kind == Kind.LOAD:
                rests = not found
                if counts:
                    found.pop()
                found.append([0] * len(program.layers))
                counts = True
                issue.take(word, rests)
            elif word.layer_ends and word.of is not None and word.of.ends:
                counts = False
                if len(found) == inferences:
                    break
    return found

"""Exact cycles of layers: the issue stage of ``stream.md`` in closed form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from secateur.hw import spec
from secateur.hw.ahead import clears_open, opening_cycles

_HEADER = 2  # cycles of a row's header


@dataclass(frozen=True)
class Parts:
    """Cycles of a layer, from the word behind the last one of the layer before to its own.

    Attributes
    ----------
    tables : filling a table of a function
    setup : configuration words, and until the layer before has landed
    clear : filling the output window
    headers : the two words of each row's header
    body : words of bodies, a word to all lanes per cycle
    wait : the next word waits until a group of pixels has drained
    tail : from the last word until all has drained, of the last layer
    """

    tables: int
    setup: int
    clear: int
    headers: int
    body: int
    wait: int
    tail: int

    @property
    def cycles(self) -> int:
        """All of them."""
        return int(sum(astuple(self)))


def rows_cycles(counts: Iterable[int], groups: int, passes: int, lanes: int) -> int:
    """Cycles from the first header word's issue to the last body word's, plus one.

    A group takes a cycle per word, and at least a cycle per drained pixel; the two header words
    of a row hide behind the drain of the row before.

    Parameters
    ----------
    counts : words of each row's body
    groups : groups of pixels of a row
    passes : passes over the body per group
    lanes : pixels drained per group
    """
    time, last = 0, -lanes
    for count in counts:
        body = count * passes
        last = max(time + 1 + body, last + lanes) + (groups - 1) * max(body, lanes)
        time = last + 1
    return time


class Clock:
    """Cycles of an inference, layer after layer, as the issue stage takes them.

    Parameters
    ----------
    p : lanes of the array

    Attributes
    ----------
    now : cycle of the next word, from the last input word on
    """

    def __init__(self, p: int) -> None:
        self.p, self.now = p, spec.load_tail(p)
        self._done = self.now  # the cycle behind the last word of the layer before
        self._before: int | None = None  # that of this word, if there is a layer before
        self._filters = False  # whether its lanes were filters
        self._opened: int | None = None  # from this cycle on, words of the next input are taken,
        self._taken = 0  # but for so many cycles, in which pixels or clears are written

    def _wait(self, cycles: int) -> None:
        """Until so many cycles behind the last word of the layer before."""
        if self._before is not None:
            self.now = max(self.now, self._before + cycles)

    def fill(self, words: int, entries: int, n: int) -> int:
        """Words before a layer, the last of which hold entries; returns the cycles that they take.

        Parameters
        ----------
        words : words in all
        entries : those that hold entries, N each
        n : channels of a word
        """
        begun = self.now
        self.now += words - entries
        self._wait(spec.tail_cycles(self.p, self._filters))
        self.now += entries * (1 + spec.table_cycles(n))
        return self.now - begun

    def layer(
        self,
        *,
        configuration: int,
        filling: int,
        clear: int,
        counts: Sequence[int],
        groups: int,
        passes: int,
        lanes: int,
        filters: bool,
        last: bool,
        opens: bool = False,
    ) -> Parts:
        """Cycles of a layer, from the word behind the last one of the layer before to its own.

        Parameters
        ----------
        configuration : configuration words
        filling : cycles in which a table is filled before
        clear : words of the output window if it is cleared, else 0
        counts, groups, passes, lanes : as of `rows_cycles`
        filters : whether the lanes are filters
        last : the inference ends with it, when the drain is idle
        opens : from this layer on, words of the next input are taken
        """
        self.now += configuration + spec.setup_cycles(self.p)
        clearing = 0
        if clear:
            self._wait(spec.tail_cycles(self.p, self._filters))
            clearing = spec.clear_cycles(clear)
            self.now += clearing
        self._wait(spec.landing_cycles(self.p, self._filters))
        setup = self.now - self._done - filling - clearing
        if opens:
            self._opened, self._taken = self.now + opening_cycles(self.p, clear), 0
        self._taken += clears_open(clear) if opens else clear
        self._taken += len(counts) * groups * lanes
        rows = rows_cycles(counts, groups, passes, lanes)
        headers, body = _HEADER * len(counts), sum(counts) * groups * passes
        self._done = self.now + rows
        self._before, self._filters = self._done - 1, filters
        cycles = spec.tail_cycles if last else spec.front_cycles
        self.now = self._before + cycles(self.p, filters)
        return Parts(
            tables=filling,
            setup=setup,
            clear=clearing,
            headers=headers,
            body=body,
            wait=rows - headers - body,
            tail=self.now - self._done if last else 0,
        )

    def alone(self, loads: list[tuple[int, int]]) -> int:
        """Cycles from one inference to the next if no word is taken ahead.

        Parameters
        ----------
        loads : configuration words and input words of each LOAD
        """
        each = spec.setup_cycles(self.p) + self.p - 1
        tails = (len(loads) - 1) * spec.load_tail(self.p)
        return self.now + tails + sum(words + each + inputs for words, inputs in loads)

    def ahead(self, words: int, inputs: int) -> tuple[int, int]:
        """Cycles from one inference to the next, and words that have not come before its LOAD.

        Parameters
        ----------
        words, inputs : configuration words and input words of the only LOAD
        """
        assert self._opened is not None, "a layer opens"
        free = self.now + words - self._opened - self._taken
        late = max(0, inputs - free)
        return self.now + words + spec.setup_cycles(self.p) - 1 + late, late

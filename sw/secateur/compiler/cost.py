"""Exact cycles of layers: the issue stage of ``stream.md`` in closed form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from secateur.hw import spec

_HEADER = 2  # cycles of a row's header


@dataclass(frozen=True)
class Parts:
    """Cycles of a layer, from its first configuration word to that of the next layer.

    Attributes
    ----------
    tables : filling a table of a function
    setup : configuration words, and until the first row header can be issued
    clear : filling the output window
    headers : the two words of each row's header
    body : words of bodies, a word to all lanes per cycle
    wait : the next word waits until a group of pixels has drained
    tail : from the last word of a body until the layer has drained
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


def layer_parts(
    *,
    configuration: int,
    filling: int,
    clear: int,
    counts: Sequence[int],
    groups: int,
    passes: int,
    lanes: int,
    filters: bool,
    p: int,
) -> Parts:
    """Cycles from a layer's first configuration word to that of the next layer.

    Parameters
    ----------
    configuration : configuration words
    filling : cycles in which a table is filled before
    clear : words of the output window if it is cleared, else 0
    counts, groups, passes, lanes : as of `rows_cycles`
    filters : whether the lanes are filters
    p : lanes of the array
    """
    rows = rows_cycles(counts, groups, passes, lanes)
    headers, body = _HEADER * len(counts), sum(counts) * groups * passes
    return Parts(
        tables=filling,
        setup=configuration + spec.setup_cycles(p),
        clear=spec.clear_cycles(clear) if clear else 0,
        headers=headers,
        body=body,
        wait=rows - headers - body,
        # The first cycle of the tail is that of the last word.
        tail=spec.tail_cycles(p) + (spec.filter_cycles(p) if filters else 0) - 1,
    )

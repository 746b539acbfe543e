"""Exact cycles of layers: the issue stage of ``stream.md`` in closed form."""

from __future__ import annotations

from collections.abc import Iterable

from secateur.hw import spec


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


def layer_cycles(*, configuration: int, rows: int, clear: int, filters: bool, p: int) -> int:
    """Cycles from a layer's first configuration word to that of the next layer.

    Parameters
    ----------
    configuration : configuration words
    rows : ``rows_cycles`` of the layer
    clear : words of the output window if it is cleared, else 0
    filters : whether the lanes are filters
    p : lanes of the array
    """
    clearing = spec.clear_cycles(clear) if clear else 0
    tail = spec.tail_cycles(p) + (spec.filter_cycles(p) if filters else 0)
    return configuration + spec.setup_cycles(p) + clearing + rows - 1 + tail

"""Which activation table is where: a network may have more of them than the array.

An array has a few *slots* for tables. What finds none is filled in between layers, as a register is
that has to be spilled. An inference runs again and again, so what one finds in a slot, it must
leave there for the next.

References
----------
L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", 1966.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Slots:
    """Slots of the tables that some layers use, one after the other.

    Attributes
    ----------
    start : table of each slot when an inference begins; the last slots may have none yet
    slot : of the table of each use
    fills : whether the slot is filled before that use
    """

    start: tuple[int | None, ...]
    slot: tuple[int, ...]
    fills: tuple[bool, ...]


def assign(uses: Sequence[int], slots: int) -> Slots:
    """Few fills: what makes room is what is not needed for longest.

    Fills depend on what the first inference begins with. It is that of these which needs the
    fewest: the tables that are used first, last, or most often.

    Parameters
    ----------
    uses : numbers of the tables that an inference looks up, in this order
    slots : how many tables there is room for, at least 1
    """
    by_first = list(dict.fromkeys(uses))
    by_last = list(dict.fromkeys(reversed(uses)))
    by_count = sorted(by_first, key=uses.count, reverse=True)
    found = [_settle(uses, order[:slots]) for order in (by_first, by_last, by_count)]
    return min(found, key=lambda each: sum(each.fills))


def _settle(uses: Sequence[int], tables: list[int]) -> Slots:
    """As ``assign``, from these tables on. A slot that ends with another one begins with none."""
    start: list[int | None] = list(tables)
    while True:
        end, slot, fills = _walk(uses, start)
        kept = [one if one == other else None for one, other in zip(start, end, strict=True)]
        if kept == start:
            break
        start = kept
    order = sorted(range(len(start)), key=lambda each: start[each] is None)
    place = {each: index for index, each in enumerate(order)}
    return Slots(tuple(start[each] for each in order), tuple(place[s] for s in slot), tuple(fills))


def _walk(
    uses: Sequence[int], start: list[int | None]
) -> tuple[list[int | None], list[int], list[bool]]:
    """One inference: what the slots hold behind it, the slot of every use, and the fills."""
    held, where, fills = list(start), list[int](), list[bool]()

    def wait(slot: int, at: int) -> float:
        """Uses until a slot is needed again: by this inference or, with what it began, the next."""
        table = held[slot]
        ahead = [*uses[at + 1 :], *(uses if table == start[slot] else ())]
        return math.inf if table is None or table not in ahead else ahead.index(table)

    for at, table in enumerate(uses):
        fills.append(table not in held)
        if fills[-1]:
            victim = max(range(len(held)), key=lambda slot: wait(slot, at))
            held[victim] = table
        where.append(held.index(table))
    return held, where, fills

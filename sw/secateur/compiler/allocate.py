"""Allocation of bank memory: no overlap while both are alive, and little to clear."""

from __future__ import annotations

import random
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import combinations

from secateur.ir import Tensor

#: Orders that are tried, and how many pairs of windows may be compared for it, roughly.
_TRIES, _STEPS = 100, 4_000_000


@dataclass(frozen=True)
class Request:
    """A window of bank memory for a tensor.

    Attributes
    ----------
    tensor, words : the tensor, and words of its window
    begin, end : first and last step at which it is alive
    clearing : cycles of filling the window, if another tensor's data must be removed from its
        padding; 0 without padding
    shape : tensors of the same shape at the same base write the same words, and do not touch each
        other's padding
    """

    tensor: Tensor
    words: int
    begin: int
    end: int
    clearing: int = 0
    shape: Hashable = None

    def meets(self, other: Request) -> bool:
        """Whether both are alive at some step."""
        return self.begin <= other.end and other.begin <= self.end


Bases = dict[Tensor, int]


def _spoils(a: Request, base_a: int, b: Request, base_b: int) -> bool:
    """Whether two windows overlap and do not write the same words."""
    overlap = base_a < base_b + b.words and base_b < base_a + a.words
    return overlap and (base_a, a.words, a.shape) != (base_b, b.words, b.shape)


def _spoilt(request: Request, base: int, others: list[Request], bases: Bases) -> list[Request]:
    """Those that spoil a window at a base, or that it spoils."""
    return [other for other in others if _spoils(request, base, other, bases[other.tensor])]


def _added(
    request: Request, base: int, placed: list[Request], clean: list[Request], bases: Bases
) -> int:
    """Cycles of clearing that a window adds at a base: its own, and those of clean others."""
    own = request.clearing if request.clearing and _spoilt(request, base, placed, bases) else 0
    return own + sum(other.clearing for other in _spoilt(request, base, clean, bases))


def dirtied(requests: list[Request], bases: Bases) -> set[Tensor]:
    """Tensors in whose window another tensor writes other words than they do."""
    dirty = set()
    for a, b in combinations(requests, 2):
        if _spoils(a, bases[a.tensor], b, bases[b.tensor]):
            dirty |= {a.tensor, b.tensor}
    return dirty


def _pack(ordered: list[Request], depth: int | None) -> tuple[Bases, int] | None:
    """Place windows one by one, with least clearing, then lowest; bases and cycles of clearing."""
    bases: Bases = {}
    placed: list[Request] = []
    clean: list[Request] = []  # placed windows that need no clearing so far, but may
    total = 0
    for request in ordered:
        spans = [(bases[other.tensor], bases[other.tensor] + other.words) for other in placed]
        alive = [span for span, o in zip(spans, placed, strict=True) if request.meets(o)]
        candidates = {0} | {base for base, _ in spans} | {end for _, end in spans}
        candidates |= {base - request.words for base, _ in spans}
        free = [
            base
            for base in sorted(candidates)
            if base >= 0
            and (depth is None or base + request.words <= depth)
            and all(base + request.words <= begin or end <= base for begin, end in alive)
        ]
        if not free:
            return None

        costs = [(_added(request, base, placed, clean, bases), base) for base in free]
        cost, base = min(costs)
        clean = [other for other in clean if not _spoils(request, base, other, bases[other.tensor])]
        if request.clearing and not _spoilt(request, base, placed, bases):
            clean.append(request)
        bases[request.tensor], total = base, total + cost
        placed.append(request)
    return bases, total


def allocate(requests: list[Request], depth: int) -> tuple[Bases | None, int]:
    """Bases such that no two windows that are alive together overlap.

    Tries the largest first, the earliest first, and then seeded random orders until nothing needs
    clearing; keeps the allocation with the fewest cycles of clearing.

    Returns
    -------
    bases, words : the base of each tensor, or None if ``depth`` words are too few; and the words
        that the allocation takes, or would take
    """
    by_size = sorted(requests, key=lambda request: (-request.words, request.begin))
    order = sorted(requests, key=lambda request: (request.begin, -request.words))
    shuffle = random.Random(0).shuffle
    best = _pack(by_size, depth)
    for _ in range(min(_TRIES, _STEPS // max(len(requests), 1) ** 2)):
        if best is not None and best[1] == 0:
            break
        found = _pack(order, depth)
        if found is not None and (best is None or found[1] < best[1]):
            best = found
        shuffle(order)
    needed = best if best is not None else _pack(by_size, None)
    assert needed is not None  # without a limit everything fits
    top = max((needed[0][r.tensor] + r.words for r in requests), default=0)
    return None if best is None else best[0], top

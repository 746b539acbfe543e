"""Bank memory: windows that never meet alive, and as little to clear as can be found."""

from __future__ import annotations

import random
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import combinations

from secateur.ir import Tensor

_TRIES = 100


@dataclass(frozen=True)
class Request:
    """A window of ``words`` words for ``tensor``, alive from step ``begin`` to ``end``, both in.

    ``clearing``: cycles of filling the window if what another tensor has left must be removed
    from its padding; 0 if there is none. Tensors of the same ``shape`` at the same base write
    the same words and leave each other's padding alone.
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


def dirtied(requests: list[Request], bases: Bases) -> set[Tensor]:
    """Tensors in whose window another tensor writes other words than they do."""
    dirty = set()
    for a, b in combinations(requests, 2):
        base_a, base_b = bases[a.tensor], bases[b.tensor]
        overlap = base_a < base_b + b.words and base_b < base_a + a.words
        if overlap and (base_a, a.words, a.shape) != (base_b, b.words, b.shape):
            dirty |= {a.tensor, b.tensor}
    return dirty


def _clearing(requests: list[Request], bases: Bases) -> int:
    dirty = dirtied(requests, bases)
    return sum(request.clearing for request in requests if request.tensor in dirty)


def _pack(ordered: list[Request], depth: int | None) -> Bases | None:
    """Place one after another where it adds least to clear, then lowest."""
    bases: Bases = {}
    placed: list[Request] = []
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
        placed.append(request)
        costed = [(_clearing(placed, bases | {request.tensor: base}), base) for base in free]
        bases[request.tensor] = min(costed)[1]
    return bases


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
    best, least = _pack(by_size, depth), 0
    if best is not None:
        least = _clearing(requests, best)
    for _ in range(_TRIES):
        if best is not None and least == 0:
            break
        bases = _pack(order, depth)
        if bases is not None and (best is None or _clearing(requests, bases) < least):
            best, least = bases, _clearing(requests, bases)
        shuffle(order)
    needed = best if best is not None else _pack(by_size, None)
    assert needed is not None  # without a limit everything fits
    return best, max((needed[r.tensor] + r.words for r in requests), default=0)

"""Bank memory: first fit over lifetimes, apart from each other where there is room."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.ir import Tensor


@dataclass(frozen=True)
class Request:
    """A window of ``words`` words for ``tensor``, alive from step ``begin`` to ``end``, both in."""

    tensor: Tensor
    words: int
    begin: int
    end: int

    def meets(self, other: Request) -> bool:
        """Whether both are alive at some step."""
        return self.begin <= other.end and other.begin <= self.end


def _fit(words: int, taken: list[tuple[int, int]], depth: int | None) -> int | None:
    """Lowest base of ``words`` free words."""
    base = 0
    for begin, end in sorted(taken):
        if base + words <= begin:
            break
        base = max(base, end)
    return base if depth is None or base + words <= depth else None


def _pack(ordered: list[Request], depth: int | None, apart: bool) -> dict[Tensor, int] | None:
    bases: dict[Tensor, int] = {}
    placed: list[Request] = []
    for request in ordered:
        spans = [(bases[other.tensor], bases[other.tensor] + other.words) for other in placed]
        alive = [span for span, o in zip(spans, placed, strict=True) if request.meets(o)]
        base = _fit(request.words, spans, depth) if apart else None
        if base is None:
            base = _fit(request.words, alive, depth)
        if base is None:
            return None
        bases[request.tensor] = base
        placed.append(request)
    return bases


def allocate(requests: list[Request], depth: int) -> tuple[dict[Tensor, int] | None, int]:
    """Bases such that no two windows that are alive together overlap.

    The largest go first. A window that can lie apart from all others does: then its padding
    stays clean and need not be cleared.

    Returns
    -------
    bases, words : the base of each tensor, or None if ``depth`` words are too few; and the words
        that the allocation takes, or would take
    """
    by_size = sorted(requests, key=lambda request: (-request.words, request.begin))
    by_time = sorted(requests, key=lambda request: (request.begin, -request.words))
    tries = [(by_size, True), (by_size, False), (by_time, False)]
    packed = (_pack(ordered, depth, apart) for ordered, apart in tries)
    bases = next((found for found in packed if found is not None), None)
    needed = bases if bases is not None else _pack(by_size, None, False)
    assert needed is not None  # without a limit everything fits
    return bases, max((needed[r.tensor] + r.words for r in requests), default=0)

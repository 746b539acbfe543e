"""Allocation of bank memory: no overlap while both are alive, and little to clear."""

from __future__ import annotations

import random
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from secateur.ir import Ints, Tensor

#: Orders that are tried, and how many pairs of windows may be compared for it, roughly.
_TRIES, _STEPS = 100, 4_000_000


@dataclass(frozen=True)
class Request:
    """A window of bank memory for a tensor. One that is alive twice has two, at the same base.

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


def dirtied(requests: list[Request], bases: Bases) -> set[Tensor]:
    """Tensors in whose window another tensor writes other words than they do."""
    dirty = set()
    for a, b in combinations(requests, 2):
        if _spoils(a, bases[a.tensor], b, bases[b.tensor]):
            dirty |= {a.tensor, b.tensor}
    return dirty


def alive(requests: list[Request]) -> Ints:
    """(steps, requests) words that each window takes at each step."""
    steps = np.arange(max((r.end for r in requests), default=0) + 1)[:, None]
    begin, end = (np.array([getattr(r, at) for r in requests]) for at in ("begin", "end"))
    words = np.array([r.words for r in requests], np.int64)
    return np.where((begin <= steps) & (steps <= end), words, 0)


def _unavoidable(requests: list[Request], depth: int) -> int:
    """Cycles of clearing that every allocation has: a window that needs none shares no word with
    others, at any time, but with those that write the same words.
    """
    taken, total = alive(requests), 0
    for request in (r for r in requests if r.clearing):
        others = [(r.words, r.shape) != (request.words, request.shape) for r in requests]
        most = int(taken[:, others].sum(axis=1).max())
        total += request.clearing if most + request.words > depth else 0
    return total


class _Placed:
    """Windows with bases, as columns of numbers: one is compared with all others at once."""

    def __init__(self, requests: list[Request]) -> None:
        size = len(requests)
        self.requests, self.count = requests, 0
        self.low, self.high, self.clearing = (np.zeros(size, np.int64) for _ in range(3))
        self.first, self.last, self.shape = (np.zeros(size, np.int64) for _ in range(3))
        self.clean = np.zeros(size, bool)  # needs no clearing so far, but may
        numbers: dict[Hashable, int] = {}
        self.kinds = [numbers.setdefault((r.words, r.shape), len(numbers)) for r in requests]

    def _rows(self, request: Request) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
        """Begins and ends of all windows so far, and whether they are alive with the request."""
        now = slice(self.count)
        meets = (self.first[now] <= request.end) & (request.begin <= self.last[now])
        return self.low[now], self.high[now], meets

    def best(
        self, request: Request, kind: int, depth: int | None, base: int | None = None
    ) -> tuple[int, int] | None:
        """Cycles of clearing that a window adds at its best base, and that base; or at ``base``."""
        low, high, meets = self._rows(request)
        bases = np.unique(np.concatenate([[0], low, high, low - request.words]))
        if base is not None:
            bases = np.array([base])
        limit = bases[-1] if depth is None else depth - request.words
        bases = bases[(bases >= 0) & (bases <= limit)]
        bases = bases[_overlaps(bases, request.words, low[meets], high[meets]) == 0]
        if not len(bases):
            return None
        clearing = np.where(self.clean, self.clearing, 0)[: self.count]
        same = (self.shape[: self.count] == kind) & (low < high)
        costs = _overlaps(bases, request.words, low, high, clearing)
        costs -= _at(bases, low[same], clearing[same])
        if request.clearing:
            spoilt = _overlaps(bases, request.words, low, high) - _at(bases, low[same])
            costs += request.clearing * (spoilt > 0)
        index = int(np.argmin(costs))
        return int(costs[index]), int(bases[index])

    def add(self, request: Request, kind: int, base: int) -> None:
        """Place a window."""
        low, high, _ = self._rows(request)
        meets = (base < high) & (low < base + request.words)
        spoilt = meets & ((low != base) | (self.shape[: self.count] != kind))
        self.clean[: self.count] &= ~spoilt
        row = self.count
        self.low[row], self.high[row], self.shape[row] = base, base + request.words, kind
        self.first[row], self.last[row] = request.begin, request.end
        self.clearing[row] = request.clearing
        self.clean[row] = request.clearing and not spoilt.any()
        self.count += 1


def _overlaps(bases: Ints, words: int, low: Ints, high: Ints, weights: Ints | None = None) -> Ints:
    """How many windows, or how much of their weights, one of ``words`` would overlap at each base.

    Parameters
    ----------
    bases : (candidates,) ascending
    words : of the window
    low, high : (windows,) begins and ends of the others
    weights : (windows,) ones by default
    """
    begin = np.searchsorted(bases, low - words, side="right")
    end = np.maximum(np.searchsorted(bases, high, side="left"), begin)
    size = len(bases) + 1
    steps = np.bincount(begin, weights, size) - np.bincount(end, weights, size)
    return np.cumsum(steps)[:-1].astype(np.int64)


def _at(bases: Ints, low: Ints, weights: Ints | None = None) -> Ints:
    """How many windows begin at each base, or how much of their weights."""
    index = np.searchsorted(bases, low)
    found = index < len(bases)
    found[found] = bases[index[found]] == low[found]
    weights = None if weights is None else weights[found]
    return np.bincount(index[found], weights, len(bases)).astype(np.int64)


def _pack(ordered: list[Request], depth: int | None) -> tuple[Bases, int] | None:
    """Place windows one by one, with least clearing, then lowest; bases and cycles of clearing."""
    placed, bases, total = _Placed(ordered), Bases(), 0
    for request, kind in zip(ordered, placed.kinds, strict=True):
        found = placed.best(request, kind, depth, bases.get(request.tensor))
        if found is None:
            return None
        total += found[0]
        bases[request.tensor] = found[1]
        placed.add(request, kind, found[1])
    return bases, total


def allocate(requests: list[Request], depth: int) -> Bases | None:
    """Bases such that no two windows that are alive together overlap; None: ``depth`` is too small.

    Tries the largest first, the earliest first, and then seeded random orders until nothing more
    is cleared than must be; keeps the allocation with the fewest cycles of clearing.
    """
    if alive(requests).sum(axis=1).max(initial=0) > depth:
        return None
    by_size = sorted(requests, key=lambda request: (-request.words, request.begin))
    order = sorted(requests, key=lambda request: (request.begin, -request.words))
    shuffle = random.Random(0).shuffle
    best, least = _pack(by_size, depth), _unavoidable(requests, depth)
    for _ in range(min(_TRIES, _STEPS // max(len(requests), 1) ** 2)):
        if best is not None and best[1] <= least:
            break
        found = _pack(order, depth)
        if found is not None and (best is None or found[1] < best[1]):
            best = found
        shuffle(order)
    return None if best is None else best[0]

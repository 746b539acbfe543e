"""The allocator never lets two live tensors overlap, and knows whose padding gets dirty."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.compiler import allocate as module
from secateur.compiler.allocate import Request, allocate, dirtied
from secateur.ir import Tensor


@st.composite
def requests(draw: st.DrawFn) -> list[Request]:
    made = []
    for index in range(draw(st.integers(1, 9))):
        begin = draw(st.integers(0, 8))
        made.append(
            Request(
                Tensor(str(index), 1, 1, 1, 0, False),
                words=draw(st.integers(1, 40)),
                begin=begin,
                end=begin + draw(st.integers(0, 4)),
                clearing=draw(st.sampled_from([0, 7])),
                shape=draw(st.sampled_from(["a", "b"])),
            )
        )
    return made


@given(requests(), st.integers(1, 200))
def test_live_windows_never_overlap(made: list[Request], depth: int) -> None:
    bases, needed = allocate(made, depth)
    if bases is None:
        # Refused only if even stacking all windows would not fit.
        assert sum(request.words for request in made) > depth
        return
    assert needed <= depth
    owner: dict[tuple[int, int], str] = {}
    for request in made:
        base = bases[request.tensor]
        assert 0 <= base <= depth - request.words
        for step in range(request.begin, request.end + 1):
            for word in range(base, base + request.words):
                assert owner.setdefault((step, word), request.tensor.name) == request.tensor.name


@given(requests())
def test_dirty_windows_are_those_that_others_write_differently(made: list[Request]) -> None:
    bases, _ = allocate(made, 120)
    if bases is None:
        return
    dirty = dirtied(made, bases)
    for request in made:
        words = set(range(bases[request.tensor], bases[request.tensor] + request.words))
        touched = any(
            words & set(range(bases[other.tensor], bases[other.tensor] + other.words))
            and not (
                bases[other.tensor] == bases[request.tensor]
                and other.words == request.words
                and other.shape == request.shape
            )
            for other in made
            if other is not request
        )
        assert (request.tensor in dirty) == touched


@given(requests())
def test_room_for_all_means_nothing_is_dirty(made: list[Request]) -> None:
    bases, _ = allocate(made, sum(request.words for request in made) * 2)
    assert bases is not None
    assert not any(r.clearing for r in made if r.tensor in dirtied(made, bases))


@given(requests())
def test_what_is_cleared_is_counted_as_windows_are_placed(made: list[Request]) -> None:
    found = module._pack(made, None)
    assert found is not None
    bases, cycles = found
    assert cycles == sum(r.clearing for r in made if r.tensor in dirtied(made, bases))


def test_windows_are_compared_as_often_as_there_are_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of layers, of which every second one has padding: not all windows for each anew."""
    count, compared = 60, 0
    made = [
        Request(Tensor(str(i), 1, 1, 1, 0, False), 8 + i % 2, i, i + 1, 7 * (i % 2), i % 2)
        for i in range(count)
    ]
    assert sum(a.meets(b) for a, b in combinations(made, 2)) == count - 1
    spoils = module._spoils

    def counting(*arguments: object) -> bool:
        nonlocal compared
        compared += 1
        return spoils(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_spoils", counting)
    assert module._pack(made, None) is not None
    assert 0 < compared < 20 * count * count

"""The allocator never lets two live tensors overlap, and knows whose padding gets dirty."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from secateur.allocate import Request, allocate, dirtied
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

"""The allocator never lets two live tensors overlap, and knows whose padding gets dirty."""

from __future__ import annotations

import sys

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
    bases = allocate(made, depth)
    if bases is None:
        # Refused only if even stacking all windows would not fit.
        assert sum(request.words for request in made) > depth
        return
    owner: dict[tuple[int, int], str] = {}
    for request in made:
        base = bases[request.tensor]
        assert 0 <= base <= depth - request.words
        for step in range(request.begin, request.end + 1):
            for word in range(base, base + request.words):
                assert owner.setdefault((step, word), request.tensor.name) == request.tensor.name


@given(requests())
def test_dirty_windows_are_those_that_others_write_differently(made: list[Request]) -> None:
    bases = allocate(made, 120)
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
    bases = allocate(made, sum(request.words for request in made) * 2)
    assert bases is not None
    assert not any(r.clearing for r in made if r.tensor in dirtied(made, bases))


@given(requests())
def test_what_is_cleared_is_counted_as_windows_are_placed(made: list[Request]) -> None:
    found = module._pack(made, None)
    assert found is not None
    bases, cycles = found
    assert cycles == sum(r.clearing for r in made if r.tensor in dirtied(made, bases))


def naive_pack(ordered: list[Request], depth: int | None) -> tuple[dict[Tensor, int], int] | None:
    """The same by comparing each window at each place with every other."""

    def spoils(a: Request, base: int, b: Request, other: int) -> bool:
        apart = base + a.words <= other or other + b.words <= base
        return not apart and (base, a.words, a.shape) != (other, b.words, b.shape)

    bases: dict[Tensor, int] = {}
    dirty: set[Tensor] = set()
    for index, request in enumerate(ordered):
        placed = [(other, bases[other.tensor]) for other in ordered[:index]]
        best = None
        ends = {0} | {base for _, base in placed} | {base + o.words for o, base in placed}
        for base in sorted(ends | {base - request.words for _, base in placed}):
            span = set(range(base, base + request.words))
            if base < 0 or (depth is not None and base + request.words > depth):
                continue
            if any(o.meets(request) and span & set(range(b, b + o.words)) for o, b in placed):
                continue
            touched = {o.tensor for o, b in placed if spoils(request, base, o, b)}
            new = touched | {request.tensor} if touched else set()
            cost = sum(r.clearing for r in ordered if r.tensor in new - dirty)
            if best is None or cost < best[0]:
                best = cost, base, new
        if best is None:
            return None
        bases[request.tensor] = best[1]
        dirty |= best[2]
    return bases, sum(r.clearing for r in ordered if r.tensor in dirty)


@given(requests(), st.sampled_from([None, 40, 60, 90]))
def test_each_window_is_placed_where_least_is_cleared(
    made: list[Request], depth: int | None
) -> None:
    assert module._pack(made, depth) == naive_pack(made, depth)


def test_a_window_is_compared_with_all_others_at_once() -> None:
    """Of twice as many windows, twice as many steps are taken, not four times."""

    def steps(count: int) -> int:
        made = [
            Request(Tensor(str(i), 1, 1, 1, 0, False), 8 + i % 2, i, i + 1, 7 * (i % 2), i % 2)
            for i in range(count)
        ]
        taken = 0

        def count_step(*_: object) -> None:
            nonlocal taken
            taken += 1

        sys.setprofile(count_step)
        try:
            assert module._pack(made, None) is not None
        finally:
            sys.setprofile(None)
        return taken

    assert steps(200) < 2.2 * steps(100)

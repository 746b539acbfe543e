"""Channel orders: hidden groups are found again, and no order is worse than the given one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.compiler import place as module
from secateur.compiler.place import group_channels, longest_first


def _blocks(pattern: np.ndarray, order: np.ndarray, n: int) -> int:
    total = 0
    for begin in range(0, len(order), n):
        for column in range(pattern.shape[1]):
            total += any(pattern[channel, column] for channel in order[begin : begin + n])
    return total


@pytest.mark.parametrize(("channels", "n"), [(32, 8), (10, 8), (23, 4), (16, 16), (603, 8)])
def test_hidden_groups_are_found(channels: int, n: int) -> None:
    rng = np.random.default_rng(channels)
    groups = -(-channels // n)
    shared = rng.random((groups, 200)) < 0.2
    pattern = np.repeat(shared, n, axis=0)[:channels]
    shuffled = pattern[rng.permutation(channels)]
    order = group_channels(shuffled, n)
    assert sorted(order) == list(range(channels))
    assert _blocks(shuffled, order, n) == shared.sum()


@given(st.integers(1, 20), st.sampled_from([2, 4, 8]), st.integers(0, 1000))
def test_never_worse_than_given(channels: int, n: int, seed: int) -> None:
    pattern = np.random.default_rng(seed).random((channels, 12)) < 0.4
    order = group_channels(pattern, n)
    assert sorted(order) == list(range(channels))
    given_order = np.arange(channels)
    assert _blocks(pattern, order, n) <= _blocks(pattern, given_order, n)


def test_the_given_order_is_kept_if_none_is_better() -> None:
    np.testing.assert_array_equal(group_channels(np.ones((12, 5), dtype=bool), 4), np.arange(12))


def test_a_wide_layer_is_ordered_in_few_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A last row that is not full may stand in 251 places of the search."""
    rng, grown, grow = np.random.default_rng(0), 0, module._grow

    def counted(pattern: np.ndarray, sizes: list[int], short: int) -> object:
        nonlocal grown
        grown += len(pattern)
        return grow(pattern, sizes, short)

    monkeypatch.setattr(module, "_grow", counted)
    pattern = rng.random((1003, 30)) < 0.95
    order = group_channels(pattern, 4)
    assert _blocks(pattern, order, 4) < _blocks(pattern, np.arange(1003), 4)
    assert 2000 < grown < 6000
    grown = 0
    group_channels(np.ones((1003, 30), dtype=bool), 4)
    assert grown == 0


@given(st.integers(1, 40), st.sampled_from([2, 4, 8]), st.integers(0, 1 << 32))
def test_full_rows_stand_by_falling_length(channels: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pattern, given_order = rng.random((channels, 9)) < 0.1, rng.permutation(channels)
    order, full = longest_first(pattern, given_order, n), channels // n
    lengths = [_blocks(pattern, order[at * n : at * n + n], n) for at in range(full)]
    assert lengths == sorted(lengths, reverse=True)
    rows = [set(each.tolist()) for each in np.split(order, range(n, channels, n))]
    same = [set(each.tolist()) for each in np.split(given_order, range(n, channels, n))]
    assert sorted(map(sorted, rows)) == sorted(map(sorted, same))
    assert rows[full:] == same[full:]

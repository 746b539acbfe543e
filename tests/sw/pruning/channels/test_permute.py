"""Orders of filters: against all orders of small layers, and as the compiler finds them again."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from secateur.compiler.place import count_blocks, group_channels
from secateur.errors import SecateurError
from secateur.pruning import Magnitude, permute, prune
from secateur.pruning.channels.permute import kept_saliency, search
from tests.support.networks import ResNet8


def naive_kept(part: np.ndarray, order: tuple[int, ...], keep: int, n: int) -> float:
    """Saliency of the best blocks, those of short groups ranked by their mean."""
    blocks = []
    for first in range(0, len(order), n):
        rows = order[first : first + n]
        for column in range(part.shape[1]):
            total = sum(float(part[row, column]) for row in rows)
            blocks.append((total * n / len(rows), total))
    blocks.sort(key=lambda block: -block[0])
    return sum(total for _, total in blocks[:keep])


@st.composite
def saliencies(draw: st.DrawFn, most: int = 6) -> np.ndarray:
    channels, positions = draw(st.integers(1, most)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 20)))
    return rng.random((channels, positions)) ** 3


@settings(max_examples=100)
@given(part=saliencies(9), n=st.integers(1, 4), data=st.data())
def test_kept_saliency_equals_a_naive_loop(part: np.ndarray, n: int, data: st.DataObject) -> None:
    order = tuple(data.draw(st.permutations(range(len(part)))))
    keep = data.draw(st.integers(1, -(-len(part) // n) * part.shape[1]))
    found = kept_saliency(part, np.array(order), keep, n)
    assert found == pytest.approx(naive_kept(part, order, keep, n), rel=1e-12)


@settings(max_examples=30)
@given(part=saliencies(), other=st.integers(0, 1 << 20), n=st.integers(1, 3), data=st.data())
def test_search_against_all_orders(
    part: np.ndarray, other: int, n: int, data: st.DataObject
) -> None:
    """Two layers share their channels: not below the given order, not above the best."""
    tied = [part, np.random.default_rng(other).random((len(part), 2))]
    keep = [data.draw(st.integers(1, -(-len(p) // n) * p.shape[1])) for p in tied]

    def value(order: tuple[int, ...]) -> float:
        return sum(naive_kept(p, order, k, n) for p, k in zip(tied, keep, strict=True))

    order = search(tied, keep, n, seed=1, swaps=60)
    assert sorted(order.tolist()) == list(range(len(part)))
    found = value(tuple(order.tolist()))
    best = max(map(value, permutations(range(len(part)))))
    assert value(tuple(range(len(part)))) <= found * (1 + 1e-9)
    assert found <= best * (1 + 1e-9)
    assert found >= 0.9 * best


def test_hidden_groups_are_found() -> None:
    """32 filters in 4 kinds, shuffled: blocks as good as single weights."""
    rng = np.random.default_rng(3)
    kinds = (rng.random((4, 40)) < 0.25).astype(float)
    kinds[:, :4] = np.eye(4)
    members = rng.permutation(np.arange(32) % 4)
    part = kinds[members]
    keep = int(kinds.sum())
    order = search([part], [keep], 8)
    assert kept_saliency(part, order, keep, 8) == part.sum()
    assert kept_saliency(part, np.arange(32), keep, 8) < 0.7 * part.sum()


def test_swaps_come_from_the_seed() -> None:
    part = np.random.default_rng(0).random((40, 60)) ** 4
    runs = [search([part], [60], 8, seed=seed, swaps=1500) for seed in (0, 0, 1)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])
    none = kept_saliency(part, search([part], [60], 8, swaps=0), 60, 8)
    assert kept_saliency(part, np.arange(40), 60, 8) < none
    assert none < kept_saliency(part, runs[0], 60, 8)


def resnet() -> ResNet8:
    torch.manual_seed(0)
    return ResNet8()


X = torch.zeros(1, 3, 32, 32)
#: Layers of ResNet-8 whose outputs are added, or which stand alone.
SETS = [["c.0", "c.2"], ["c.1"], ["c.3"], ["c.4", "c.5"], ["c.6"], ["c.7", "c.8"], ["fc"]]


def test_report_is_what_pruning_keeps() -> None:
    """Given, permuted and unstructured shares, from the masks that prune sets."""
    found = permute(resnet(), X, density=0.25, swaps=200)
    assert found.layers != ()
    for kind in ("given", "permuted"):
        model = resnet()
        total = {row.name: model.get_submodule(row.name).weight.detach() for row in found.layers}
        granularity = found.granularity if kind == "permuted" else None
        prune(model, density=0.25, granularity=granularity)
        for row in found.layers:
            before = total[row.name].double() ** 2
            after = model.get_submodule(row.name).weight.detach().double() ** 2
            share = float(after.sum() / before.sum())
            assert getattr(row, kind) == pytest.approx(share, rel=1e-9)
    for row in found.layers:
        squares = (total[row.name].double() ** 2).flatten().sort(descending=True).values
        best = squares[: round(0.25 * len(squares))].sum() / squares.sum()
        assert row.unstructured == pytest.approx(float(best), rel=1e-9)
        assert row.unstructured > row.permuted
    assert sum(row.permuted for row in found.layers) > sum(row.given for row in found.layers)
    lines = str(found).splitlines()
    assert lines[0].split() == ["layer", "given", "permuted", "unstructured"]
    assert lines[1].split()[:2] == ["c.0", f"{100 * found.layers[0].given:.2f}"]


def test_tied_layers_share_one_order() -> None:
    found = permute(resnet(), X, density=0.25, swaps=50)
    assert found.orders.keys() == {name for names in SETS for name in names}
    for names in SETS:
        assert len({found.orders[name] for name in names}) == 1
    orders = {found.orders[names[0]] for names in SETS}
    assert len(orders) == len(SETS)


@pytest.mark.parametrize("density", [0.5, 0.25])
def test_the_compiler_finds_the_groups_again(density: float) -> None:
    """`place` sees zeros only; its greedy order has the very blocks that pruning kept."""
    model = resnet()
    found = permute(model, X, density=density, swaps=100)
    report = prune(model, density=density, granularity=found.granularity)
    kept = {row.name: row.kept for row in report.layers}
    for names in SETS:
        weights = [model.get_submodule(name).weight.detach() for name in names]
        pattern = np.concatenate([(w != 0).flatten(1).numpy() for w in weights], axis=1)
        blocks = count_blocks(pattern, group_channels(pattern, 8), 8)
        assert blocks == sum(kept[name] for name in names)
        assert blocks < 0.8 * count_blocks(pattern, np.arange(len(pattern)), 8)


class Joined(nn.Module):
    """Two layers, concatenated, then a depthwise one: its order is not one layer's to choose."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 16, 1), nn.Conv2d(2, 16, 1)
        self.depthwise = nn.Conv2d(32, 32, 3, groups=32)
        self.last = nn.Conv2d(32, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.depthwise(torch.cat([self.a(x), self.b(x)], dim=1)))


def test_parts_of_a_concatenation_keep_their_order() -> None:
    torch.manual_seed(0)
    model = Joined()
    found = permute(model, torch.zeros(1, 2, 4, 4), density=0.25, swaps=50)
    assert found.orders.keys() == {"last"}
    rows = {row.name: row for row in found.layers}
    assert rows["depthwise"].given == rows["depthwise"].permuted
    report = prune(model, density=0.25, granularity=found.granularity)
    assert report.density == 0.25


def test_permute_takes_what_prune_takes() -> None:
    found = permute(
        resnet(), X, density=0.25, n=4, criterion=Magnitude(1), skip=["c.0"], overrides={"fc": 0.5}
    )
    assert found.granularity.n == 4
    assert found.layers[0].name == "c.1"
    assert "c.0" not in found.orders
    report = prune(
        resnet(), density=0.25, skip=["c.0"], overrides={"fc": 0.5}, granularity=found.granularity
    )
    assert report.layers[-1].kept == 96  # of 3 x 64
    masked = resnet()
    prune(masked, density=0.5)
    with pytest.raises(SecateurError, match=r"layer 'c\.0' has a mask"):
        permute(masked, X, density=0.25)
    with pytest.raises(SecateurError, match="density must be above 0"):
        permute(resnet(), X, density=0)

"""Budgets: met by the image itself, optimal on small cases, refused where they cannot be met."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from secateur.compiler.compiler import compile_network
from secateur.compiler.cost import rows_cycles
from secateur.errors import SecateurError, SecateurWarning
from secateur.examples import demo_model
from secateur.hw.spec import Geometry
from secateur.lowering.lower import lower
from secateur.pruning.budget.budget import allocate_budget
from secateur.pruning.budget.costing import CostModel
from secateur.pruning.budget.rows import RowCost, block_costs, ranks, removal_order
from secateur.pruning.criteria.saliency import block_saliency
from secateur.pruning.recipes.check_image import check_masks
from secateur.pruning.units.blocks import nonzero_blocks
from secateur.quantisation.prepare import quantize
from secateur.sim import golden
from secateur.target import Target
from tests.support.long import long
from tests.support.networks import random_input, resnet8

SMALL = Target(name="4x3", geometry=Geometry(n=4, p=3, weight_words=1 << 15, bank_words=1 << 13))


class Pointwise(nn.Module):
    """1x1 on an 8 x 8 map, whose rows of 16 words the drain of 16 lanes hides, then 3x3."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(16, 16, 1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))))


def network(name: str) -> tuple[nn.Module, torch.Tensor]:
    if name == "resnet8":
        model, shape = resnet8(0)
        return model, random_input(0, shape, 4)
    if name == "pointwise":
        return Pointwise().eval(), random_input(0, (16, 8, 8), 4)
    return demo_model.model(0).eval(), random_input(0, (1, 28, 28), 4)


@pytest.fixture(scope="module")
def costs() -> CostModel:
    return CostModel(*network("demo"), Target.load("8x8"))


@pytest.mark.parametrize(
    ("name", "target", "budget"),
    [
        ("demo", Target.load("8x8"), {"cycles": 45_000}),
        ("demo", SMALL, {"latency_ms": 2.0, "clock_mhz": 60.0}),
        ("resnet8", Target.load("8x8"), {"cycles": 75_000}),
        long("demo", Target.load("8x3"), {"cycles": 90_000, "rom_bytes": 20_000}),
    ],
)
def test_the_image_meets_the_budget_and_uses_it(
    name: str, target: Target, budget: dict[str, float]
) -> None:
    """Masks, quantised and compiled as any model is: within 3 % below, by its own header."""
    model, x = network(name)
    n = target.geometry.n
    allocation = allocate_budget(model, x, target, block_saliency(model, n), **budget)
    report = allocation.apply(model)
    graph = quantize(model, x)
    image = compile_network(lower(graph), target)
    cycles = golden.parse(image.stream, target.geometry).cycles
    limits = []
    if "latency_ms" in budget:
        limits.append((cycles, 120_000))
    if "cycles" in budget:
        limits.append((cycles, budget["cycles"]))
    if "rom_bytes" in budget:
        limits.append((len(image.stream), budget["rom_bytes"]))
    assert all(figure <= limit for figure, limit in limits)
    assert max(figure / limit for figure, limit in limits) >= 0.97
    # What is predicted before training counts a few configuration words as written that may not be.
    layers = len(image.metadata["layers"])
    assert 0 <= allocation.cost.cycles - cycles <= 2 * layers
    assert 0 <= allocation.cost.rom_bytes - len(image.stream) <= 2 * layers * (n + 1)
    assert check_masks(image, graph, model).masked_weights > 0
    for row in report.layers:
        layer = model.get_submodule(row.name)
        assert int(nonzero_blocks(layer.weight, n).sum()) == row.kept


def test_lamp_keeps_the_blocks_with_the_largest_share_of_what_is_no_smaller() -> None:
    """Against the definition, block by block; saliencies are all different."""
    model, x = network("pointwise")
    saliency = block_saliency(model, 4)
    gone = saliency["first"].argmax()
    model.first.weight.data.view(4, 4, -1)[gone // 16, :, gone % 16] = 0
    costs = CostModel(model, x, SMALL)  # the block is dead, whatever a criterion says of it
    scores = {
        (name, index): 0.0 if (name, index) == ("first", int(gone)) else float(block)
        for name, values in saliency.items()
        for index, block in enumerate(values.ravel())
    }
    assert len(set(scores.values())) == len(scores)
    shares = {
        (name, index): score / sum(s for (n, _), s in scores.items() if n == name and s >= score)
        for (name, index), score in scores.items()
    }
    allocation = allocate_budget(costs, None, None, saliency, density=0.3, normalize="lamp")
    best = set(sorted(shares, key=lambda key: -shares[key])[: int(0.3 * len(shares))])
    kept = {
        (name, int(index))
        for name, mask in allocation.masks.items()
        for index in mask.ravel().nonzero()
    }
    assert kept == best
    assert allocation.saliency == pytest.approx(sum(shares[key] for key in best))


Problem = tuple[list[RowCost], np.ndarray, np.ndarray]


def random_rows(seed: int) -> Problem:
    """Two rows of a layer and one of another, up to 14 blocks each; some words are fixed."""
    rng = np.random.default_rng(seed)
    rows = []
    for count in (2, 1):
        groups, lanes, fixed = (int(rng.integers(a, b)) for a, b in ((1, 5), (1, 17), (0, 3)))
        rows += [RowCost(groups, lanes, 1, fixed, first=index == 0) for index in range(count)]
    sizes = rng.integers(6, 15, size=3)
    scores = rng.integers(1, 30, size=int(sizes.sum())).astype(float)
    return rows, scores, np.repeat(np.arange(3), sizes)


def cycles_of(rows: list[RowCost], counts: list[int]) -> int:
    """By the compiler's own formula, for numbers of blocks in the rows."""
    words = [max(8, count + row.fixed) for count, row in zip(counts, rows, strict=True)]
    layers = ((rows[0], words[:2]), (rows[2], words[2:]))
    return sum(rows_cycles(own, row.groups, 1, row.lanes) for row, own in layers)


@pytest.mark.parametrize("seed", range(12))
def test_every_price_gives_the_best_rows_for_their_cycles(seed: int) -> None:
    """Against all numbers of blocks in all rows."""
    rows, scores, row = random_rows(seed)
    ranked = [np.sort(scores[row == index])[::-1] for index in range(3)]
    everything = []
    for counts in product(*(range(len(part) + 1) for part in ranked)):
        value = sum(part[:count].sum() for part, count in zip(ranked, counts, strict=True))
        everything.append((cycles_of(rows, list(counts)), value))
    cycles, values = np.array(everything).T
    rank = ranks(scores, row)
    price = block_costs(rank, row, [[each] for each in rows], word_bytes=9)[:, 0]
    order = removal_order(scores, price, rank)
    ratio = scores[order] / price[order]
    borders = [0, *(np.flatnonzero(np.diff(ratio) > 0) + 1), len(order)]
    for gone in borders:
        left = np.ones(len(scores), dtype=bool)
        left[order[:gone]] = False
        took = cycles_of(rows, [int(left[row == index].sum()) for index in range(3)])
        assert scores[left].sum() == values[cycles <= took].max()
    # Fewer cycles than at the end do not exist: what is left is free.
    assert took == cycles.min()


def test_blocks_behind_the_drain_are_not_pruned_for_cycles() -> None:
    """Rows of the 1x1 layer take 16 cycles a group with 16 words as with 1."""
    model, x = network("pointwise")
    target = Target.load("8x16")
    saliency = block_saliency(model, 8)
    costs = CostModel(model, x, target)
    dense = costs.cost(costs.alive)
    one = dict(costs.alive) | {"first": np.zeros((2, 16), dtype=bool)}
    one["first"][:, :1] = True
    saved = dense.cycles - costs.cost(one).cycles
    allocation = allocate_budget(costs, None, None, saliency, cycles=dense.cycles // 2)
    assert allocation.kept["first"] >= 30
    assert allocation.kept["second"] < 288 // 2
    # The first row's first group waits for nobody: 16 words against the least, 8. In the second
    # row two words hide no longer behind the drain: they take the place of the headers.
    assert saved == 8 + 2
    fewer = allocate_budget(costs, None, None, saliency, density=0.05)
    assert fewer.kept["first"] < 30


def test_equal_functions_may_become_different_ones() -> None:
    """On an array with one table, so that training makes an inference longer.

    Both functions have the same arguments, so that their tensors have the same factors.
    """
    conv = nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 4, 1, bias=False)
    arguments = 0.9 * torch.tensor([1.0, 1.0, 1.0, 0.5]).reshape(4, 1, 1, 1)
    with torch.no_grad():
        conv[0].weight.copy_(arguments)
        results = arguments.tanh().reshape(1, 4, 1, 1)
        conv[1].weight.copy_(arguments * results / results.square().sum())
    model = nn.Sequential(conv[0], nn.Tanh(), conv[1], nn.Tanh()).eval()
    x = torch.tensor([-1.0, 1.0]).repeat(72).reshape(4, 1, 6, 6)
    geometry = Geometry(n=4, p=3, weight_words=1024, bank_words=256, tables=1)
    target = Target(name="one", geometry=geometry)
    costs = CostModel(model, x, target)
    predicted, before = costs.cost(costs.alive), compile_network(lower(quantize(model, x)), target)
    conv[1].weight.data *= 4
    after = compile_network(lower(quantize(model, x)), target)
    assert before.cycles < after.cycles <= predicted.cycles
    assert after.words.size <= predicted.rom_bytes


def test_rows_keep_their_best_blocks(costs: CostModel) -> None:
    model, _ = network("demo")
    saliency = block_saliency(model, 8, skip=demo_model.SKIP)
    allocation = allocate_budget(costs, None, None, saliency, cycles=40_000)
    assert set(allocation.masks) == {"pointwise", "conv2", "conv3", "conv4", "linear"}
    for name, mask in allocation.masks.items():
        for kept, scores in zip(mask, saliency[name], strict=True):
            if kept.any() and not kept.all():
                assert scores[kept].min() >= scores[~kept].max()


def test_more_saliency_at_a_looser_budget(costs: CostModel) -> None:
    model, _ = network("demo")
    saliency = block_saliency(model, 8)
    kept = [
        allocate_budget(costs, None, None, saliency, cycles=budget).saliency
        for budget in (20_000, 80_000, 100_000)
    ]
    assert kept == sorted(kept)
    assert kept[-1] == pytest.approx(7.0)  # all of seven layers


def test_an_unreachable_budget_names_the_least_and_the_layers(costs: CostModel) -> None:
    model, _ = network("demo")
    saliency = block_saliency(model, 8, skip=["conv4"])
    with pytest.raises(SecateurError) as refusal:
        allocate_budget(costs, None, None, saliency, cycles=9_000)
    message = str(refusal.value)
    least = int(message.split(": ")[2].split(" is the least")[0].replace(",", ""))
    assert least > 9_000
    assert "9,000 cycles cannot be reached" in message
    assert "mostly in conv4 (" in message
    reached = allocate_budget(costs, None, None, saliency, cycles=least)
    assert reached.cost.cycles <= least
    with pytest.raises(SecateurError, match="cannot be reached"):
        allocate_budget(costs, None, None, saliency, cycles=least - 1)


def test_an_unreachable_density_counts_blocks(costs: CostModel) -> None:
    """The best block of each layer stays."""
    model, _ = network("demo")
    saliency = block_saliency(model, 8)
    with pytest.raises(SecateurError) as refusal:
        allocate_budget(costs, None, None, saliency, density=1e-6)
    held = ", ".join(f"{name} (1)" for name in list(saliency)[:4])
    assert f"0 blocks cannot be reached: {len(saliency)} is the least" in str(refusal.value)
    assert f"mostly in {held};" in str(refusal.value)


def test_layers_of_zeros_are_pointed_out() -> None:
    """No mask can keep a block of theirs: training would not bring them to life."""
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8))
    nn.init.zeros_(model[2].weight)
    target = Target.load("8x8")
    saliency = block_saliency(model, 8)
    found = allocate_budget(model, torch.randn(8, 16), target, saliency, density=1.0)
    with pytest.warns(SecateurWarning, match="layer '2' has only zeros in int8"):
        found.apply(model)


def test_pruned_blocks_stay_pruned() -> None:
    model, x = network("demo")
    target = Target.load("8x8")
    first = allocate_budget(model, x, target, block_saliency(model, 8), cycles=60_000)
    first.apply(model)
    second = allocate_budget(model, x, target, block_saliency(model, 8), cycles=30_000)
    for name, mask in second.masks.items():
        assert not (mask & ~first.masks[name]).any()
    assert second.dense.cycles == first.cost.cycles


def test_the_check_finds_weights_that_came_back() -> None:
    model, x = network("pointwise")
    target = Target.load("8x8")
    whole = quantize(model, x)
    allocate_budget(model, x, target, block_saliency(model, 8), density=0.5).apply(model)
    pruned = quantize(model, x)
    image = compile_network(lower(pruned), target)
    check_masks(image, pruned, model)
    with pytest.raises(SecateurError, match="masked weights are not zero in int8"):
        check_masks(image, whole, model)
    other = compile_network(lower(whole), target)
    with pytest.raises(SecateurError, match="image's weights are not the graph's"):
        check_masks(other, pruned, model)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({}, "give cycles, a latency at a clock, rom_bytes or density"),
        ({"cycles": 0}, "cycles must be above 0 and below 2.{2}53, not 0"),
        ({"cycles": 10**400}, "cycles must be above 0 and below 2.{2}53, not 1000"),
        ({"rom_bytes": float("inf")}, "rom_bytes must be above 0 and below 2.{2}53, not inf"),
        ({"latency_ms": 1.0}, "a latency needs a clock; .*or --latency and --clock"),
        ({"density": 1.5}, "density must be at most 1, not 1.5"),
        ({"density": 0.5, "normalize": "max"}, "normalize must be one of 'share', 'lamp', 'none'"),
    ],
)
def test_refused_budgets(costs: CostModel, budget: dict[str, float], message: str) -> None:
    saliency = block_saliency(network("demo")[0], 8)
    with pytest.raises(SecateurError, match=message):
        allocate_budget(costs, None, None, saliency, **budget)


@pytest.mark.parametrize(
    ("saliency", "message"),
    [
        ({}, "no layers; there is nothing to prune"),
        ({"conv9": torch.ones(1, 1)}, "'conv9' is not a layer of the network"),
        ({"linear": torch.ones(1, 64)}, r"shape \(1, 64\), expected \(2, 64\)"),
        ({"linear": -torch.ones(2, 64)}, "finite and not negative"),
    ],
)
def test_refused_saliency(
    costs: CostModel, saliency: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(SecateurError, match=message):
        allocate_budget(costs, None, None, saliency, density=0.5)

"""Budgets of time on a ring: the waits for its source count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from secateur.compiler.compiler import compile_network
from secateur.errors import SecateurError
from secateur.hw.ring import Source
from secateur.hw.spec import Geometry
from secateur.lowering.lower import lower
from secateur.pruning.budget.budget import allocate_budget
from secateur.pruning.budget.costing import CostModel
from secateur.pruning.budget.rows import RowCost, block_costs
from secateur.pruning.criteria.saliency import block_saliency
from secateur.quantisation.prepare import quantize
from secateur.sim import golden
from secateur.sim.ring import waits
from secateur.target import Target
from tests.support.networks import random_input

GEOMETRY = Geometry(n=8, p=8, weight_words=1 << 15, bank_words=2048, ring=256)
SLOW = Target(name="slow", geometry=GEOMETRY, source=Source(interval=2))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(24 * 16, 40)).eval()


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return random_input(0, (8, 8, 8), 4)


@pytest.mark.parametrize("milliseconds", [0.3, 0.15])
def test_the_image_takes_the_time(model: nn.Module, x: torch.Tensor, milliseconds: float) -> None:
    """By golden's own count of the waits, of the last of several inferences."""
    allocation = allocate_budget(
        model, x, SLOW, block_saliency(model, 8), latency_ms=milliseconds, clock_mhz=100
    )
    allocation.apply(model)
    image = compile_network(lower(quantize(model, x)), SLOW)
    program = golden.parse(image.stream, SLOW.geometry)
    waited = sum(waits(program, SLOW.source, 4)[-1])
    assert waited > program.cycles  # most of the time is waiting
    assert image.waits == waited
    limit = milliseconds * 100_000
    assert 0.97 * limit <= program.cycles + waited <= limit
    assert allocation.used <= 1


def test_cycles_alone_are_a_budget_of_their_own(model: nn.Module, x: torch.Tensor) -> None:
    costs = CostModel(model, x, SLOW)
    fast = CostModel(model, x, replace(SLOW, geometry=replace(GEOMETRY, ring=0), source=None))
    saliency = block_saliency(model, 8)
    found = allocate_budget(costs, None, None, saliency, cycles=2_500)
    assert found.cost.waits > 10_000
    on_chip = allocate_budget(fast, None, None, saliency, cycles=2_500)
    assert found.kept == on_chip.kept
    assert on_chip.cost.waits == 0


def test_a_time_out_of_reach(model: nn.Module, x: torch.Tensor) -> None:
    with pytest.raises(
        SecateurError, match=r"1,000 cycles with waits for the source cannot be reached: [\d,]+ is"
    ):
        allocate_budget(model, x, SLOW, block_saliency(model, 8), latency_ms=0.01, clock_mhz=100)


def test_a_word_takes_its_cycles_or_the_time_of_its_bytes() -> None:
    many = RowCost(groups=40, lanes=8, passes=1, fixed=0, first=True)
    one = replace(many, groups=1)
    rank, row = np.tile(np.arange(20), 2), np.repeat([0, 1], 20)
    costs = block_costs(rank, row, [[many], [one]], word_bytes=9, interval=2)
    assert costs[:8].max() == costs[8, 2] == 1  # up to eight words a block costs nothing
    assert costs[19].tolist() == [40, 9, 1, 40]
    assert costs[39].tolist() == [1, 9, 1, 18]

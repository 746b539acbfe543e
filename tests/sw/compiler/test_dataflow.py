"""The proof of a plan finds what is overwritten too early, and passes what is right."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from secateur.capture.recurrent import Steps
from secateur.compiler import dataflow, prepare
from secateur.compiler.prepare import copy_layer, runnable
from secateur.compiler.schedule import Plan, plan
from secateur.errors import SecateurError
from secateur.ir import Network, State
from tests.support.networks import random_input, random_network
from tests.support.pipeline import build, target

GEOMETRY = target(4, 2, bank_words=256).geometry


class DelayLine(nn.Module):
    """y of the input two steps ago."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return self.last(b), x, a


@pytest.fixture(scope="module")
def delay() -> Network:
    torch.manual_seed(0)
    return build(Steps(DelayLine(), [(8,), (8,)]), torch.randn(4, 5, 8)).network


@pytest.fixture(scope="module")
def residual() -> Network:
    model, shape = random_network(11)
    return build(model, random_input(11, shape, 4)).network


def planned(network: Network) -> Plan:
    return plan(runnable(network, GEOMETRY), GEOMETRY)


def test_right_plans_pass(delay: Network, residual: Network) -> None:
    for network in (delay, residual):
        dataflow.check(
            network, plan(runnable(network, target(4, 2).geometry), target(4, 2).geometry)
        )


def test_states_moved_in_the_wrong_order(delay: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits: the new first state is there before the second has taken the old one."""
    monkeypatch.setattr(prepare, "_readers", lambda state, waiting: [])
    with pytest.raises(SecateurError, match=r"^(layer|state) .* overwritten before it is read"):
        dataflow.check(delay, planned(delay))


def test_a_layer_that_reads_a_state_too_late(delay: Network) -> None:
    found = planned(delay)
    layers = [*found.layers[1:], found.layers[0]]
    network = replace(found.network, layers=[layer_plan.layer for layer_plan in layers])
    with pytest.raises(SecateurError, match="would not get"):
        dataflow.check(delay, replace(found, network=network, layers=layers))


def test_a_state_that_is_not_left(delay: Network) -> None:
    """A copy into the wrong state at the end."""
    found = planned(delay)
    first, second = (state.before for state in found.network.states)
    copy = copy_layer(first, "wrong", second)
    network = replace(found.network, layers=[*found.network.layers, copy])
    with pytest.raises(SecateurError, match=r"^state 'states_1' would not get"):
        dataflow.check(delay, replace(found, network=network))


def test_another_state_taken_for_it(delay: Network) -> None:
    found = planned(delay)
    a, b = delay.states
    crossed = replace(delay, states=[State(a.before, b.after), State(b.before, a.after)])
    with pytest.raises(SecateurError, match=r"^state 'states_0' would not get"):
        dataflow.check(crossed, found)


def test_windows_that_share_words(residual: Network) -> None:
    """Each pair of tensors that are alive together, one put where the other lies."""
    found = plan(runnable(residual, target(4, 2).geometry), target(4, 2).geometry)
    refused = 0
    for tensor, layout in found.layouts.items():
        moved = found.layouts | {tensor: replace(layout, base=0)}
        if layout.base > 0:
            try:
                dataflow.check(residual, replace(found, layouts=moved))
            except SecateurError:
                refused += 1
    assert refused > 0

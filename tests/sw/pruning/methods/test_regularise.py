"""Proximal steps, distillation, and iterative pruning with rewinding."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.pruning import (
    Element,
    Filter,
    GroupLasso,
    IterativePruner,
    Magnitude,
    NOfM,
    density_of,
    distil,
    distillation_loss,
    geometric_density,
    prune,
)


def dense(outputs: int, inputs: int, seed: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
    return layer


SEEDS = st.integers(0, 1 << 20)
SIZES = {"outputs": st.integers(1, 9), "inputs": st.integers(1, 5), "seed": SEEDS}


@settings(max_examples=60)
@given(**SIZES, strength=st.floats(0.01, 3), rate=st.floats(0.01, 1))
def test_l1_is_soft_thresholding(
    outputs: int, inputs: int, seed: int, strength: float, rate: float
) -> None:
    layer = dense(outputs, inputs, seed)
    expected = [
        [math.copysign(max(abs(w) - rate * strength, 0.0), w) for w in row]
        for row in layer.weight.tolist()
    ]
    bias = layer.bias.detach().clone()
    lasso = GroupLasso(layer, strength, granularity=Element())
    total = strength * sum(abs(w) for row in layer.weight.tolist() for w in row)
    assert lasso.penalty() == pytest.approx(total, rel=1e-12)
    lasso.step(rate)
    exact = torch.tensor(expected, dtype=torch.float64)
    assert torch.allclose(layer.weight, exact, rtol=1e-9, atol=1e-12)
    assert torch.equal(layer.weight == 0, exact == 0)
    assert torch.equal(layer.bias, bias)


@settings(max_examples=60)
@given(**SIZES, strength=st.floats(0.01, 2), n=st.integers(1, 4))
def test_block_step_is_the_proximal_operator(
    outputs: int, inputs: int, seed: int, strength: float, n: int
) -> None:
    """argmin over v of |v - w|^2 / 2 + t |v|, by its optimality condition, block by block."""
    layer = dense(outputs, inputs, seed)
    before = layer.weight.detach().clone()
    GroupLasso(layer, strength, n=n).step(0.5)
    for first in range(0, outputs, n):
        for column in range(inputs):
            w, v = (t[first : first + n, column].detach() for t in (before, layer.weight))
            t = 0.5 * strength * math.sqrt(len(w))
            if bool((v == 0).all()):
                assert float(w.norm()) <= t * (1 + 1e-9)
            else:
                assert torch.allclose(v - w + t * v / v.norm(), torch.zeros(()).double())


def test_proximal_training_finds_the_relevant_inputs() -> None:
    """Targets depend on inputs 0 and 3 of 8; the other blocks become exactly zero."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 8, generator=generator).double()
    target = x[:, [0, 3]] @ torch.tensor([[1.0] * 4, [-2.0] * 4]).double()
    layer = dense(4, 8, 1)
    model = nn.Sequential(layer)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    lasso = GroupLasso(model, 0.05, n=4)
    start = lasso.penalty()
    for _ in range(200):
        optimiser.zero_grad()
        nn.functional.mse_loss(model(x), target).backward()
        optimiser.step()
        lasso.step(0.1)
    alive = (layer.weight != 0).any(dim=0)
    assert alive.tolist() == [True, False, False, True, False, False, False, False]
    assert 0 < lasso.penalty() < start
    report = prune(model, threshold=1e-12, n=4)
    assert (report.blocks, report.kept) == (8, 2)


def test_masked_and_skipped_layers_are_left_as_they_are() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8))
    prune(model, density=0.5)
    before = [layer.weight.detach().clone() for layer in model]
    GroupLasso(model, 0.01, skip=["1"], granularity=Filter()).step(1.0)
    assert torch.equal(model[1].weight, before[1])
    assert torch.equal(model[0].weight == 0, before[0] == 0)
    assert bool(model[0].weight.norm() < before[0].norm())


def test_distillation_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2 * math.log(3), 0.0]])
    target = torch.tensor([0])
    soft = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    for share in (0.0, 0.5, 1.0):
        loss = distillation_loss(student, teacher, target, temperature=2.0, share=share)
        assert float(loss) == pytest.approx(share * soft + (1 - share) * math.log(2), rel=1e-6)
    twice = distillation_loss(
        student.repeat(2, 1), teacher.repeat(2, 1), target.repeat(2), temperature=2.0, share=1.0
    )
    assert float(twice) == pytest.approx(soft, rel=1e-6)


def test_the_teacher_is_asked_and_left_alone() -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    student = nn.Linear(4, 3)
    state = copy.deepcopy(teacher.state_dict())
    x, y = torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0])
    loss = distil(teacher, temperature=3.0, share=0.7)(x, student(x), y)
    loss.backward()
    assert student.weight.grad is not None
    assert teacher[0].weight.grad is None
    assert teacher.training
    assert all(torch.equal(value, state[key]) for key, value in teacher.state_dict().items())
    logits = copy.deepcopy(teacher).eval()(x)
    own = distil(teacher, share=0.7, loss=lambda outputs, y: outputs.sum() * 0 + 10)
    asked = distillation_loss(student(x), logits, y, share=0.7)
    hard = torch.nn.functional.cross_entropy(student(x), y)
    torch.testing.assert_close(own(x, student(x), y), asked - 0.3 * hard + 3)
    expected = distillation_loss(student(x), logits, y, temperature=3.0, share=0.7)
    assert torch.equal(loss, expected)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(2, 16, 3), nn.BatchNorm2d(16)
        self.linear = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.relu(self.norm(self.conv(x))).mean(dim=(2, 3)))


def train(model: nn.Module, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(steps):
        x = torch.randn(8, 2, 5, 5, generator=generator)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model.train()(x), torch.arange(8) % 4).backward()
        optimiser.step()


def values(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and statistics by name, without masks."""
    state = model.state_dict().items()
    return {name: value.clone() for name, value in state if not name.endswith(".mask")}


def test_geometric_density_by_hand() -> None:
    assert [geometric_density(k, 2, 0.25) for k in range(3)] == [1.0, 0.5, 0.25]
    assert geometric_density(3, 3, 0.2) == 0.2


def test_rewinding_restores_early_weights_and_keeps_masks() -> None:
    """Blocks: 2 x 18 and 1 x 16; densities 1/2 and 1/4. Ranked as trained, not as rewound."""
    model = Net()
    train(model, 3)
    pruner = IterativePruner(model, density=0.25, rounds=2, overrides={"linear": 0.0625})
    early = values(model)
    counts = []
    while not pruner.done:
        train(model, 10)
        trained = copy.deepcopy(model)
        before = {n: b.clone() for n, b in model.named_buffers() if n.endswith(".mask")}
        report = pruner.step()
        counts.append([row.kept for row in report.layers])
        late = values(model)
        assert late.keys() == early.keys()
        assert all(torch.equal(late[name], early[name]) for name in early)
        masks = {n: b for n, b in model.named_buffers() if n.endswith(".mask")}
        assert all(torch.equal(masks[name] * before[name], masks[name]) for name in masks)
        prune(trained, density=0.5 ** len(counts), overrides={"linear": 0.25 ** len(counts)})
        for name, buffer in trained.named_buffers():
            if name.endswith(".mask"):
                assert torch.equal(buffer, masks[name])
    assert counts == [[18, 4], [9, 1]]
    assert pruner.step() is pruner.report
    assert [row.kept for row in density_of(model).layers] == [9, 1]


def test_without_rewinding_the_weights_stay() -> None:
    model = Net()
    pruner = IterativePruner(model, density=0.5, rounds=1, rewind=False, criterion=Magnitude(1))
    train(model, 3)
    trained = values(model)
    pruner.step()
    assert pruner.done
    assert all(torch.equal(value, trained[name]) for name, value in values(model).items())


def test_refusals_are_one_clear_line() -> None:
    layer, masked = nn.Linear(4, 4), nn.Sequential(nn.Linear(8, 8))
    prune(masked, density=0.5)
    logits, target = torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)
    cases = [
        (lambda: GroupLasso(layer, 0.0), "strength must be a number above 0, not 0.0"),
        (lambda: GroupLasso(layer, math.nan), "strength must be a number above 0, not nan"),
        (lambda: GroupLasso(layer, True), "strength must be a number above 0, not True"),
        (lambda: GroupLasso(layer, 1.0, skip=["x"]), "skip: the model has no prunable layer 'x'"),
        (lambda: GroupLasso(layer, 1.0, granularity=NOfM()), "N:M has no groups that vanish"),
        (lambda: distillation_loss(logits, logits, target, temperature=0), "temperature > 0"),
        (lambda: distillation_loss(logits, logits, target, share=1.1), "0 <= share <= 1"),
        (lambda: distillation_loss(logits, logits[:, :2], target), "must have one shape"),
        (lambda: IterativePruner(layer, density=0.5, rounds=0), "rounds must be a positive int"),
        (lambda: IterativePruner(masked, density=0.5, rounds=1), "layer '0' has a mask: Iter"),
        (lambda: IterativePruner(layer, density=2.0, rounds=1), "density must be above 0"),
        (
            lambda: IterativePruner(layer, density=0.5, rounds=1, granularity=NOfM()),
            "N:M has one density",
        ),
    ]
    for call, message in cases:
        with pytest.raises(SecateurError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert not hasattr(layer, "parametrizations")

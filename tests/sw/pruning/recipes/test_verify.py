"""Scores, the gate, the sensitivity scan, attacks and corruptions, against hand calculations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from secateur.errors import SecateurError
from secateur.pruning import prune
from secateur.pruning.criteria.saliency import block_saliency
from secateur.pruning.recipes.robust import blur, contrast, fgsm, gaussian_noise, pgd
from secateur.pruning.recipes.task.task import Metric, Score, Task, evaluate
from secateur.pruning.recipes.verify import GateError, agreement, gate, sensitivity


def judged(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    return vars(evaluate(model, [(x, y)], Task())[0])


def test_score_and_agreement_by_hand() -> None:
    """Batches of two sizes: the loss is the mean over samples, not over batches."""
    outputs = torch.tensor([[0.0, math.log(3)], [math.log(3), 0.0], [0.0, math.log(3)]])
    labels = torch.tensor([1, 1, 1])
    batches = [(outputs[:1], labels[:1]), (outputs[1:], labels[1:])]
    found, whole = evaluate(nn.Identity(), batches, Task())
    assert found.value == 2 / 3
    assert found.loss == pytest.approx((2 * math.log(4 / 3) + math.log(4)) / 3)
    assert whole is not None
    assert torch.equal(whole, outputs)
    own = Task(loss=lambda model, batch: model(batch[0]).sum())
    assert evaluate(nn.Identity(), batches, own)[0].loss == pytest.approx(5 / 3 * math.log(3))
    assert agreement(outputs, outputs[[0, 0, 0]]) == 2 / 3


def test_the_gate_lets_pass_what_is_allowed_and_no_more() -> None:
    dense = Score(0.90, 0.0)
    gate(dense, Score(0.89, 0.0), max_drop=1.0)
    gate(dense, Score(0.95, 0.0), max_drop=0.0)
    for wrong in (math.nan, -1.0):
        with pytest.raises(SecateurError, match="max_drop must be points, 0 or more"):
            gate(dense, dense, max_drop=wrong)
    with pytest.raises(GateError, match=r"fell by 1\.10 points, from 90\.00% to 88\.90%"):
        gate(dense, Score(0.889, 0.0), max_drop=1.0)


def test_the_gate_knows_the_direction_of_a_metric() -> None:
    error = Metric("mine:rmse", lambda model, loader: 0.0, "min")
    gate(Score(2.0), Score(2.25), 0.25, error)
    gate(Score(2.0), Score(0.5), 0.0, error)
    with pytest.raises(GateError, match=r"mine:rmse rose by 0\.5, from 2 to 2\.5; --max"):
        gate(Score(2.0), Score(2.5), 0.25, error)
    area = Metric("mine:auc", lambda model, loader: 0.0)
    gate(Score(0.8), Score(0.9), 0.0, area)
    with pytest.raises(GateError, match=r"mine:auc fell by 0\.1, from 0\.9 to 0\.8"):
        gate(Score(0.9), Score(0.8), 0.05, area)


@pytest.mark.parametrize("value", [math.nan, "good", None])
def test_a_metric_is_a_finite_number(value: object) -> None:
    task = Task(metric=Metric("mine:metric", lambda model, loader: value))
    with pytest.raises(SecateurError, match="'mine:metric' must return one finite number, not"):
        evaluate(nn.Identity(), [], task)


def test_scores_leave_every_module_in_its_mode() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[1].eval()
    x = torch.randn(8, 6)
    _, found = evaluate(model, [(x, torch.zeros(8, dtype=torch.int64))], Task())
    assert [module.training for module in model.modules()] == [True, True, False, True]
    with torch.no_grad():
        assert torch.equal(found, model.eval()(x))


class Linear(nn.Module):
    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(6, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(x.flatten(1))
        return logits


def samples(count: int = 16, classes: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(count, 6, generator=generator) * 2 - 0.5
    return x.clamp(-0.5, 1.5), torch.arange(count) % classes


def test_fgsm_follows_the_gradient_of_a_linear_model() -> None:
    """d loss / d x = W^T (softmax(Wx + b) - onehot(y)) / batch, in NumPy."""
    model, (x, y) = Linear(4), samples(classes=4)
    weight = model.linear.weight.detach().double().numpy()
    bias = model.linear.bias.detach().double().numpy()
    raised = np.exp(x.double().numpy() @ weight.T + bias)
    gradient = (raised / raised.sum(1, keepdims=True) - np.eye(4)[y.numpy()]) @ weight
    assert np.abs(gradient).min() > 1e-6
    step = np.float32(0.1) * np.sign(gradient).astype(np.float32)
    expected = np.clip(x.numpy() + step, -0.4, 1.4)
    attacked = fgsm(model, x, y, 0.1, low=-0.4, high=1.4)
    np.testing.assert_array_equal(attacked.numpy(), expected)
    assert model.linear.weight.grad is None
    assert torch.equal(fgsm(model, x, y, 0.0, low=-0.5, high=1.5), x)


def test_pgd_reaches_the_corner_of_a_linear_model() -> None:
    """With two classes the worst point of the cube is x + eps * sign(w_other - w_label)."""
    model, (x, y) = Linear(), samples()
    weight = model.linear.weight.detach()
    corner = (x + 0.25 * (weight[1 - y] - weight[y]).sign()).clamp(-0.5, 1.5)
    attacked = pgd(model, x, y, 0.25, low=-0.5, high=1.5, steps=10, seed=3)
    torch.testing.assert_close(attacked, corner, rtol=0, atol=1e-6)
    short = pgd(model, x, y, 0.25, low=-0.5, high=1.5, steps=1, step=0.1, seed=3)
    assert not torch.equal(short, attacked)
    assert (short - x).abs().max() <= 0.25 + 1e-6
    assert torch.equal(short, pgd(model, x, y, 0.25, low=-0.5, high=1.5, steps=1, step=0.1, seed=3))
    assert not torch.equal(
        short, pgd(model, x, y, 0.25, low=-0.5, high=1.5, steps=1, step=0.1, seed=4)
    )


def test_blur_of_a_point_is_a_gaussian() -> None:
    x = torch.zeros(1, 2, 11, 11)
    x[0, 1, 5, 5] = 1.0
    taps = [math.exp(-0.5 * (k / 0.8) ** 2) for k in range(-4, 5)]
    row = np.array([0.0, *taps, 0.0]) / sum(taps)
    blurred = blur(x, 4, low=0.0, high=1.0)
    np.testing.assert_allclose(blurred[0, 1].numpy(), np.outer(row, row), atol=1e-6)
    assert not blurred[0, 0].any()


def test_contrast_draws_towards_the_mean_of_a_channel() -> None:
    x = torch.tensor([[[[0.0, 1.0]], [[0.5, 0.25]]]])
    changed = contrast(x, 2, low=0.0, high=1.0)
    assert torch.equal(changed, torch.tensor([[[[0.25, 0.75]], [[0.4375, 0.3125]]]]))


def test_noise_has_the_deviation_of_its_severity() -> None:
    x = torch.full((4, 3, 50, 50), 100.0)
    noise = gaussian_noise(x, 5, low=0.0, high=200.0, seed=1) - x
    assert float(noise.std()) == pytest.approx(20.0, rel=0.03)
    assert torch.equal(noise, gaussian_noise(x, 5, low=0.0, high=200.0, seed=1) - x)
    bright = gaussian_noise(torch.ones(1, 1, 50, 50), 5, low=0.0, high=1.0)
    assert bright.max() == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: blur(x.flatten(1), 1, low=0.0, high=1.0), "blur takes images"),
        (lambda x: contrast(x, 6, low=0.0, high=1.0), "severity must be 1 to 5, not 6"),
        (lambda x: fgsm(Linear(), x, x, -1.0, low=0.0, high=1.0), "eps must not be negative"),
        (lambda x: pgd(Linear(), x, x, 1.0, low=1.0, high=1.0), "range must be low < high"),
    ],
)
def test_refusals(call: object, message: str) -> None:
    with pytest.raises(SecateurError, match=message):
        call(torch.zeros(1, 1, 2, 3))  # type: ignore[operator]


@pytest.mark.parametrize("density", [0.0, 1.1, math.nan])
def test_sensitivity_takes_shares(density: float) -> None:
    x, y = samples()
    saliency = {"linear": torch.ones(1, 6)}
    with pytest.raises(SecateurError, match="densities must be above 0 and at most 1"):
        sensitivity(Linear(), lambda m: judged(m, x, y), saliency, 2, densities=[density])


def test_sensitivity_prunes_one_layer_and_no_other() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))
    x, y = samples(64)
    saliency = block_saliency(model, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()
    rows = sensitivity(model, lambda m: judged(m, x, y), saliency, 8, (1.0, 0.5))
    assert [(row.layer, row.density) for row in rows] == [
        ("0", 1.0), ("0", 0.5), ("3", 1.0), ("3", 0.5),
    ]  # fmt: skip
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    whole = judged(model, x, y)
    assert rows[0].figures == rows[2].figures == whole
    for row, name in ((rows[1], "0"), (rows[3], "3")):
        pruned = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))
        pruned.load_state_dict(before)
        prune(pruned, density=0.5, skip=["3" if name == "0" else "0"])
        assert row.figures == judged(pruned, x, y)
        assert row.figures != whole

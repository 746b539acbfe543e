"""Epochs: batches, memory formats, precisions, what is trained and what is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from secateur.errors import SecateurError
from secateur.pruning import density_of, distillation_loss
from secateur.pruning.recipes.data.data import Data
from secateur.pruning.recipes.tables import Phase, Prune, Qat, Training
from secateur.pruning.recipes.task.task import Task
from secateur.pruning.recipes.training import Trainer
from tests import parts

TINY = Path(__file__).parents[3] / "data" / "tiny.toml"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_only_the_networks_run_in_bfloat16(precision: str, share: float) -> None:
    part = Data.of(parts.data(0), "data").train
    training = Training(batch=10, precision=precision)
    for phase, narrowed in ((Phase(epochs=1, distil=share), True), (Qat(epochs=1), False)):
        ran, judged = set(), set()
        model, teacher = parts.model(0), parts.model(1)
        for network in (model, teacher):
            layer = next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d))
            layer.register_forward_hook(lambda module, inputs, output, to=ran: to.add(output.dtype))

        def loss(model, batch, to=judged):
            outputs = model(batch[0])
            to.add(outputs.dtype)
            return torch.nn.functional.cross_entropy(outputs, batch[1])

        trainer = Trainer(
            "train", model, part, phase, training, seed=0, task=Task(loss), teacher=teacher
        )
        ran.clear()
        trainer.run_epoch()
        assert ran == {getattr(torch, precision) if narrowed else torch.float32}
        assert judged == {torch.float32}
        assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_an_augmentation_that_fails_late_is_named() -> None:
    """From the fifth batch on: neither the data nor the learning rate is to blame."""
    calls = 0

    def augment(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return x if calls < 5 else x / 0

    trainer = Trainer(
        "train", parts.model(0), Data.of(parts.data(0), "data").train, Phase(epochs=1),
        Training(batch=10), seed=0, task=Task(), augment=augment,
    )  # fmt: skip
    with pytest.raises(SecateurError, match="augment gives infinite or NaN samples"):
        trainer.run_epoch()
    assert calls == 5


def _trainer(model: torch.nn.Module, split: object, phase: Phase, **options: object) -> Trainer:
    given = {"seed": 0, "task": Task()} | options
    part = Data.of(split, "data").train
    return Trainer("train", model, part, phase, Training(batch=10), **given)


def test_models_that_view_their_maps_are_trained() -> None:
    """Convolutions in channels-last memory give maps that cannot be viewed as vectors."""
    model = parts.Viewed()
    trainer = _trainer(model, parts.data(0), Phase(epochs=1))
    before = model.linear.weight.clone()
    trainer.run_epoch()
    assert not torch.equal(model.linear.weight, before)
    other = _trainer(parts.model(0), parts.data(0), Phase(epochs=1))
    assert other.format == torch.channels_last


@pytest.mark.parametrize(("samples", "sizes"), [(21, [10, 11]), (22, [10, 10, 2]), (1, [1])])
def test_a_last_sample_is_no_batch(samples: int, sizes: list[int], monkeypatch) -> None:
    split = {k: v[:samples] for k, v in parts.data(0).items()}
    monkeypatch.setattr(parts, "COUNTED", [])
    seen: list[tuple[int, int]] = []
    trainer = _trainer(
        parts.model(0), split, Phase(epochs=2), augment=parts.counted,
        before_batch=lambda *a: seen.append(a),
    )  # fmt: skip
    trainer.run_epoch()
    trainer.run_epoch()
    assert sizes * 2 == parts.COUNTED
    assert seen == [(i, 2 * len(sizes)) for i in range(2 * len(sizes))]


def test_the_lasso_leaves_skipped_layers_alone() -> None:
    model = parts.model(0)
    _trainer(model, parts.data(0), Phase(epochs=1, lasso=30.0), skip=["second"]).run_epoch()
    assert (model.first.weight == 0).any()
    assert not (model.second.weight == 0).any()


def test_a_parameter_is_trained_whatever_its_name() -> None:
    model = parts.model(0)
    model.second.logarithm = torch.nn.Parameter(torch.zeros(()))
    model.second.register_forward_hook(lambda module, x, y: y * torch.exp2(module.logarithm))
    _trainer(model, parts.data(0), Phase(epochs=1)).run_epoch()
    assert float(model.second.logarithm) != 0


def test_rates_start_over_in_each_round() -> None:
    data = Data.of(parts.data(0), "data")
    phase = Prune(epochs=4, steps=2, schedule="rewind", learning_rate=1e-2)
    training = Training(batch=10)
    model = parts.model(0)
    trainer = Trainer("prune", model, data.train, phase, training, seed=0, task=Task())
    used, optimizers = [], []
    for _ in range(4):
        trainer.run_epoch()
        used.append(trainer.optimizer.param_groups[0]["lr"])
        optimizers.append(trainer.optimizer)
    assert used[1] == used[3] < 1e-4 < used[0] == used[2]
    assert optimizers[0] is optimizers[1] is not optimizers[2]


def test_distillation_in_training_has_the_phase_s_share_and_temperature() -> None:
    data = Data.of(parts.data(0), "data")
    model, teacher = parts.model(0).eval(), parts.model(1).eval()
    phase = Phase(epochs=1, distil=0.6, temperature=2.5)
    training = Training(batch=200)
    trainer = Trainer(
        "train", model, data.train, phase, training, seed=0, task=Task(), teacher=teacher
    )
    x, y = data.train.some(200, 0)
    model.train = lambda mode=True: model  # its dropout is off
    expected = distillation_loss(model(x), teacher(x), y, temperature=2.5, share=0.6)
    assert trainer.run_epoch() == pytest.approx(expected.item(), rel=1e-6)


def test_a_lasso_leaves_blocks_of_zeros() -> None:
    data = Data.of(parts.data(0), "data")
    counts = []
    for strength in (0.0, 0.3):
        model = parts.model(0)
        phase = Phase(epochs=10, learning_rate=1e-2, lasso=strength)
        training = Training(batch=10)
        trainer = Trainer("train", model, data.train, phase, training, seed=0, task=Task())
        while not trainer.done:
            trainer.run_epoch()
        counts.append(sum(row.kept for row in density_of(model).layers))
    assert counts[1] < 0.8 * counts[0]

"""Epochs: batches, memory formats, precisions, what is trained and what is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from secateur.errors import SecateurError
from secateur.pruning.recipes.tables import Phase, Qat, Training
from secateur.pruning.recipes.training import Split, Trainer
from tests import parts

TINY = Path(__file__).parents[3] / "data" / "tiny.toml"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_only_the_networks_run_in_bfloat16(precision: str, share: float) -> None:
    split = Split.of(parts.data(0), "data")
    training = Training(batch=10, precision=precision)
    for phase, narrowed in ((Phase(epochs=1, distil=share), True), (Qat(epochs=1), False)):
        ran, judged = set(), set()
        model, teacher = parts.model(0), parts.model(1)
        for network in (model, teacher):
            layer = next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d))
            layer.register_forward_hook(lambda module, inputs, output, to=ran: to.add(output.dtype))

        def loss(outputs, targets, to=judged):
            to.add(outputs.dtype)
            return torch.nn.functional.cross_entropy(outputs, targets)

        trainer = Trainer(
            "train", model, split, phase, training, seed=0, loss=loss, teacher=teacher
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
        "train", parts.model(0), Split.of(parts.data(0), "data"), Phase(epochs=1),
        Training(batch=10), seed=0, loss=torch.nn.functional.cross_entropy, augment=augment,
    )  # fmt: skip
    with pytest.raises(SecateurError, match="augment gives infinite or NaN samples"):
        trainer.run_epoch()
    assert calls == 5


def _trainer(model: torch.nn.Module, split: object, phase: Phase, **options: object) -> Trainer:
    given = {"seed": 0, "loss": torch.nn.functional.cross_entropy} | options
    return Trainer("train", model, Split.of(split, "data"), phase, Training(batch=10), **given)


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

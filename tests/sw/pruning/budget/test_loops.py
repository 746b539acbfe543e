"""The pruner in the loops of Lightning and Accelerate: the masks of a loop without them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import secateur
from secateur.pruning.lightning import PrunerCallback
from secateur.pruning.units.mask import mask_of
from tests import killing, parts
from tests.sw.pruning.budget import trained_together

STEPS, CUTS, CYCLES, EPOCHS = 16, 4, 1500, 2


def loader() -> DataLoader[tuple[Tensor, ...]]:
    found = parts.data(3)
    return DataLoader(TensorDataset(found["train_x"], found["train_y"]), 16)


def example() -> Tensor:
    return parts.data(3)["train_x"][:16]


def masks(model: nn.Module) -> dict[str, Tensor]:
    found = {name: mask_of(layer) for name, layer in model.named_modules()}
    return {name: mask.mask.clone() for name, mask in found.items() if mask is not None}


def plain(accumulate: int = 1) -> dict[str, Tensor]:
    """The weights of a loop of one's own."""
    torch.manual_seed(0)
    model = parts.model(0)
    pruner = secateur.Pruner(model, example(), "8x8", cycles=CYCLES, steps=STEPS, cuts=CUTS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    model.train()
    for _ in range(EPOCHS):
        for at, (x, y) in enumerate(loader()):
            (F.cross_entropy(model(x), y) / accumulate).backward()
            if (at + 1) % accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
                pruner.step()
    pruner.finish()
    return model.state_dict()


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = parts.model(0)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.net.parameters(), lr=0.01, momentum=0.9)


@pytest.fixture(autouse=True)
def quiet() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def fitted(
    folder: Path,
    epochs: int,
    accumulate: int = 1,
    ckpt: Path | None = None,
    dropout: float = 0.1,
) -> Module:
    torch.manual_seed(0)
    module = Module()
    module.net.drop.p = dropout
    callback = PrunerCallback(
        module.net, example(), "8x8", cycles=CYCLES, steps=STEPS, cuts=CUTS
    )  # fmt: skip
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, accumulate_grad_batches=accumulate,
        callbacks=[callback, pl.callbacks.ModelCheckpoint(folder, "{epoch}", save_top_k=-1)],
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about workers and the use of few batches
        trainer.fit(module, loader(), ckpt_path=ckpt)
    assert callback.pruner is not None
    assert callback.pruner.done
    return module


def same(model: nn.Module, expected: dict[str, Tensor]) -> None:
    assert any((mask == 0).any() for mask in masks(model).values())
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("accumulate", [1, 2])
def test_lightning_prunes_as_a_loop_of_one_s_own(accumulate: int, tmp_path: Path) -> None:
    model = fitted(tmp_path, EPOCHS, accumulate).net
    same(model, plain(accumulate))
    image = secateur.compile(model.eval(), target="8x8", calibration=example())
    assert image.metadata["cycles"] <= CYCLES


def test_lightning_resumes_the_pruner(tmp_path: Path) -> None:
    """In the second epoch, from a checkpoint behind which a cut is left."""
    whole = fitted(tmp_path, EPOCHS, dropout=0.0)
    saved = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)
    (state,) = [value for key, value in saved["callbacks"].items() if "Pruner" in key]
    assert (state["steps"], state["cuts"]) == (10, CUTS - 1)
    resumed = fitted(tmp_path / "again", EPOCHS, ckpt=tmp_path / "epoch=0.ckpt", dropout=0.0)
    same(resumed.net, whole.net.state_dict())


@pytest.mark.long
def test_lightning_s_processes_have_the_same_masks(tmp_path: Path) -> None:
    line = [sys.executable, "-m", trained_together.__name__, str(tmp_path)]
    paths = {"PYTHONPATH": killing.PATHS, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(line, env=os.environ | paths, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first["seen"] != second["seen"]
    for kind in ("masks", "weights"):
        assert first[kind].keys() == second[kind].keys()
        for name, value in first[kind].items():
            assert torch.equal(value, second[kind][name]), (kind, name)
    assert any((mask == 0).any() for mask in first["masks"].values())


def test_accelerate_prunes_as_a_loop_of_one_s_own(tmp_path: Path) -> None:
    """Stopped after an epoch, and continued from what accelerate has saved."""
    for begin in range(EPOCHS):
        torch.manual_seed(0)
        accelerator = Accelerator(cpu=True)
        model = parts.model(0)
        pruner = secateur.Pruner(model, example(), "8x8", cycles=CYCLES, steps=STEPS, cuts=CUTS)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        model, optimizer, batches = accelerator.prepare(model, optimizer, loader())
        accelerator.register_for_checkpointing(pruner)
        if begin:
            accelerator.load_state(str(tmp_path / "state"))
        model.train()
        for x, y in batches:
            accelerator.backward(F.cross_entropy(model(x), y))
            optimizer.step()
            optimizer.zero_grad()
            pruner.step()
        accelerator.save_state(str(tmp_path / "state"))
    pruner.finish()
    same(accelerator.unwrap_model(model), plain())

"""A user's script: Lightning trains a model in two processes, and a callback prunes it.

    python -m tests.sw.pruning.budget.trained_together FOLDER

Lightning starts the second process, with the same arguments. Each writes its masks, its weights and
the sum of its samples to ``FOLDER/RANK.pt``. Alone, each would keep other blocks. In every step
DistributedDataParallel gives all processes the buffers of the first, masks included; so the last
cut is behind the last step.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from secateur.pruning.criteria.criteria import Random
from secateur.pruning.lightning import PrunerCallback
from secateur.pruning.units.blocks import prunable_layers
from secateur.pruning.units.mask import mask_of
from tests import parts

CYCLES = 1500


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.seen = parts.model(0), 0.0

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        x, y = batch
        self.seen += float(x.sum())
        return F.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.net.parameters(), lr=0.01)


def main(folder: Path) -> None:
    torch.manual_seed(0)
    module, data = Module(), parts.data(3)
    rank = int(os.environ.get("LOCAL_RANK", 0))
    callback = PrunerCallback(
        module.net, data["train_x"][:16], "8x8", cycles=CYCLES, steps=16, cuts=4,
        criterion=Random(seed=rank),
    )  # fmt: skip
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", devices=2, strategy="ddp", logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        default_root_dir=folder, callbacks=[callback],
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(data["train_x"], data["train_y"]), 16))
    assert callback.pruner is not None
    assert callback.pruner.done
    assert torch.distributed.get_backend() == "gloo"
    found = {name: mask_of(layer) for name, layer in prunable_layers(module.net).items()}
    masks = {name: mask.mask for name, mask in found.items() if mask is not None}
    weights = {name: value.detach() for name, value in module.net.named_parameters()}
    kept = {"masks": masks, "weights": weights, "seen": module.seen}
    torch.save(kept, folder / f"{trainer.global_rank}.pt")
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads now and then wait for a process that has gone


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Sizes of patches for a fine-tuned demo network: `python -m docs.tables.updates`."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path

import torch
from torch import nn

from secateur import api
from secateur.examples import demo_model
from secateur.image import delta
from secateur.pruning import prune
from secateur.quantisation.prepare import quantize

SEED = 0
CALIBRATION = 512


def compiled(network: nn.Module, images: demo_model.Data) -> bytes:
    """The image file of a network, calibrated on the same inputs each time."""
    drawn = torch.randperm(len(images.train_x), generator=torch.Generator().manual_seed(SEED))
    graph = quantize(copy.deepcopy(network), images.train_x[drawn[:CALIBRATION]])
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.sec"
        api.compile(graph, target="8x8").save(path)
        return path.read_bytes()


def main() -> None:
    """Train, prune, fine-tune in three ways; print what each patch takes, and check each."""
    images, network = demo_model.data(SEED), demo_model.model(SEED)
    demo_model.train(network, images, demo_model.EPOCHS, SEED)
    demo_model.prune_and_train(network, images, demo_model.PRUNE_EPOCHS, SEED)
    old = compiled(network, images)

    tuned = copy.deepcopy(network)
    demo_model.train(tuned, images, 1, SEED + 1, learning_rate=1e-4)
    fewer = copy.deepcopy(tuned)
    prune(fewer, density=0.24, skip=demo_model.SKIP)
    last = copy.deepcopy(network)
    for name, part in last.named_modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.0  # its statistics stay
        for parameter in part.parameters(recurse=False):
            parameter.requires_grad = name.startswith("linear")
    demo_model.train(last, images, 1, SEED + 1, learning_rate=1e-4)

    for name, changed in (
        ("all layers fine-tuned for an epoch, same masks", tuned),
        ("the same, and 24 % of the blocks instead of 25 %", fewer),
        ("last layer fine-tuned for an epoch", last),
    ):
        new = compiled(changed, images)
        patch = delta.make(old, new)
        if delta.apply(old, patch) != new:
            raise SystemExit(f"{name}: the patch gives another file")
        row = {"model": name, "patch": len(patch), "image": len(new)}
        row |= {"image_compressed": len(delta.compress(new))}
        print(json.dumps(row | {"share": round(len(patch) / len(new), 3)}), flush=True)


if __name__ == "__main__":
    main()

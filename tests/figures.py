"""README's figures for ResNet-8 on 8 x 8, printed as JSON: ``python -m tests.figures``."""

from __future__ import annotations

import json
import logging

import torch

from secateur.inspect import summary
from secateur.pruning import prune
from secateur.target import Target
from tests.networks import resnet8
from tests.pipeline import Built, build, compile_for

TARGET = Target.load("8x8")


def build_resnet8(density: float) -> Built:
    """ResNet-8 with random weights, this share of the blocks of every convolution but the first."""
    model, shape = resnet8(0)
    if density < 1:
        prune(model, density=density, n=8, skip=("c.0", "fc"))
    generator = torch.Generator().manual_seed(0)
    return build(model, torch.rand((8, *shape), generator=generator) * 255)


def figures(density: float) -> dict[str, float]:
    """Cycles, share of the bound over the convolutions, stream bits a dense weight."""
    found = summary(compile_for(build_resnet8(density), TARGET))
    convs = [layer for layer in found["layers"] if layer["kind"] == "conv"]
    bound = sum(layer["bound_cycles"] for layer in convs)
    return {
        "cycles": found["cycles"],
        "share_of_bound": bound / sum(layer["cycles"] for layer in convs),
        "bits_per_dense_weight": found["bits_per_dense_weight"],
        "words": found["words"],
    }


def main() -> None:
    """Print both networks."""
    logging.disable(logging.WARNING)
    print(json.dumps({"dense": figures(1.0), "quarter": figures(0.25)}, indent=1))


if __name__ == "__main__":
    main()

"""README's table, and figures of ResNet-8 on 8 x 8: ``python -m docs.tables.networks``."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import torch

from secateur.hw.spec import Geometry
from secateur.pruning import prune
from secateur.report.summary import dense_macs, summary
from secateur.target import Target
from tests.support.networks import MLPERF_TINY, mlperf_tiny, resnet8
from tests.support.pipeline import Built, build, compile_for

TARGET = Target.load("8x8")
#: The same array with room for the dense networks, and with pixel lanes alone or filter lanes, too.
PIXELS = Target(name="8x8", geometry=Geometry(n=8, p=8, weight_words=1 << 16, bank_words=8192))
ROOMY = replace(PIXELS, geometry=replace(PIXELS.geometry, s=8))


def build_resnet8(density: float) -> Built:
    """ResNet-8 with random weights, this share of the blocks of every convolution but the first."""
    model, shape = resnet8(0)
    if density < 1:
        prune(model, density=density, n=8, skip=("c.0", "fc"))
    generator = torch.Generator().manual_seed(0)
    return build(model, torch.rand((8, *shape), generator=generator) * 255)


def figures(density: float) -> dict[str, float]:
    """Cycles, share of the bound over the convolutions, stream bits per dense weight."""
    found = summary(compile_for(build_resnet8(density), TARGET))
    convs = [layer for layer in found["layers"] if layer["kind"] == "conv"]
    bound = sum(layer["bound_cycles"] for layer in convs)
    return {
        "cycles": found["cycles"],
        "share_of_bound": bound / sum(layer["cycles"] for layer in convs),
        "bits_per_dense_weight": found["bits_per_dense_weight"],
        "words": found["words"],
    }


def cycles(kind: type[torch.nn.Module]) -> dict[str, float]:
    """Cycles and utilisation of one of the four networks, dense and at a quarter of its blocks."""
    found = {}
    for name, density in (("dense", 1.0), ("quarter", 0.25)):
        model, shape = mlperf_tiny(kind, density)
        x = torch.rand((2, *shape), generator=torch.Generator().manual_seed(1))
        image = compile_for(build(model, x), ROOMY)
        result = summary(image)
        found[name] = result["cycles"]
        found[f"{name} of bound"] = result["bound_cycles"] / result["cycles"]
    return found | {"macs": dense_macs(image.metadata), "input words": result["input_words"]}


def row(kind: type[torch.nn.Module]) -> str:
    """The row of one network in README."""
    found = cycles(kind)
    cells = [kind.__name__, f"{found['macs'] / 1e6:.2f} M", f"{found['input words']:,}"]
    for name in ("dense", "quarter"):
        cells.append(f"{found[name]:,} ({found[f'{name} of bound']:.0%})")
    cells.append(f"{found['dense'] / found['quarter']:.2f} x")
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| network | multiply-accumulates | input words | cycles, dense | cycles, pruned | fewer |\n"
    "| --- | --- | --- | --- | --- | --- |"
)


def main() -> None:
    """Print README's table, and ResNet-8 in detail."""
    logging.disable(logging.WARNING)
    print("\n".join([HEAD, *map(row, MLPERF_TINY)]))
    resnet = {"dense": figures(1.0), "quarter": figures(0.25)}
    print(json.dumps({"ResNet-8": resnet}, indent=1))


if __name__ == "__main__":
    main()

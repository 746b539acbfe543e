"""Networks from the flash of a board, for ``docs/howto/larger-models.md``.

python -m docs.tables.larger_boards
"""

from __future__ import annotations

import logging

import torch
from torch import nn

from secateur.errors import SecateurError
from secateur.models import DSCNN, Autoencoder, MobileNetV1, ResNet8
from secateur.pruning import prune
from secateur.report.summary import summary
from secateur.target import Target
from tests.support.networks import Shape, mlperf_tiny
from tests.support.pipeline import Built, build, check_image, compile_for

#: Presets, with the clock in MHz of a board that holds each.
ENGINES = {"8x3-flash": 125, "8x8-25f-flash": 125, "8x16-flash": 125, "8x16-sdram": 125}
KINDS = (ResNet8, DSCNN, MobileNetV1, Autoencoder)


def wide_resnet(density: float) -> tuple[nn.Module, Shape]:
    """ResNet-8 with 40, 80 and 160 channels: 479,480 weights, 76.5 M multiply-accumulates."""
    torch.manual_seed(0)
    model = ResNet8((40, 80, 160)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean, std=0.3)
    if density < 1:
        prune(model, density=density, n=8, skip=("c.0", "fc"))
    return model, (3, 32, 32)


def rows() -> list[str]:
    """A row for each network and density: words, then milliseconds and waits on each engine."""
    found = []
    for name in (*(kind.__name__ for kind in KINDS), "ResNet 40/80/160"):
        for density in (1.0, 0.25):
            kind = next((kind for kind in KINDS if kind.__name__ == name), None)
            model, shape = wide_resnet(density) if kind is None else mlperf_tiny(kind, density)
            x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
            cells = [_cell(build(model, x), engine) for engine in ENGINES]
            found.append(f"| {name} | {density:g} | {' | '.join(cells)} |")
    return found


def _cell(built: Built, engine: str) -> str:
    """Milliseconds of inferences without a pause, and the share of them that are waits."""
    target = Target.load(engine)
    try:
        image = compile_for(built, target)
    except SecateurError:
        return "-"
    check_image(built, image, target.geometry)  # golden computes what PyTorch does
    figures = summary(image)
    wait = figures["ring"]["memory_wait"]["next"]
    total = figures["cycles"] + wait
    return f"{total / ENGINES[engine] / 1000:.2f} ({wait / total:.0%})"


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    for each in rows():
        print(each, flush=True)

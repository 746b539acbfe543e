"""Cycles from one inference to the next, for ``docs/explanation/array.md``.

python -m docs.tables.next_input
"""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from docs.tables.networks import ROOMY
from secateur.models import DSCNN, Autoencoder, MobileNetV1, ResNet8
from secateur.report.summary import summary
from tests.support.networks import mlperf_tiny
from tests.support.pipeline import build, check_image, compile_for

#: Networks, with the words of a bank.
CASES = (
    (ResNet8, 4096),
    (DSCNN, 4096),
    (MobileNetV1, 2048),
    (MobileNetV1, 8192),
    (Autoencoder, 1024),
)


def row(kind: type[torch.nn.Module], words: int) -> str:
    """The row of a network at a quarter of its blocks; golden counts the cycles, too."""
    model, shape = mlperf_tiny(kind, 0.25)
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
    target = replace(ROOMY, geometry=replace(ROOMY.geometry, bank_words=words))
    built = build(model, x)
    image = compile_for(built, target)
    check_image(built, image, target.geometry)
    found = summary(image)
    interval = found["interval"]
    ahead = f"{interval['cycles']:,}" if "opens" in interval else "no room"
    cells = f"{found['cycles']:,} | {interval['alone']:,} | {ahead}"
    return f"| {kind.__name__} | {words:,} | {cells} |"


if __name__ == "__main__":
    logging.getLogger("secateur").setLevel(logging.ERROR)
    print(
        "| network, at a quarter | words of a bank | an inference | input before | while it runs |"
    )
    print("| --- | --- | --- | --- | --- |")
    for each in CASES:
        print(row(*each), flush=True)

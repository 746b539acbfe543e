"""Networks whose maps fit the banks only in strips, for ``docs/howto/larger-models.md``.

python -m docs.tables.strips
"""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from torch import nn

from secateur.errors import SecateurError
from secateur.image.image import Image
from secateur.models import DSCNN, MobileNetV1, ResNet8
from secateur.target import Target
from tests.support.pipeline import Built, build, check_image, compile_for

#: Network, shape of its input, preset, and words of its banks if other than the preset's.
CASES: tuple[tuple[type[nn.Module], tuple[int, int, int], str, int], ...] = (
    (MobileNetV1, (3, 128, 128), "8x3-flash", 4096),
    (MobileNetV1, (3, 160, 160), "8x8-flash", 2048),
    (ResNet8, (3, 32, 32), "8x3-flash", 2048),
    (ResNet8, (3, 32, 32), "8x8-25f-flash", 512),
    (DSCNN, (1, 49, 10), "8x8-25f-flash", 1024),
    (MobileNetV1, (3, 96, 96), "8x8-25f-flash", 512),
)


def rows() -> list[str]:
    """A row for each case: words needed, strips, cycles and words of weights, then those without
    strips on banks that are large enough."""
    found = []
    for kind, shape, name, bank_words in CASES:
        torch.manual_seed(0)
        x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
        built, target = build(kind().eval(), x), Target.load(name)
        whole, depth = _whole(built, target, bank_words)
        cells = [kind.__name__, " x ".join(map(str, shape)), f"`{name}`, {bank_words}"]
        try:
            image = compile_for(built, _with(target, bank_words))
        except SecateurError:
            cells += ["-"] * 3
        else:
            check_image(built, image, image.geometry)  # golden computes what PyTorch does
            strips = image.metadata["strips"]
            what = "columns" if strips["axis"] else "rows"
            where = f"{strips['first']} to {strips['last']}"
            cells.append(f"{strips['count']} of {what}, {where}")
            cells += [f"{image.metadata['cycles']:,}", f"{len(image.words):,}"]
        cells += [f"{depth:,}", f"{whole.metadata['cycles']:,}", f"{len(whole.words):,}"]
        found.append(f"| {' | '.join(cells)} |")
    return found


def _with(target: Target, bank_words: int) -> Target:
    return replace(target, geometry=replace(target.geometry, bank_words=bank_words))


def _whole(built: Built, target: Target, bank_words: int) -> tuple[Image, int]:
    """The image without strips, and the banks that it takes."""
    while True:
        bank_words *= 2
        image = compile_for(built, _with(target, bank_words))
        if "strips" not in image.metadata:
            return image, bank_words


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    for each in rows():
        print(each, flush=True)

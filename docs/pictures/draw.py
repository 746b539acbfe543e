"""Draws all pictures of the site: ``python -m docs.pictures.draw FOLDER``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from docs.pictures import blocks, figures, lanes, sparsity, timing

PICTURES: dict[str, Callable[[], str]] = {
    "flow": blocks.flow,
    "engine": blocks.engine,
    "system": blocks.system,
    "granularity": sparsity.granularity,
    "block-csr": sparsity.block_csr,
    "windows": lanes.windows,
    "groups": lanes.groups,
    "requantise": lanes.rounding,
    "inference": timing.inference,
    "handshake": timing.handshake,
    "bus-read": timing.bus_read,
    "frame": timing.frame,
    "row-header": timing.row_header,
    "budget": figures.budget,
    "layers": figures.layers,
    "bank": figures.bank,
}


def draw(folder: Path) -> None:
    """Write NAME.svg for every picture; files that stay the same are not touched."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in PICTURES.items():
        path, text = folder / f"{name}.svg", picture()
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))

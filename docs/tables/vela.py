"""The table of compare.md, printed as Markdown: ``python -m docs.tables.vela``."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import torch

from docs.tables.networks import ROOMY
from secateur.report.compare import DEFAULT, MEMORY_MODE, SYSTEM_CONFIG, estimate, vela_version
from tests.support.networks import MLPERF_TINY, mlperf_tiny
from tests.support.pipeline import build, compile_for
from tests.support.tflite_networks import WRITERS

#: At least so many times fewer cycles than Vela's estimate: dense, and at a quarter of the blocks.
BARS = {kind: (1.8, 6.4) for kind in MLPERF_TINY} | {
    kind: (8.0, 22.0) for kind in MLPERF_TINY if kind.__name__ == "Autoencoder"
}


def our_cycles(kind: type[torch.nn.Module], density: float) -> int:
    """Cycles of one of the four networks on 8 x 8, as in README."""
    model, shape = mlperf_tiny(kind, density)
    x = torch.rand((2, *shape), generator=torch.Generator().manual_seed(1))
    return int(compile_for(build(model, x), ROOMY).metadata["cycles"])


def vela_cycles(kind: type[torch.nn.Module], accelerator: str) -> int:
    """Vela's estimate for the same network with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.tflite"
        WRITERS[kind](path)
        return estimate(path, accelerator).cycles


def main() -> None:
    """Print Vela's estimates, our cycles, and the ratios at 64 multipliers, with their bars."""
    logging.disable(logging.WARNING)
    print(f"Vela {vela_version()}, {SYSTEM_CONFIG}, {MEMORY_MODE}; cycles per inference.\n")
    print(f"| network | {' | '.join(DEFAULT)} | 8x8 dense | 8x8 at a quarter | ratios | bars |")
    print("| --- " * (len(DEFAULT) + 5) + "|")
    for kind, bars in BARS.items():
        vela = {name: vela_cycles(kind, name) for name in DEFAULT}
        ours = [our_cycles(kind, density) for density in (1.0, 0.25)]
        ratios = [vela["ethos-u55-64"] / cycles for cycles in ours]
        cells = [f"{cycles:,}" for cycles in (*vela.values(), *ours)]
        cells += [f"{ratios[0]:.2f} / {ratios[1]:.2f}", f"{bars[0]} / {bars[1]}"]
        print(f"| {kind.__name__} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""The table of networks from a ring, for ``docs/howto/larger-models.md``.

python -m docs.tables.larger_models
"""

from __future__ import annotations

import torch

from secateur import quantize
from secateur.compiler.encode import plan_and_encode
from secateur.compiler.prepare import runnable
from secateur.compiler.stream.waits import predict
from secateur.hw.ring import Source
from secateur.hw.spec import Geometry
from secateur.lowering.lower import lower
from secateur.models import DSCNN, Autoencoder, MobileNetV1, ResNet8
from tests.support.networks import mlperf_tiny

RINGS = (1024, 2048, 4096)
INTERVALS = (1, 4)


def rows() -> list[str]:
    """A row for each of the four networks with each ring."""
    found = []
    for kind in (ResNet8, DSCNN, MobileNetV1, Autoencoder):
        model, shape = mlperf_tiny(kind, 1.0)
        x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
        network = lower(quantize(model.eval(), x))
        for ring in RINGS:
            geometry = Geometry(n=8, p=8, weight_words=1 << 16, bank_words=8192, ring=ring)
            planned, encoded = plan_and_encode(runnable(network, geometry), geometry)
            waits = [
                sum(predict(planned, encoded, geometry, Source(interval=interval))[-1])
                for interval in INTERVALS
            ]
            cells = [f"{value:,}" for value in (len(encoded.words), encoded.cycles, ring, *waits)]
            found.append(f"| {kind.__name__} | {' | '.join(cells)} |")
    return found


if __name__ == "__main__":
    print("\n".join(rows()))

"""A layer that copies a tensor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from secateur.ir import Layer, Source, Tensor


def copy_layer(tensor: Tensor, name: str, output: Tensor | None = None, first: int = 0) -> Layer:
    """A layer that writes the codes of ``tensor`` to a tensor of its own, or to ``output`` as many
    of its channels as that has, from ``first`` on."""
    count = tensor.channels if output is None else output.channels
    none = np.zeros(count, dtype=np.int64)
    low, high = (-128, 127) if tensor.signed else (0, 255)
    if output is None:
        output = replace(tensor, name=name, slices=[tensor.channels])
    return Layer(
        name=name,
        kind="copy",
        sources=[Source(tensor, "lanewise", np.ones((count, 1, 1), dtype=np.int64), first=first)],
        output=output,
        bias=none,
        shift=none.copy(),
        low=low,
        high=high,
    )

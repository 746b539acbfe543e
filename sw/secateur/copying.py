"""A layer that copies channels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from secateur.ir import Layer, Part, Source


def copy_layer(part: Part, name: str, to: Part | None = None) -> Layer:
    """A layer that writes the codes of ``part`` to ``to``, or else to a tensor of its own."""
    tensor = part.tensor
    if to is None:
        to = replace(tensor, name=name, channels=part.channels, slices=[]).all
    none = np.zeros(part.channels, dtype=np.int64)
    ones = np.ones((part.channels, 1, 1), dtype=np.int64)
    low, high = (-128, 127) if tensor.signed else (0, 255)
    return Layer(
        name=name,
        kind="copy",
        sources=[Source(tensor, "lanewise", ones, first=part.first)],
        output=to.tensor,
        bias=none,
        shift=none.copy(),
        low=low,
        high=high,
        first=to.first,
    )

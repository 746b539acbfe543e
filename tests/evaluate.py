"""Layer-by-layer evaluation of an ir.Network with torch in float64: an oracle for images.

It knows the arithmetic of ``sw/ir.py`` and nothing of geometries, streams or banks.
"""

from __future__ import annotations

import numpy as np
import torch

from secateur.ir import Layer, Network, Source, Tensor


def _source(source: Source, x: torch.Tensor) -> torch.Tensor:
    top, left, bottom, right = source.padding
    weight = torch.from_numpy(np.asarray(source.weight)).double()
    if source.wshift:
        weight = weight * 16
    x = x[:, source.first : source.first + source.count]
    fill = -(2.0**40) if source.mode == "maximum" else 0.0
    x = torch.nn.functional.pad(x, (left, right, top, bottom), value=fill)
    if source.mode == "maximum":
        return torch.nn.functional.max_pool2d(
            x, source.kernel, source.stride, dilation=source.dilation
        )
    groups = 1
    if source.mode == "lanewise":
        weight, groups = weight[:, None], source.count
    return torch.nn.functional.conv2d(
        x, weight, stride=source.stride, dilation=source.dilation, groups=groups
    )


def evaluate(network: Network, x: np.ndarray) -> dict[Layer, np.ndarray]:
    """Codes (batch, channels, H, W) that each layer writes, for input codes ``x``."""
    values: dict[Tensor, torch.Tensor] = {network.input: torch.from_numpy(x).double()}
    written = {}
    for layer in network.layers:
        out = layer.output
        acc = sum(_source(source, values[source.tensor]) for source in layer.sources)
        acc = acc[:, :, : out.height, : out.width]
        scale = torch.from_numpy(2.0 ** -layer.shift.astype(float)).view(1, -1, 1, 1)
        bias = torch.from_numpy(layer.bias / 8.0).view(1, -1, 1, 1)
        codes = torch.round(acc * scale + bias).clamp(layer.low, layer.high)
        if out not in values:
            shape = (len(x), out.channels, out.height, out.width)
            values[out] = torch.zeros(shape, dtype=torch.float64)
        values[out][:, layer.first : layer.first + layer.channels] = codes
        written[layer] = codes.numpy().astype(np.int64)
    return written

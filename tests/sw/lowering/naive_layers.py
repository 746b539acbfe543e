"""A naive evaluator of ir.Network, by the definition of ir.Layer: int64 loops over the window."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from secateur.ir import Layer, Network, Source, Tensor

Ints = npt.NDArray[np.int64]


def evaluate(network: Network, codes: Ints) -> dict[str, Ints]:
    """Codes (N, C, H, W) that each layer writes, by layer name, for input codes (N, C, H, W)."""
    tensors: dict[Tensor, Ints] = {network.given[0]: codes}
    results = {}
    for layer in network.layers:
        out = layer.output
        if out not in tensors:
            tensors[out] = np.full((len(codes), out.channels, out.height, out.width), 1 << 40)
        result = _layer(layer, tensors)
        tensors[out][:, layer.first : layer.first + layer.channels] = result
        results[layer.name] = result
    return results


def _layer(layer: Layer, tensors: dict[Tensor, Ints]) -> Ints:
    if layer.sources[0].mode == "gate":
        gate, whole = (tensors[s.tensor][:, s.first : s.first + s.count] for s in layer.sources)
        total: object = gate * whole
    else:
        total = sum(_source(s, tensors[s.tensor]) << (4 * s.wshift) for s in layer.sources)
    assert isinstance(total, np.ndarray)
    result = np.empty_like(total)
    for channel in range(layer.channels):
        shift = int(layer.shift[channel])
        # value = numerator / 2**(shift + 3)
        numerator = (total[:, channel] << 3) + (int(layer.bias[channel]) << shift)
        result[:, channel] = _round_half_even(numerator, shift + 3)
    result = np.clip(result, layer.low, layer.high)
    if layer.table is None:
        return result
    entries = layer.table.entries[result % 256]
    return np.where(layer.output.signed & (entries > 127), entries - 256, entries)


def _round_half_even(numerator: Ints, bits: int) -> Ints:
    floor = numerator >> bits
    twice = 2 * (numerator - (floor << bits))
    half = 1 << bits
    return floor + ((twice > half) | ((twice == half) & (floor % 2 == 1)))


def _source(source: Source, codes: Ints) -> Ints:
    top, left, bottom, right = source.padding
    x = codes[:, source.first : source.first + source.count]
    assert (x < 1 << 20).all(), "reads channels that no layer has written"
    maximum = source.mode == "maximum"
    fill = -128 if maximum and source.tensor.signed else 0
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    (ky, kx), (sy, sx), (dy, dx) = source.kernel, source.stride, source.dilation
    height = (x.shape[2] - dy * (ky - 1) - 1) // sy + 1
    width = (x.shape[3] - dx * (kx - 1) - 1) // sx + 1
    terms: list[Ints] = []
    for i in range(ky):
        for j in range(kx):
            rows = slice(i * dy, i * dy + sy * (height - 1) + 1, sy)
            columns = slice(j * dx, j * dx + sx * (width - 1) + 1, sx)
            view = x[:, :, rows, columns]
            if source.mode == "broadcast":
                terms.append(np.einsum("nchw,oc->nohw", view, source.weight[:, :, i, j]))
            else:
                terms.append(view * source.weight[:, i, j][:, None, None])
    combine = np.maximum if maximum else np.add
    return np.asarray(combine.reduce(terms))

"""The overflow certificate: no input can overflow an accumulator or leave float32's exact range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.errors import SecateurError
from secateur.hw import spec
from secateur.ir import Ints, Layer, Network


@dataclass(frozen=True)
class Certificate:
    """Largest magnitudes over all inputs and output channels of a layer.

    ``accumulator`` < 2**(ACC_BITS - 1): the array does not overflow. ``reference`` <= 2**24, on the
    finest grid of products and bias: PyTorch's float32 sums are exact in any order.
    """

    accumulator: int
    reference: int


def accumulator_bounds(layer: Layer) -> Ints:
    """(channels,) sum of |weight| times the largest |activation code|, over all sources; of a
    product, that of the largest codes."""
    total = np.zeros(layer.channels, dtype=np.int64)
    if layer.sources[0].mode == "gate":
        gate, whole = (128 if source.tensor.signed else 255 for source in layer.sources)
        return total + gate * whole
    for source in layer.sources:
        largest = 128 if source.tensor.signed else 255
        weight = np.abs(source.weight).reshape(layer.channels, -1)
        summed = weight.max(axis=1) if source.mode == "maximum" else weight.sum(axis=1)
        total += summed * largest << (spec.WSHIFT if source.wshift else 0)
    return total


def certify(network: Network) -> dict[Layer, Certificate]:
    """Prove every layer.

    Raises
    ------
    SecateurError : a channel's worst case does not fit
    """
    certificates = {}
    for layer in network.layers:
        sums = accumulator_bounds(layer)
        finer = np.maximum(0, spec.BIAS_FRACTION - layer.shift)
        bias = np.abs(layer.bias) << np.maximum(0, layer.shift - spec.BIAS_FRACTION)
        exact = (sums << finer) + bias
        limit = 1 << spec.ACC_BITS - 1
        if sums.max() >= limit or exact.max() > 1 << 24:
            channel = int(np.argmax(exact))
            raise SecateurError(
                f"layer {layer.name!r}, output channel {channel}: the worst-case sum "
                f"{int(sums[channel])} must stay below {limit} (with bias {int(exact[channel])} "
                f"at most {1 << 24}); quantise the model with secateur.quantize, which coarsens "
                f"such weights, or prune the layer"
            )
        certificates[layer] = Certificate(int(sums.max()), int(exact.max()))
    return certificates

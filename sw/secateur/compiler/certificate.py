"""Proofs that a network fits the array: no overflow for any input, and fields for all numbers.

The overflow certificate: no input can overflow an accumulator or leave float32's exact range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.compiler.schedule import Plan
from secateur.errors import SecateurError, TargetTooSmall
from secateur.hw import spec
from secateur.ir import Ints, Layer, Network
from secateur.quantisation.scales import reach


@dataclass(frozen=True)
class Certificate:
    """Largest magnitudes over all inputs and output channels of a layer.

    Attributes
    ----------
    accumulator : of the sum; below 2**(ACC_BITS - 1), so that the array does not overflow
    reference : of sum and bias, on the finer of their grids; at most 2**24, so that PyTorch's
        float32 sums are exact in any order
    """

    accumulator: int
    reference: int


def accumulator_bounds(layer: Layer) -> Ints:
    """(channels,) largest magnitude of a sum of weight * code over any of its terms.

    Of a product of two tensors, the product of their largest codes.
    """
    if layer.sources[0].mode == "gate":
        gate, whole = (128 if source.part.signed else 255 for source in layer.sources)
        return np.full(layer.channels, gate * whole)
    sums = np.zeros((2, layer.channels), dtype=np.int64)
    for source in layer.sources:
        low, high = (-128, 127) if source.part.signed else (0, 255)
        weight = source.weight[:, :1, :1] if source.mode == "maximum" else source.weight
        sums += reach(weight, low, high) << (spec.WSHIFT if source.wshift else 0)
    return np.asarray(sums.max(0))


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


def check_fields(plan: Plan) -> None:
    """Check that the stream and the array have fields and modes for all of a plan.

    Raises
    ------
    SecateurError : a layer needs a mode that the target's lanes do not have, a map has too many
        words, or weights, biases or shifts are out of range
    """
    _check_modes(plan)
    _check_maps(plan)
    for layer in plan.network.layers:
        _check_numbers(layer)


def _check_modes(plan: Plan) -> None:
    """Refuse layers with modes that the target's lanes do not have."""
    if plan.geometry.extended:
        return
    for layer in plan.network.layers:
        modes = {source.mode for source in layer.sources} & {"maximum", "gate"}
        if modes:
            what = "max pooling" if "maximum" in modes else "a product of two tensors"
            raise TargetTooSmall(
                f"layer {layer.name!r} is {what}, which the target's lanes do not support "
                f"(extended = false)"
            )


def _check_maps(plan: Plan) -> None:
    """Refuse maps whose words cannot be numbered; no layer writes more pixels than its map has."""
    limit = spec.MAP_WORDS
    for layout in (*plan.layouts.values(), *plan.results.values()):
        if layout.words > limit:
            tensor = layout.tensor
            raise SecateurError(
                f"tensor {tensor.name!r} ({tensor.channels} x {tensor.height} x {tensor.width}) "
                f"takes {layout.words} words with its padding, a map has at most {limit}; cut the "
                f"input into tiles, or the layer's channels into several layers"
            )


def _check_numbers(layer: Layer) -> None:
    half = 1 << spec.BIAS_BITS - 1
    spread = int(layer.shift.max() - layer.shift.min())
    legal = (
        ("bias codes", bool((-half <= layer.bias).all() and (layer.bias < half).all())),
        ("shifts", 0 <= layer.shift.min() < 1 << spec.SHIFT_BASE_BITS),
        ("shifts", spread < 1 << spec.SHIFT_DELTA_BITS),
        ("weights", all(abs(s.weight).max() <= 128 for s in layer.sources)),
    )
    for what, good in legal:
        if not good:
            raise SecateurError(
                f"layer {layer.name!r}: its {what} do not fit the stream's fields; quantise the "
                f"model with secateur.quantize, which keeps them in range"
            )

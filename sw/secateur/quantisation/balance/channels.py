"""Factors of the channels of an output, where these have unlike ranges: boxes beside scores.

Codes of a tensor have one scale. Where a channel of an output uses less than an eighth of them, its
row of weights and its bias are multiplied by a power of two, by which the host divides. Other
outputs keep one factor, and so do vectors, such as the scores of classes: their codes can be
compared.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from secateur.capture.outputs import output_nodes
from secateur.capture.steps import state_pairs
from secateur.fx.graph import RELU, constant, is_call, shape_of
from secateur.fx.moves import with_samples_first
from secateur.quantisation.balance.layers import FloatLayer, FloatLayers, constant_along, uniform

#: Bits that a channel must leave unused.
_UNUSED = 3
#: Bits of a code.
_BITS = 8


def outputs_alone(layers: FloatLayers) -> dict[Node, Node]:
    """The values that products compute for an output alone, and that output."""
    ends = {layer.end: layer for layer in layers.layers}
    read = {
        part for layer in layers.layers for value in _reads(layer) for part in layers.parts(value)
    }
    read |= {part for _, after in state_pairs(layers.gm) for part in layers.parts(after)}
    found: dict[Node, list[Node]] = {}
    for output in output_nodes(layers.gm):
        for part in layers.parts(output):
            found.setdefault(part, []).append(output)
    return {
        part: outputs[0]
        for part, outputs in found.items()
        if len(outputs) == 1
        and not with_samples_first(outputs[0])[1]
        and len(shape_of(outputs[0])) > 1
        and part not in read
        and part in ends
        and _scales(layers.gm, ends[part])
    }


def _reads(layer: FloatLayer) -> list[Node]:
    arguments = [] if layer.function is None else [layer.function.argument]
    inputs = [product.all_input_nodes[0] for product in layer.products]
    return [*inputs, *layer.terms, *layer.factors, *arguments]


def _scales(gm: GraphModule, layer: FloatLayer) -> bool:
    """Whether each channel of it can be multiplied by a factor of its own."""
    clipped = layer.clip is not None and not is_call(layer.clip, RELU)
    averages = any(uniform(p, constant(gm, cast(Node, p.args[1]))) for p in layer.products)
    return bool(layer.products) and not (layer.terms or clipped or averages)


def channel_factors(
    layers: FloatLayers, outputs: dict[Node, Node], peaks: dict[Node, Tensor]
) -> dict[Node, Tensor]:
    """Powers of two, (C,), of the values that have channels of unlike ranges.

    Parameters
    ----------
    layers : of a canonical float graph
    outputs : of it, as `outputs_alone` finds them
    peaks : of the values of these the largest magnitude of every channel, (C,)
    """
    bits = {
        part: torch.tensor([_unused(float(peak.max()), float(each)) for each in peak])
        for part, peak in peaks.items()
    }
    found = {part: torch.exp2(each) for part, each in bits.items() if bool(each.any())}
    return {
        part: factors
        for part, factors in found.items()
        if numbered(layers, outputs[part], found) is not None
    }


def _unused(top: float, peak: float) -> int:
    unused = math.floor(math.log2(top / peak)) if peak else 0
    return min(unused, _BITS) if unused >= _UNUSED else 0


def numbered(
    layers: FloatLayers, output: Node, channels: dict[Node, Tensor]
) -> tuple[int, list[int]] | None:
    """The dimension of an output along which its parts, and of some parts the channels, follow each
    other; and the number of each: those of the parts before, and its channel, if it has one.

    Parameters
    ----------
    layers : of the graph
    output : of it
    channels : factors of parts, (C,); others have no channels
    """
    numbers, first = {}, 0
    for part in layers.parts(output):
        shape, count = shape_of(part), len(channels[part]) if part in channels else 1
        each = np.arange(first, first + count).reshape([-1] + [1] * (len(shape) - 1))
        numbers[part], first = np.broadcast_to(each, shape), first + count
    return constant_along(layers.traced(output, numbers))

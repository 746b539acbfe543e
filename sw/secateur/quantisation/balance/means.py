"""Factors with which the weights of averages are codes exactly.

All weights of an average are one number. Rounded to 8 bits it is wrong by up to 0.4 %, everywhere
in the same direction, and so is the result. A factor of the tensor that the average computes can
make that number a code.
"""

from __future__ import annotations

import math
from typing import cast

from torch.fx import Node

from secateur.fx.graph import constant
from secateur.quantisation.balance.layers import FloatLayer, FloatLayers
from secateur.quantisation.balance.ties import Ties, log_factor

#: A code is a multiple of this: it stays one where an exponent is raised, by two bits at most.
_MULTIPLE = 4
_LARGEST = 128


def exact_means(layers: FloatLayers, ties: Ties, chosen: dict[Node, float]) -> None:
    """Change factors by 3 % at most, so that weights that are all one number are codes.

    Parameters
    ----------
    layers : of a canonical float graph
    ties : between the factors of its tensors
    chosen : logarithms of the free factors, changed in place
    """
    settled: set[Node] = set()
    for layer in layers.layers:
        weight = _weight(layers, layer)
        if weight is None:
            continue
        parts = layers.parts(cast(Node, layer.products[0].args[0]))
        before, after = [ties.sum(part) for part in parts], ties.sum(layer.end)
        used = {node for found in before for node in found}
        free = [n for n, count in after.items() if abs(count) == 1 and n not in settled | used]
        logs = {log_factor(found, chosen) for found in before}
        if free and len(logs) == 1:
            wanted = math.log2(weight) + log_factor(after, chosen) - logs.pop()
            change = _log_of_code(wanted) - wanted
            chosen[free[0]] += after[free[0]] * change
            settled |= used | after.keys()


def _weight(layers: FloatLayers, layer: FloatLayer) -> float | None:
    """The magnitude of all weights of a layer; None if it is not that of all."""
    if len(layer.products) != 1 or layer.terms:
        return None
    weight = constant(layers.gm, cast(Node, layer.products[0].args[1])).double().abs()
    found = float(weight.max())
    return found if found and bool(((weight == found) | (weight == 0)).all()) else None


def _log_of_code(log: float) -> float:
    """That of the nearest number that is a code."""
    whole = math.floor(log)
    code = _MULTIPLE * round(2.0 ** (log - whole) * _LARGEST / 2 / _MULTIPLE)
    return whole + math.log2(2 * code / _LARGEST)

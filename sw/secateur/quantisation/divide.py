"""Sums of so many terms that their weights lose bits become sums of parts.

The largest sum must stay inside the accumulator, and coarser weights see to that. A part of the
sum needs them less. Its result is rounded to 8 bits once more, which costs less than the bits of
the weights where there are thousands of terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch.fx import GraphModule, Node

from secateur.fx.graph import CAT, MUL, Editor, argument
from secateur.hw.spec import ACC_BITS
from secateur.quantisation.observed import ObservedLayer, Product, rounding
from secateur.quantisation.scales import reach

#: The noise of a layer as it is, by that of the same in parts, from which on parts are worth it.
_WORTH = 2.0
#: By that of fewer parts.
_CLEARLY = 1.25
#: A sum is cut into this many parts at most.
_MOST = 8
#: Largest value of a sum that is not clipped, by its root mean square.
_CREST = 3.0


def divide(graph: GraphModule, layers: list[ObservedLayer]) -> bool:
    """Cut the sums of which the weights lose bits to the accumulator; whether there is one.

    Parameters
    ----------
    graph : canonical, is changed; calibrate it again afterwards
    layers : of a graph prepared from it, harmonised
    """
    names = {node.name: node for node in graph.graph.nodes}
    editor, changed = Editor(graph), False
    for layer in layers:
        for product in layer.products:
            parts = _parts(layer, product)
            if parts > 1 and product.node.name in names:
                _cut(editor, names[product.node.name], parts)
                changed = True
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return changed


def _parts(layer: ObservedLayer, product: Product) -> int:
    """The number of parts with the least noise of the layer; 1 if it is not worth it."""
    rows = product.codes(product.best)
    most = reach(rows, product.x.quant_min, product.x.quant_max).max(0)
    excess = np.ceil(np.log2(np.maximum(most, 1) / (1 << ACC_BITS - 1))).astype(np.int64)
    if excess.max() <= 0:
        return 1
    whole, exponents = layer.noise(), product.exponents()
    least, best, parts = whole / _WORTH, 1, 2
    while parts <= min(_MOST, product.inputs):
        saved = np.clip(excess, 0, int(math.log2(parts)))
        finer = np.minimum(exponents, np.maximum(product.best, exponents - saved))
        gain = float((product.noise(exponents) - product.noise(finer)).mean())
        noise = whole - gain + parts * rounding(_stored(product, parts))
        if noise < least:
            least, best = noise / _CLEARLY, parts
        parts *= 2
    return best


def _stored(product: Product, parts: int) -> int:
    """Exponent of the stored result of a part of a product, estimated."""
    squares = np.square(product.rows).sum(1) * product.power / parts
    return math.ceil(math.log2(max(_CREST * math.sqrt(float(squares.max())), 1e-30) / 127))


def _cut(editor: Editor, node: Node, parts: int) -> None:
    """A product as the sum of ``parts``, each of some of the input channels.

    One layer computes all parts, as channels: its weights of other inputs are zeros, which cost
    nothing. Another adds them up, exactly, and rounds once.
    """
    weight, bias = cast(Node, node.args[1]), argument(node, 2, None)
    outputs, inputs, *kernel = (int(n) for n in weight.meta["val"].shape)
    target, ones = cast(Callable[..., Any], node.target), [1] * len(kernel)
    with editor.gm.graph.inserting_before(node):
        rows = []
        for channels in torch.arange(inputs).tensor_split(parts):
            mask = torch.zeros(1, inputs, *ones)
            mask[:, channels] = 1
            mask_node = editor.attach("_part", mask, trained=False)
            rows.append(editor.call(MUL, weight, mask_node, like=node))
        joined = editor.call(CAT, rows, 0, like=node)
        partial = editor.call(target, node.args[0], joined, None, *node.args[3:], like=node)
        each = torch.eye(outputs).repeat(1, parts).reshape(outputs, -1, *ones)
        total = editor.call(
            target, partial, editor.attach("_sum", each, trained=False), bias, like=node
        )
    node.replace_all_uses_with(total)
    editor.gm.graph.erase_node(node)

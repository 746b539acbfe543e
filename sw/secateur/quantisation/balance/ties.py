"""Which factors of stored tensors depend on each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import cast

import numpy as np
from torch.fx import Node

from secateur.capture.outputs import output_nodes
from secateur.capture.steps import state_pairs
from secateur.fx.graph import active_nodes
from secateur.fx.moves import is_move
from secateur.quantisation.balance.layers import FloatLayers

#: Logarithms of factors that a logarithm is the sum of, and how often.
Sum = Counter[Node]


class Ties:
    """The logarithm of every stored tensor's factor as a sum of free ones.

    Logarithms are equal where tensors are added up, or where one layer or the host reads both and
    cannot tell them apart. That of a product of two tensors is the sum of theirs. Those of inputs,
    states and outputs are zero.

    Parameters
    ----------
    layers : of a canonical float graph
    """

    def __init__(self, layers: FloatLayers) -> None:
        self._sums: dict[Node, Sum] = {node: Counter([node]) for node in layers.stored}
        self._layers = layers
        for node in layers.stored:
            if node.op == "placeholder":
                self._fix([node])
            elif is_move(node):
                self._fix([node, *(p for n in self._read(node) for p in layers.parts(n))])
        for before, after in state_pairs(layers.gm):
            self._fix([before, *layers.parts(after)])
        for output in output_nodes(layers.gm):
            self._fix(layers.parts(output))
        for layer in layers.layers:
            if layer.function is not None:
                self._equal(layers.parts(layer.function.argument))
            self._equal([layer.end, *(p for term in layer.terms for p in layers.parts(term))])
            for product in layer.products:
                if layers.columns(product) is None:
                    self._equal(layers.parts(cast(Node, product.args[0])))
            for factor in layer.factors:
                self._equal(layers.parts(factor))
        for layer in (layer for layer in layers.layers if layer.factors):
            first, second = (layers.parts(factor)[0] for factor in layer.factors)
            self._zero(self._minus(self._minus(self.sum(layer.end), first), second))

    def sum(self, node: Node) -> Sum:
        """The free logarithms that a stored tensor's is the sum of."""
        return Counter(self._sums[node])

    def free(self) -> list[Node]:
        """Tensors of which the logarithms can be chosen, in order."""
        used = {node for found in self._sums.values() for node in found}
        return [node for node in self._sums if node in used]

    def _read(self, move: Node) -> list[Node]:
        active = active_nodes(self._layers.gm)
        return [n for n in move.all_input_nodes if n in active and n.meta.get("val") is not None]

    def _minus(self, found: Sum, node: Node) -> Sum:
        found = Counter(found)
        found.subtract(self._sums[node])
        return found

    def _equal(self, nodes: list[Node]) -> None:
        for node in nodes[1:]:
            self._zero(self._minus(self.sum(nodes[0]), node))

    def _fix(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            self._zero(self.sum(node))

    def _zero(self, found: Sum) -> None:
        """From now on this sum is zero: one logarithm follows from the others.

        Where none does, because all count several times, all are zero.
        """
        found = Counter({node: count for node, count in found.items() if count})
        if not found:
            return
        single = next((node for node, count in found.items() if abs(count) == 1), None)
        if single is None:
            for node in list(found):
                self._put(node, Counter())
            return
        sign = -found.pop(single)
        self._put(single, Counter({node: sign * count for node, count in found.items()}))

    def _put(self, node: Node, value: Sum) -> None:
        for held in self._sums.values():
            count = held.pop(node, 0)
            for other, times in value.items() if count else ():
                held[other] += count * times
                if not held[other]:
                    del held[other]


def log_factor(found: Sum, chosen: Mapping[Node, float]) -> float:
    """Logarithm of a factor, of the free ones' that are chosen."""
    return float(np.sum([count * chosen[node] for node, count in found.items()]))

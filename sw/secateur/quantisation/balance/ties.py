"""Which factors of stored tensors depend on each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod
from typing import TypeVar, cast

from torch.fx import Node
from torch.fx.node import map_arg

from secateur.capture.outputs import output_nodes
from secateur.capture.steps import state_pairs
from secateur.fx.functions import Function
from secateur.fx.graph import aten, constant, is_call, shape_of
from secateur.fx.moves import is_move
from secateur.hw.spec import MAX_TABLES
from secateur.quantisation.balance.layers import FloatLayers

#: Values of a map that are worth a table of their own.
_LARGE = 1024
#: Results jump where the argument passes a number.
_COMPARISONS = (
    aten.gt.Scalar, aten.ge.Scalar, aten.lt.Scalar, aten.le.Scalar, aten.eq.Scalar, aten.ne.Scalar,
    aten.sign.default,
)  # fmt: skip
Log = TypeVar("Log", int, float)
#: Logarithms of factors that a logarithm is the sum of, and how often.
Sum = Counter[Node]


class Ties:
    """The logarithm of every stored tensor's factor as a sum of free ones.

    Logarithms are equal where tensors are added up, or where one layer or the host reads both and
    cannot tell them apart. That of a product of two tensors is the sum of theirs. Those of inputs
    and states are zero, and of what is compared: codes of equal tensors then differ by zero.

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
            # A state that nothing reads is not stored, and is refused later.
            self._fix(n for n in (before, *layers.parts(after)) if n in self._sums)
        for output in output_nodes(layers.gm):
            if layers.along(output) is None:
                self._equal(layers.parts(output))
        for layer in layers.layers:
            if layer.function is not None:
                self._equal(layers.parts(layer.function.argument))
                if _steps(layer.function):
                    self._fix(layers.parts(layer.function.argument))
            self._equal([layer.end, *(p for term in layer.terms for p in layers.parts(term))])
            for product in layer.products:
                parts, columns = layers.parts(cast(Node, product.args[0])), layers.columns(product)
                every = [range(len(parts))] if columns is None else columns.together
                for together in every:
                    self._equal([parts[index] for index in together])
            for factor in layer.factors:
                self._equal(layers.parts(factor))
        for same in _one_table(layers):
            self._equal([layers.parts(function.argument)[0] for function in same])
            self._equal([function.nodes[-1] for function in same])
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
        return [
            n
            for n in move.all_input_nodes
            if n in self._layers.active and n.meta.get("val") is not None
        ]

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


def _steps(function: Function) -> bool:
    """Whether it compares something with a number."""
    return any(is_call(node, *_COMPARISONS) for node in function.nodes)


def _one_table(layers: FloatLayers) -> list[list[Function]]:
    """Functions that should share a table.

    Where there are more functions than slots, a table of one's own is filled for every layer. That
    is little work beside a map, but more than a vector: as in every step of a sequence.
    """
    functions = [layer.function for layer in layers.layers if layer.function is not None]
    if len(functions) <= MAX_TABLES:
        return []
    alike: dict[str, list[Function]] = {}
    for function in functions:
        if prod(shape_of(function.nodes[-1])) < _LARGE:
            alike.setdefault(_spelling(layers, function), []).append(function)
    return list(alike.values())


def _spelling(layers: FloatLayers, function: Function) -> str:
    """What a function computes, as a text: operations, constants, and places of the nodes."""
    names = {node: f"node {index}" for index, node in enumerate(function.nodes)}

    def said(node: Node) -> str:
        if node in names:
            return names[node]
        fixed = node not in layers.active
        return str(constant(layers.gm, node).tolist()) if fixed else "argument"

    calls = ((n.target, map_arg(n.args, said), map_arg(n.kwargs, said)) for n in function.nodes)
    return str(list(calls))


def log_factor(found: Sum, chosen: Mapping[Node, Log]) -> Log:
    """Logarithm of a factor, of the free ones' that are chosen."""
    return sum(count * chosen[node] for node, count in found.items())

"""The layers of a canonical float graph: what each reads, and which factors it can give."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch.fx import GraphModule, Node

from secateur.capture.export import batch_of
from secateur.errors import SecateurError
from secateur.fx.functions import Function, functions_of
from secateur.fx.graph import (
    ACTIVATIONS,
    ADD,
    CONV,
    MAX_POOL,
    MUL,
    PRODUCTS,
    active_nodes,
    constant,
    is_call,
    shape_of,
)
from secateur.fx.moves import Moved, Numbers, is_move, moved, sources_of, with_samples_first
from secateur.quantisation.annotate import stored_nodes, stored_parts


@dataclass(eq=False)
class FloatLayer:
    """What computes a stored value.

    Attributes
    ----------
    end : the node with the value
    clip : its activation, if it has one
    products : convolutions and linears
    terms : values that are added without weights
    factors : the two values of which it is the product
    function : the function by table that it is
    """

    end: Node
    clip: Node | None = None
    products: list[Node] = field(default_factory=list)
    terms: list[Node] = field(default_factory=list)
    factors: list[Node] = field(default_factory=list)
    function: Function | None = None


@dataclass(frozen=True)
class Columns:
    """What the columns of a product's weights read.

    Attributes
    ----------
    part : of the weights' shape, or one that broadcasts to it: the index of a part, -1 for none
    together : parts that one column reads, which must have one factor
    """

    part: Numbers
    together: list[tuple[int, ...]]


def uniform(product: Node, weight: torch.Tensor) -> bool:
    """Whether all channels of a depthwise convolution have the same weights: an average, a copy.

    A row of the array then serves any block of channels. It is worth keeping them the same.
    """
    depthwise = is_call(product, CONV) and weight.shape[0] > 1 == weight.shape[1]
    return depthwise and bool((weight == weight[:1]).all())


def constant_along(numbers: Numbers | None) -> tuple[int, list[int]] | None:
    """The dimension along which alone numbers change, and the number at each of its places; None
    if there is none, or one is negative.
    """
    if numbers is None or bool((numbers < 0).any()):
        return None
    for axis in range(numbers.ndim):
        places = np.moveaxis(numbers, axis, 0).reshape(numbers.shape[axis], -1)
        if bool((places == places[:, :1]).all()):
            return axis, places[:, 0].tolist()
    return None


class FloatLayers:
    """The stored values of a canonical graph, and the layers that compute them.

    Attributes
    ----------
    stored : nodes of which the values are stored
    layers : of those that layers or functions compute
    active : nodes that depend on the input
    """

    def __init__(self, gm: GraphModule) -> None:
        self.gm = gm
        self.stored = stored_nodes(gm)
        self._known, self._functions = set(self.stored), functions_of(gm.graph)
        self.active = active_nodes(gm)
        self.layers = [
            self._layer(node)
            for node in self.stored
            if node.op != "placeholder" and not is_move(node)
        ]

    def _layer(self, end: Node) -> FloatLayer:
        layer = FloatLayer(end)
        if end in self._functions:
            layer.function = self._functions[end]
            return layer
        body = end
        if is_call(end, *ACTIVATIONS):
            layer.clip, body = end, cast(Node, end.args[0])
        if is_call(body, MUL):
            layer.factors = cast(list[Node], list(body.args[:2]))
            return layer
        for node in cast(list[Node], body.args[:2] if is_call(body, ADD) else [body]):
            own = is_call(node, *PRODUCTS) and (node is body or node not in self._known)
            (layer.products if own else layer.terms).append(node)
        return layer

    def parts(self, value: Node) -> list[Node]:
        """The stored values that a value consists of."""
        return stored_parts(value)

    def origins(self, value: Node) -> Numbers | None:
        """Of every number in a value, without samples, the index of its part, -1 for a constant.

        None if that depends on the values.
        """
        parts = self.parts(value)
        if len(parts) == 1:
            return np.zeros(shape_of(value), np.int64)
        return self.traced(value, {p: np.full(shape_of(p), index) for index, p in enumerate(parts)})

    def traced(self, value: Node, given: dict[Node, Numbers]) -> Numbers | None:
        """Of every number in a value, without samples, which one it is of its parts, -1 for a
        constant; None if that depends on the values.

        Parameters
        ----------
        value : a stored value, or moves of such
        given : of every number in its parts what stands for it, not negative
        """
        least, most = self._origins(value, given, -1), self._origins(value, given, 1)
        same = least is not None and most is not None and np.array_equal(least, most)
        return least if same else None

    def _origins(self, value: Node, parts: dict[Node, Numbers], sign: int) -> Numbers | None:
        """As `traced`, with the largest (sign 1) or smallest of a pooling's window."""
        if value in parts:
            return parts[value]
        if is_call(value, MAX_POOL):
            below = self._origins(cast(Node, value.args[0]), parts, sign)
            if below is None:
                return None
            pooled = MAX_POOL(sign * torch.from_numpy(below)[None].double(), *value.args[1:])
            return np.asarray((sign * pooled)[0].long().numpy())
        if not is_move(value):
            return None
        given = {}
        for source in (n for n in sources_of(value) if n in self.active):
            numbers = self._origins(source, parts, sign)
            if numbers is None:
                return None
            given[source] = Moved(numbers, np.zeros(numbers.shape))
        try:
            found = moved(value, given, self._constant, batch_of(self.gm))
        except SecateurError:  # samples are moved, too
            return None
        return found.numbers

    def along(self, value: Node) -> tuple[int, list[int]] | None:
        """The dimension of a value in parts along which these follow each other, without samples,
        and the part at each of its places; None if there is none, or constants are among them.
        """
        return None if with_samples_first(value)[1] else constant_along(self.origins(value))

    def _constant(self, node: Node) -> torch.Tensor:
        return constant(self.gm, node)

    def columns(self, product: Node) -> Columns | None:
        """The parts of its input that the weights of a product are multiplied by.

        None if these depend on the values, or all parts must have one factor.
        """
        origins = self.origins(cast(Node, product.args[0]))
        if origins is None:
            return None
        shape = tuple(int(n) for n in cast(Node, product.args[1]).meta["val"].shape)
        linear = len(shape) == 2
        flat = origins.reshape(-1, shape[1]).T if linear else origins.reshape(len(origins), -1)
        found = flat.max(1)
        together = sorted({tuple(np.unique(row[row >= 0]).tolist()) for row in flat})
        if linear:
            return Columns(found[None], together)
        weight = constant(self.gm, cast(Node, product.args[1]))
        if uniform(product, weight) and len(set(found.tolist())) > 1:
            return None
        groups = len(found) // shape[1]
        of_groups = found.reshape(groups, shape[1])
        rows = np.repeat(of_groups, shape[0] // groups, axis=0)
        return Columns(rows[..., None, None], together)

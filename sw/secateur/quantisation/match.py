"""Read hardware layers back from a prepared (observed) or converted (q/dq) graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from torch.fx import GraphModule, Node

from secateur.canonical.supported import unsupported
from secateur.fx.functions import functions_of
from secateur.fx.graph import (
    ACTIVATIONS,
    ADD,
    MAX_POOL,
    MUL,
    PRODUCTS,
    activation_bounds,
    argument,
    is_call,
    is_zero_pad,
    leaves,
    pad_amounts,
    refuse,
)
from secateur.fx.inputs import unscaled
from secateur.fx.moves import is_move, sources_of


def is_quantise(node: object) -> bool:
    """Whether the node is a quantise operation of PT2E."""
    return _has_target(node, "quantized_decomposed.quantize_per_")


def is_dequantise(node: object) -> bool:
    """Whether the node is a dequantise operation of PT2E."""
    return _has_target(node, "quantized_decomposed.dequantize_per_")


def _has_target(node: object, prefix: str) -> bool:
    return (
        isinstance(node, Node)
        and node.op == "call_function"
        and str(node.target).startswith(prefix)
    )


def is_stored(node: object) -> bool:
    """Whether the node's value is that of codes: an observer, a dequantise or moves of those."""
    return isinstance(node, Node) and (
        node.op == "call_module" or is_dequantise(node) or is_call(node, MAX_POOL) or is_move(node)
    )


@dataclass
class Operand:
    """One source of a layer.

    Attributes
    ----------
    value : the stored value that it reads
    product : the conv2d or linear node; None for a tensor that is added without weights
    padding : (top, left, bottom, right) of the pad nodes between the two
    """

    value: Node
    product: Node | None = None
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def weight(self) -> Node:
        """The weight as the product reads it (observed or dequantised)."""
        assert self.product is not None
        return cast(Node, self.product.args[1])

    @property
    def bias(self) -> Node | None:
        """The bias of the product, (O,), if it has one."""
        return None if self.product is None else argument(self.product, 2, None)


@dataclass
class Match:
    """The nodes of one layer.

    Attributes
    ----------
    result : its last node before the observer or quantise
    operands : one or two
    low, high : bounds of its activation, real values
    nodes : all nodes, in order
    multiplies : whether it is the product of the two operands, not their sum
    """

    result: Node
    operands: list[Operand]
    low: float = float("-inf")
    high: float = float("inf")
    nodes: list[Node] = field(default_factory=list)
    multiplies: bool = False


def match_layer(result: Node) -> Match:
    """The layer whose output is the quantised node ``result``.

    Raises
    ------
    SecateurError : the nodes between stored values and ``result`` are not one layer
    """
    match = Match(result, [])
    body = result
    if is_call(body, *ACTIVATIONS):
        match.low, match.high = activation_bounds(body)
        match.nodes.insert(0, body)
        body = cast(Node, body.args[0])
    if is_call(body, ADD):
        match.nodes.insert(0, body)
        match.operands = [_operand(cast(Node, a), body, match) for a in body.args[:2]]
        match.operands.sort(key=lambda o: o.product is None)
    elif is_call(body, MUL):
        match.nodes.insert(0, body)
        match.operands = [_factor(cast(Node, a), body) for a in body.args[:2]]
        match.multiplies = True
    elif is_call(body, *PRODUCTS):
        match.operands = [_operand(body, result, match)]
    elif is_stored(body):
        raise refuse(
            result, "an activation on a stored tensor", "requantise with secateur.quantize"
        )
    else:
        raise unsupported(body)
    return match


def _operand(node: Node, user: Node, match: Match) -> Operand:
    product = None
    if is_call(node, *PRODUCTS):
        product = node
        match.nodes.insert(0, node)
        user, node = node, cast(Node, node.args[0])
    padding = (0, 0, 0, 0)
    while is_zero_pad(node):
        top, left, bottom, right = pad_amounts(node)
        padding = (
            padding[0] + top, padding[1] + left, padding[2] + bottom, padding[3] + right,
        )  # fmt: skip
        match.nodes.insert(0, node)
        user, node = node, cast(Node, node.args[0])
    if not is_stored(node):
        raise refuse(
            user,
            f"reads {node.name}, which is not quantised",
            "requantise with secateur.quantize",
        )
    return Operand(node, product, padding)


def _factor(node: Node, user: Node) -> Operand:
    if not is_stored(node):
        raise refuse(
            user, f"multiplies {node.name}, which is not quantised", "multiply layers' outputs"
        )
    return Operand(node)


def stored_roots(value: Node) -> list[Node]:
    """The observers or dequantise nodes that a stored value consists of."""

    def parts(node: Node) -> list[Node]:
        if is_move(node):
            return sources_of(node)
        return [cast(Node, node.args[0])] if is_call(node, MAX_POOL) else []

    return [leaf for leaf in leaves(value, parts) if leaf.op != "get_attr"]


def observed_layers(gm: GraphModule) -> list[tuple[Match, Node]]:
    """Layers of a prepared graph in execution order, each with its output observer node.

    A weight's observer is not a layer, nor is that of an input, or of a function that is looked up.
    """
    layers, functions = [], functions_of(gm.graph)
    active: set[Node] = set()
    for node in gm.graph.nodes:
        if node.op == "placeholder" or any(n in active for n in node.all_input_nodes):
            active.add(node)
        if node.op == "call_module" and node in active:
            result = cast(Node, node.args[0])
            if unscaled(result).op == "placeholder" or result in functions or is_move(result):
                continue
            layers.append((match_layer(result), node))
    return layers

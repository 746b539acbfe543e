"""What the host computes: of inputs with an exponent per channel, of integers, and of outputs.

In a graph such an input is ``mul(placeholder, factors)``, and that is what is quantised. An output
is ``mul(stored, number)``, or ``mul(stored, factors)``. Of integers it is ``embedding(table,
placeholder)`` in place of the placeholder.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
from torch.fx import GraphModule, Node

from secateur.fx.graph import MUL, aten, constant, is_call, rank_of, refuse, shape_of

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def is_looked_up(node: object) -> bool:
    """Whether a node is what the host finds for integers in a table."""
    if not isinstance(node, Node) or not is_call(node, aten.embedding.default):
        return False
    table, x = cast(tuple[Node, Node], node.args[:2])
    return x.op == "placeholder" and table.op == "get_attr"


def is_scaled_input(node: object) -> bool:
    """Whether a node is an input multiplied by a tensor of constants."""
    if not isinstance(node, Node) or not is_call(node, MUL):
        return False
    x, factors = node.args[:2]
    return (
        isinstance(x, Node)
        and (x.op == "placeholder" or is_looked_up(x))
        and isinstance(factors, Node)
        and factors.op == "get_attr"
    )


def unscaled(node: Node) -> Node:
    """The input of a node that may be a scaled one, or looked up."""
    node = cast(Node, node.args[0]) if is_scaled_input(node) else node
    return cast(Node, node.args[1]) if is_looked_up(node) else node


def table_of(gm: GraphModule, node: Node) -> Floats | None:
    """The table, (V, D), in which an input is looked up, if it is.

    Parameters
    ----------
    gm : the graph
    node : an input, perhaps scaled, perhaps looked up
    """
    node = cast(Node, node.args[0]) if is_scaled_input(node) else node
    if not is_looked_up(node):
        return None
    return constant(gm, cast(Node, node.args[0])).float().numpy()


def in_units(output: Node) -> tuple[Node, Floats]:
    """The stored value of an output, and what the host multiplies it by.

    Returns
    -------
    node : the output itself, if it is not multiplied by positive numbers along one dimension
    factors : float32, a number or of as many dimensions as the output, with its samples; one of
        them has several
    """
    factor: object
    x, factor = output.args[:2] if is_call(output, MUL) else (output, 1.0)
    if isinstance(factor, Node) and factor.op == "get_attr":
        factor = constant(cast(GraphModule, output.graph.owning_module), factor).numpy()
    if isinstance(factor, float | np.ndarray):
        found = np.asarray(factor, np.float32)
        sizes = [1] * (rank_of(output) - found.ndim) + list(found.shape) if found.ndim else []
        alone = not sizes or (sizes[0] == 1 and sum(size > 1 for size in sizes) == 1)
        if alone and bool((found > 0).all() and np.isfinite(found).all()):
            return cast(Node, x), found.reshape(sizes)
    return output, np.ones((), np.float32)


def finer_of(gm: GraphModule, node: Node) -> Ints:
    """What an input's exponents are above that of its codes: whole numbers that broadcast to it.

    Parameters
    ----------
    gm : the graph
    node : an input, or a scaled one

    Returns
    -------
    exponents : of as many dimensions as the input without samples; one of them has several

    Raises
    ------
    SecateurError : the factors are not powers of two along one dimension
    """
    shape = shape_of(node)
    if not is_scaled_input(node):
        return np.zeros([1] * len(shape), np.int64)
    factors = constant(gm, cast(Node, node.args[1])).double().numpy()
    factors = factors.reshape([1] * (len(shape) + 1 - factors.ndim) + list(factors.shape))
    mantissa, exponents = np.frexp(factors)
    sizes = factors.shape[1:]
    if len(factors) > 1 or (mantissa != 0.5).any() or sum(size > 1 for size in sizes) > 1:
        what = "an input by factors that are not powers of two, one per channel"
        raise refuse(node, what, "put the factors into the weights of the layers that read it")
    return np.asarray(1 - exponents[0], np.int64)

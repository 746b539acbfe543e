"""Arithmetic with constants, differences, products and PReLU, in operations of the array."""

from __future__ import annotations

from typing import cast

import torch
from torch.fx import Node

from secateur.canonical.pool import depthwise
from secateur.fx.graph import (
    ADD,
    MUL,
    RELU,
    VIEW,
    Editor,
    active_nodes,
    argument,
    aten,
    constant,
    rank_of,
    refuse,
    shape_of,
)

_SUB, _NEG = aten.sub.Tensor, aten.neg.default
_RSUB = (aten.rsub.Scalar, aten.rsub.Tensor)
_DIV = aten.div.Tensor
ARITHMETIC = (ADD, MUL, _SUB, _NEG, *_RSUB, _DIV, aten.mul.Scalar, aten.add.Scalar)


def arithmetic(editor: Editor, node: Node) -> Node | None:
    """``node`` as an add or a product of two tensors, or as a depthwise convolution.

    Returns
    -------
    node : the equivalent, inserted before ``node``; None to keep it

    Raises
    ------
    SecateurError : it is not one of these
    """
    if node.target is _NEG:
        return _scaled(editor, cast(Node, node.args[0]), -1.0, node)
    if float(node.kwargs.get("alpha", argument(node, 2, 1))) != 1:
        raise refuse(node, "a sum or difference with alpha", "scale a weight instead")
    if node.target is _DIV:
        product = _product_of_quotient(editor, node)
        return arithmetic(editor, product) or product
    active = active_nodes(editor.gm)
    a, b = node.args[:2]
    if node.target in _RSUB:
        a, b = b, a
    subtracts = node.target is _SUB or node.target in _RSUB
    if isinstance(a, Node) and a in active and isinstance(b, Node) and b in active:
        if subtracts:
            return editor.call(ADD, a, _scaled(editor, b, -1.0, node), like=node)
        return _gate_first(editor, node, a, b) if node.target is MUL else None
    if isinstance(a, Node) and a in active:
        x, other = a, b
    else:
        x, other = cast(Node, b), a
    if node.target in (MUL, aten.mul.Scalar):
        return _scaled(editor, x, other, node)
    if not subtracts:
        return _shifted(editor, x, 1.0, other, node)
    if x is a:
        return _shifted(editor, x, 1.0, _negative(editor, other, node), node)
    return _shifted(editor, x, -1.0, other, node)


def _product_of_quotient(editor: Editor, node: Node) -> Node:
    """a / b as (1 / b) * a."""
    a, b = node.args[:2]
    if isinstance(b, Node):
        inverse = editor.call(aten.reciprocal.default, b, like=node)
        return editor.call(MUL, inverse, a, like=node)
    if float(cast(float, b)) == 0:
        raise refuse(node, "divides by zero", "divide by something else")
    return editor.call(MUL, a, 1.0 / float(cast(float, b)), like=node)


def prelu(editor: Editor, node: Node) -> Node:
    """One slope for all channels: a function to look up. One each: x + (1 - slope) * relu(-x)."""
    x, weight = cast(Node, node.args[0]), cast(Node, node.args[1])
    if weight.op != "get_attr":
        raise refuse(node, "slopes that are computed", "make them a parameter")
    if shape_of_constant(weight)[0] == 1:
        slope = float(constant(editor.gm, weight))
        return editor.call(aten.leaky_relu.default, x, slope, like=node)
    negative = editor.call(RELU, _scaled(editor, x, -1.0, node), like=node)
    rest = editor.call(aten.rsub.Scalar, weight, 1.0, like=node)
    return editor.call(ADD, x, depthwise(editor, negative, rest, None, like=node), like=node)


def shape_of_constant(node: Node) -> tuple[int, ...]:
    """Shape of a parameter or buffer."""
    return tuple(int(n) for n in node.meta["val"].shape)


def _gate_first(editor: Editor, node: Node, a: Node, b: Node) -> Node | None:
    """A product of two tensors; one of shape (N, C, 1, 1), if there is one, comes first."""
    one = [rank_of(x) == 4 and shape_of(x)[1:] == (1, 1) for x in (a, b)]
    if one[1] and not one[0]:
        return editor.call(MUL, b, a, like=node)
    return None


def _negative(editor: Editor, value: object, like: Node) -> object:
    if isinstance(value, Node):
        return editor.call(_NEG, value, like=like)
    return -float(cast(float, value))


def _vector(editor: Editor, x: Node, value: object, like: Node) -> Node:
    """A constant as one value per channel of ``x``, (channels,).

    Raises
    ------
    SecateurError : the constant has another shape
    """
    channels = shape_of(x)[0]
    if not isinstance(value, Node):
        same = torch.full((channels,), float(cast(float, value)))
        return editor.attach("_constant", same, trained=False)
    shape, rank = shape_of_constant(value), rank_of(x)
    padded = (1,) * (rank - len(shape)) + shape
    if len(padded) != rank or any(n != 1 for i, n in enumerate(padded) if i != 1):
        raise refuse(
            like,
            f"a constant of shape {shape} with a tensor of {rank} dimensions",
            "give one value, or one per channel",
        )
    flat = editor.call(VIEW, value, [padded[1]], like=like)
    if flat.meta["val"].dtype != torch.float32:  # a mask of bool, numbers of int64
        flat = editor.call(aten.to.dtype, flat, torch.float32, like=like)
    if padded[1] == channels:
        return flat
    ones = editor.attach("_constant", torch.ones(channels), trained=False)
    return editor.call(MUL, ones, flat, like=like)


def _scaled(editor: Editor, x: Node, factor: object, like: Node) -> Node:
    return depthwise(editor, x, _vector(editor, x, factor, like), None, like=like)


def _shifted(editor: Editor, x: Node, factor: float, term: object, like: Node) -> Node:
    scale, bias = _vector(editor, x, factor, like), _vector(editor, x, term, like)
    return depthwise(editor, x, scale, bias, like=like)

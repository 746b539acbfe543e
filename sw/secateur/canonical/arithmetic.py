"""Arithmetic with constants, differences, products and PReLU, in operations of the array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch.fx import Node

from secateur.canonical.pool import AVERAGE_WEIGHT, depthwise
from secateur.fx.graph import (
    ADD,
    FLATTEN,
    MUL,
    PRODUCTS,
    RELU,
    VIEW,
    Editor,
    active_nodes,
    argument,
    aten,
    constant,
    is_call,
    rank_of,
    refuse,
    shape_of,
)

Op = Callable[..., Any]

_SUB, _NEG = aten.sub.Tensor, aten.neg.default
_RSUB = (aten.rsub.Scalar, aten.rsub.Tensor)
_DIV = aten.div.Tensor
ARITHMETIC = (ADD, MUL, _SUB, _NEG, *_RSUB, _DIV, aten.mul.Scalar, aten.add.Scalar)


def arithmetic(editor: Editor, node: Node) -> Node | None:
    """``node`` as an add or a product of two tensors, or folded into a convolution.

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
    active = active_nodes(editor.gm)
    a, b = node.args[:2]
    if node.target is _DIV:
        if not (isinstance(b, Node) and b in active):
            return _scaled(editor, cast(Node, a), _inverse(editor, b, node), node)
        product = editor.call(MUL, _inverse(editor, b, node), a, like=node)
        return arithmetic(editor, product) or product
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


def _inverse(editor: Editor, value: object, like: Node) -> object:
    if isinstance(value, Node):
        return editor.call(aten.reciprocal.default, value, like=like)
    if float(cast(float, value)) == 0:
        raise refuse(like, "divides by zero", "divide by something else")
    return 1.0 / float(cast(float, value))


def prelu(editor: Editor, node: Node) -> Node:
    """One slope for all channels: a function to look up. One each: x + (1 - slope) * relu(-x)."""
    x, weight = cast(Node, node.args[0]), cast(Node, node.args[1])
    if weight.op != "get_attr":
        raise refuse(node, "slopes that are computed", "make them a parameter")
    if shape_of_constant(weight)[0] == 1:
        slope = float(constant(editor.gm, weight))
        return editor.call(aten.leaky_relu.default, x, slope, like=node)
    minus = depthwise(editor, x, _vector(editor, x, -1.0, node), None, like=node)
    negative = editor.call(RELU, minus, like=node)
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
    if not isinstance(factor, Node) and float(cast(float, factor)) == 1:
        return x
    return _affine(editor, x, _vector(editor, x, factor, like), None, like)


def _shifted(editor: Editor, x: Node, factor: float, term: object, like: Node) -> Node:
    if not isinstance(term, Node) and float(cast(float, term)) == 0:
        return _scaled(editor, x, factor, like)
    scale = None if factor == 1 else _vector(editor, x, factor, like)
    return _affine(editor, x, scale, _vector(editor, x, term, like), like)


def _affine(editor: Editor, x: Node, scale: Node | None, term: Node | None, like: Node) -> Node:
    """``scale[c] * x[c] + term[c]``: in the weights and bias of the convolution or linear that
    makes ``x`` if nothing else reads it, otherwise as a depthwise convolution.
    """
    below = cast(Node, x.args[0]) if is_call(x, VIEW, FLATTEN) and len(x.users) == 1 else x
    if below is not x and is_call(below, *PRODUCTS) and shape_of(below) == (*shape_of(x), 1, 1):
        folded = _affine(editor, below, scale, term, like)
        return editor.call(cast(Op, x.target), folded, *x.args[1:], like=x)
    if not (is_call(x, *PRODUCTS) and len(x.users) == 1):
        if scale is None:
            scale = _vector(editor, x, 1.0, like)
        return depthwise(editor, x, scale, term, like=like)
    weight, bias = cast(Node, x.args[1]), argument(x, 2, None)
    if scale is not None:
        weight = _times(editor, weight, scale, like)
        bias = bias if bias is None else editor.call(MUL, bias, scale, like=like)
    if term is not None:
        bias = term if bias is None else editor.call(ADD, bias, term, like=like)
    return editor.call(cast(Op, x.target), x.args[0], weight, bias, *x.args[3:], like=x)


def _times(editor: Editor, weight: Node, scale: Node, like: Node) -> Node:
    """A weight, each output channel times its scale; an average stays one."""
    columns = [-1, *[1] * (len(shape_of_constant(weight)) - 1)]
    factors = constant(editor.gm, scale)
    if str(weight.target).startswith(AVERAGE_WEIGHT) and bool((factors >= 0).all()):
        scaled = constant(editor.gm, weight) * factors.reshape(columns)
        return editor.attach(AVERAGE_WEIGHT, scaled, trained=False)
    return editor.call(MUL, weight, editor.call(VIEW, scale, columns, like=like), like=like)

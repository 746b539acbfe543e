"""Sums, differences and products with constants, and of tensors, in operations of the array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch.fx import Node

from secateur.canonical.norm import fold
from secateur.canonical.pool import depthwise
from secateur.canonical.samples import placed
from secateur.fx.graph import (
    ADD,
    MUL,
    PRODUCTS,
    RELU,
    VIEW,
    Editor,
    argument,
    aten,
    constant,
    is_call,
    is_trained,
    rank_of,
    refuse,
    shape_of,
)
from secateur.fx.moves import is_move, is_size, padding_value, varying_nodes

_SUB, _NEG = aten.sub.Tensor, aten.neg.default
_RSUB = (aten.rsub.Scalar, aten.rsub.Tensor)
_DIV = aten.div.Tensor
_PERMUTES = (aten.permute.default, aten.transpose.int, aten.movedim.int)
ARITHMETIC = (ADD, MUL, _SUB, _NEG, *_RSUB, _DIV, aten.mul.Scalar, aten.add.Scalar)
Value = Node | float


def arithmetic(editor: Editor, node: Node, readers: frozenset[Node] = frozenset()) -> Node | None:
    """``node`` as an add or a product of two tensors, or as a line, a * x + b.

    Parameters
    ----------
    editor : of the graph
    node : a sum, difference, product or quotient
    readers : other nodes that read its operands, and are replaced with it

    Returns
    -------
    node : the equivalent, inserted before ``node``; None to keep it

    Raises
    ------
    SecateurError : it is not one of these
    """
    a, b = cast(tuple[Value, Value], node.args[:2])
    factor = 1.0
    if is_size(a) or is_size(b):
        raise refuse(node, "depends on the number of samples", "compute with numbers")
    if node.target is _DIV:
        b = _inverse(editor, b, node)
    elif not is_call(node, MUL):
        factor = float(cast(float, node.kwargs.get("alpha", argument(node, 2, 1))))
        factor = -factor if node.target in (_SUB, *_RSUB) else factor
    if node.target in _RSUB:
        a, b = b, a
    varying = varying_nodes(editor.gm.graph)
    product = is_call(node, MUL, _DIV)
    if a in varying and b in varying:
        first, second = a, b
        if product:
            return _gate_first(editor, node, first, second)
        return _sum(editor, first, second, factor, node)
    x, other = (a, b) if a in varying else (cast(Node, b), a)
    other = _narrowed(editor, other, node) if isinstance(other, Node) else other
    axis = _axis(x, other) if isinstance(other, Node) else None
    if axis is not None:
        return _along(editor, node, x, cast(Node, other), axis)
    if product:
        vector = _vector(editor, x, other, node)
        if vector is None:
            whole = placed(editor, cast(Node, other), shape_of(node), node)
            return editor.call(MUL, x, whole, like=node)
        return line(editor, x, vector, None, like=node, readers=readers)
    vector = _vector(editor, x, other, node)
    if vector is None:
        whole = placed(editor, cast(Node, other), shape_of(node), node)
        return _sum(editor, *((x, whole) if x is a else (whole, x)), factor, node)
    if x is a:
        shift = _times(editor, vector, factor, node)
        return line(editor, x, 1.0, shift, like=node, readers=readers)
    return line(editor, x, factor, vector, like=node, readers=readers)


def _narrowed(editor: Editor, value: Node, like: Node) -> Node:
    """A constant without the dimensions along which it is the same everywhere; parameters stay."""
    while is_call(value, aten.expand.default):
        value = cast(Node, value.args[0])
    if not is_trained(editor.gm, value):
        found = constant(editor.gm, value)
        for axis, size in enumerate(found.shape):
            first = found.narrow(axis, 0, min(1, size))
            if size > 1 and bool((found == first).all()):
                found, value = first, editor.call(aten.narrow.default, value, axis, 0, 1, like=like)
    return value


def _axis(x: Node, value: Node) -> int | None:
    """The dimension along which alone a constant varies, if moves have put channels there."""
    shape, rank = tuple(int(n) for n in value.meta["val"].shape), rank_of(x)
    axes = [rank - len(shape) + i for i, n in enumerate(shape) if n != 1]
    if len(axes) != 1 or axes[0] <= 1 or shape_of(x)[axes[0] - 1] != max(shape):
        return None
    before = x
    while is_move(before) and isinstance(before.args[0], Node):
        if is_call(before, *_PERMUTES):
            return axes[0]
        before = before.args[0]
    return None


def _along(editor: Editor, node: Node, x: Node, value: Node, axis: int) -> Node:
    """Arithmetic with one value for each place along an axis, which becomes that of the channels.

    Parameters
    ----------
    editor : of the graph
    node : of ``x`` and ``value``
    x, value : the tensor, and the constant
    axis : of ``x``
    """
    readers: frozenset[Node] = frozenset()
    if is_call(x, *_PERMUTES) and _order(x)[axis] == 1:
        first = cast(Node, x.args[0])
        readers = frozenset([x] if x.users.keys() <= {node} else [])
        again, back = cast(Callable[..., Any], x.target), x.args[1:]
    else:
        first = editor.call(aten.movedim.int, x, axis, 1, like=node)
        again, back = aten.movedim.int, (1, axis)
    size = [-1, *[1] * (rank_of(x) - 2)]
    column = editor.call(cast(Callable[..., Any], aten.reshape.default), value, size, like=node)
    args = [column, first] if node.args[1] is x else [first, column]
    target = MUL if is_call(node, _DIV) else cast(Callable[..., Any], node.target)
    call = editor.call(target, *args, like=node)
    call.kwargs = node.kwargs
    found = arithmetic(editor, call, readers) or call
    return editor.call(again, found, *back, like=node)


def _order(permute: Node) -> list[int]:
    """The dimensions in the order in which a permutation gives them."""
    sizes = range(2, 2 + rank_of(permute))
    found = cast(Callable[..., Any], permute.target)(torch.empty(*sizes), *permute.args[1:])
    return [size - 2 for size in found.shape]


def _sum(editor: Editor, a: Node, b: Node, factor: float, node: Node) -> Node | None:
    """``a + factor * b``; None if ``node`` is that."""
    right = line(editor, b, factor, None, like=node)
    same = is_call(node, ADD) and [a, right] == list(node.args[:2]) and not node.kwargs
    return None if same else editor.call(ADD, a, right, like=node)


def line(
    editor: Editor,
    x: Node,
    scale: Value,
    shift: Value | None,
    *,
    like: Node,
    readers: frozenset[Node] = frozenset(),
) -> Node:
    """``scale * x + shift``: by the weights of a layer that nothing else reads, behind moves too,
    else as a depthwise convolution.

    Parameters
    ----------
    editor : of the graph
    x : (N, C, ...)
    scale, shift : a number or (C,) each; no shift if None
    like : the node that is replaced
    readers : nodes that are replaced with it
    """
    shift = None if shift == 0 else shift
    if scale == 1 and shift is None:
        return x
    readers |= {like}
    moves, below = [], x
    while not isinstance(scale, Node) and not isinstance(shift, Node) and _carries(below):
        if not below.users.keys() <= readers:
            break
        moves.append(below)
        readers, below = frozenset([below]), cast(Node, below.args[0])
    trained = [v for v in (scale, shift) if isinstance(v, Node) and is_trained(editor.gm, v)]
    if trained and _is_own_product(below, readers):
        return _times_parameters(editor, below, scale, shift, like)
    if _is_own_product(below, readers):
        term = None if shift is None else _doubles(editor, below, shift)
        found = fold(editor, below, _doubles(editor, below, scale), term, like=like)
        for move in reversed(moves):
            target = cast(Callable[..., Any], move.target)
            found = editor.call(target, found, *move.args[1:], like=move)
        return found
    alone = not shape_of(x)  # one value of each sample, (N,): a channel of its own
    x = editor.call(aten.unsqueeze.default, x, 1, like=like) if alone else x
    factor, bias = (
        value if value is None or isinstance(value, Node) else _same(editor, x, value)
        for value in (scale, shift)
    )
    found = depthwise(editor, x, cast(Node, factor), bias, like=like)
    return editor.call(aten.squeeze.dims, found, [1], like=like) if alone else found


def _times_parameters(
    editor: Editor, product: Node, scale: Value, shift: Value | None, like: Node
) -> Node:
    """``scale * product + shift`` by the product's weights; all stay parameters, to be trained."""
    weight, bias = cast(Node, product.args[1]), argument(product, 2, None)
    if isinstance(scale, Node):
        columns = [-1, *[1] * (rank_of(weight) - 1)]
        weight = editor.call(MUL, weight, editor.call(VIEW, scale, columns, like=like), like=like)
        bias = bias if bias is None else editor.call(MUL, bias, scale, like=like)
    elif scale != 1:
        weight = editor.call(MUL, weight, scale, like=like)
        bias = bias if bias is None else editor.call(MUL, bias, scale, like=like)
    if shift is not None:
        term = shift if isinstance(shift, Node) else _same(editor, product, shift)
        bias = term if bias is None else editor.call(ADD, bias, term, like=like)
    target = cast(Callable[..., Any], product.target)
    return editor.call(target, product.args[0], weight, bias, *product.args[3:], like=product)


def _is_own_product(node: Node, readers: frozenset[Node]) -> bool:
    """Whether a node is a convolution or linear that nothing else reads, of float weights."""
    if not is_call(node, *PRODUCTS) or not node.users.keys() <= readers:
        return False
    return not str(cast(Node, node.args[1]).target).startswith("quantized_decomposed.")


def _carries(x: Node) -> bool:
    """Whether a node only gives the values of one tensor other places, and brings no constants."""
    pads = padding_value(x) is not None or is_call(x, aten.im2col.default)
    return is_move(x) and x.all_input_nodes == [x.args[0]] and not pads and not x.kwargs


def _doubles(editor: Editor, x: Node, value: Value) -> torch.Tensor:
    if isinstance(value, Node):
        return constant(editor.gm, value).double()
    return torch.full((shape_of(x)[0],), value, dtype=torch.float64)


def _same(editor: Editor, x: Node, value: float) -> Node:
    """A number for every channel of ``x``."""
    return editor.attach("_constant", torch.full((shape_of(x)[0],), value), trained=False)


def _times(editor: Editor, value: Value, factor: float, like: Node) -> Value:
    if factor == 1 or not isinstance(value, Node):
        return value if factor == 1 else cast(float, value) * factor
    return editor.call(MUL, value, factor, like=like)


def _inverse(editor: Editor, value: Value, node: Node) -> Value:
    """1 / value.

    Raises
    ------
    SecateurError : it is zero
    """
    if isinstance(value, Node):
        return editor.call(aten.reciprocal.default, value, like=node)
    if value == 0:
        raise refuse(node, "divides by zero", "divide by something else")
    return 1.0 / value


def prelu(editor: Editor, node: Node) -> Node:
    """PReLU with one slope per channel: x + (1 - slope) * relu(-x)."""
    x, weight = cast(Node, node.args[0]), cast(Node, node.args[1])
    if weight in varying_nodes(editor.gm.graph):
        raise refuse(node, "slopes that are computed", "make them a parameter")
    minus = depthwise(editor, x, _same(editor, x, -1.0), None, like=node)
    rest = editor.call(aten.rsub.Scalar, weight, 1.0, like=node)
    negative = editor.call(RELU, minus, like=node)
    return editor.call(ADD, x, depthwise(editor, negative, rest, None, like=node), like=node)


def _gate_first(editor: Editor, node: Node, a: Node, b: Node) -> Node | None:
    """A product of two tensors; one of shape (N, C, 1, 1), if there is one, comes first."""
    one = [rank_of(x) == 4 and shape_of(x)[1:] == (1, 1) for x in (a, b)]
    if one[1] and not one[0]:
        return editor.call(MUL, b, a, like=node)
    return None


def _vector(editor: Editor, x: Node, value: Value, like: Node) -> Value | None:
    """A constant that is a number, or one per channel of ``x``, (channels,); None for others."""
    if not isinstance(value, Node):
        return float(value)
    channels, rank = shape_of(x)[0], rank_of(x)
    shape = tuple(int(n) for n in value.meta["val"].shape)
    padded = (1,) * (rank - len(shape)) + shape
    if len(padded) != rank or any(n != 1 for i, n in enumerate(padded) if i != 1):
        return None
    if padded[1] not in (1, channels):
        return None
    flat = editor.call(VIEW, value, [padded[1]], like=like)
    if flat.meta["val"].dtype != torch.float32:  # a mask of bool, numbers of int64
        flat = editor.call(aten.to.dtype, flat, torch.float32, like=like)
    if padded[1] == channels:
        return flat
    ones = editor.attach("_constant", torch.ones(channels), trained=False)
    return editor.call(MUL, ones, flat, like=like)

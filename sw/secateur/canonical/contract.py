"""Products of a tensor with a constant matrix, however they are written, as convolutions 1x1."""

from __future__ import annotations

import string
from collections.abc import Callable
from math import prod
from typing import cast

import torch
from torch.fx import Node

from secateur.fx.graph import CONV, LINEAR, Editor, aten, constant, rank_of, refuse, shape_of
from secateur.fx.moves import is_move, samples_of, varying_nodes

PRODUCTS_OF_MATRICES = (
    aten.matmul.default, aten.mm.default, aten.bmm.default, aten.einsum.default,
)  # fmt: skip
_reshape = cast(Callable[..., Node], aten.reshape.default)


def product_of_matrices(editor: Editor, node: Node) -> Node:
    """matmul, mm, bmm or einsum of a tensor and a constant.

    Raises
    ------
    SecateurError : both depend on the input, or samples are taken together
    """
    varying = varying_nodes(editor.gm.graph)
    einsum = node.target is aten.einsum.default
    operands = cast(list[Node], node.args[1] if einsum else node.args[:2])
    if len(operands) != 2 or all(operand in varying for operand in operands):
        reason = "multiplies tensors that all depend on the input"
        remedy = "make one of two a parameter; * multiplies element by element"
        raise refuse(node, reason, remedy)
    ranks = [rank_of(operand) for operand in operands]
    terms = _einsum(str(node.args[0]), ranks) if einsum else _matmul(*ranks)
    if terms is None:
        raise refuse(node, f"has labels {node.args[0]!r}", "use every label once in a tensor")
    given, own, result = terms
    x, weight = operands
    if weight in varying:
        x, weight, given, own = weight, x, own, given
    return contract(editor, x, weight, (given, own, result), like=node)


def _matmul(left: int, right: int) -> tuple[str, str, str]:
    """Labels of the dimensions of both operands and the result of a product of matrices."""
    most = max(left - 2, right - 2, 0)
    outer = string.ascii_uppercase[:most]
    a = outer[most - max(left - 2, 0) :] + ("ik" if left > 1 else "k")
    b = outer[most - max(right - 2, 0) :] + ("kj" if right > 1 else "k")
    return a, b, outer + "i" * (left > 1) + "j" * (right > 1)


def _einsum(equation: str, ranks: list[int]) -> tuple[str, str, str] | None:
    """The labels of an equation of two terms; None if a term has one twice."""
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    free = iter(c for c in string.ascii_letters if c not in equation)
    rest = [rank - len(term.replace("...", "")) for rank, term in zip(ranks, terms, strict=True)]
    dots = "".join(next(free) for _ in range(max(rest)))
    terms = [t.replace("...", dots[len(dots) - n :]) for t, n in zip(terms, rest, strict=True)]
    every = "".join(terms)
    if not arrow:
        result = dots + "".join(sorted(c for c in set(every) - set(dots) if every.count(c) == 1))
    result = result.replace("...", dots)
    unique = all(len(set(labels)) == len(labels) for labels in (*terms, result))
    return (terms[0], terms[1], result) if unique else None


def contract(
    editor: Editor,
    x: Node,
    weight: Node,
    labels: tuple[str, str, str],
    *,
    bias: Node | None = None,
    like: Node,
) -> Node:
    """The sum of products of a tensor with a constant over all dimensions that the result has not.

    Channels are all dimensions but the last two, where those are summed over alone, else what is
    summed over; a convolution 1x1 multiplies them by a matrix.

    Parameters
    ----------
    editor : of the graph
    x, weight : the tensor, samples first, and the constant
    labels : of the dimensions of both, and of the result
    bias : (outputs,)
    like : the node that is replaced

    Raises
    ------
    SecateurError : samples are taken together
    """
    given, own, result = labels
    sizes = dict(zip(given[1:], shape_of(x), strict=True))
    for label in [c for c in own if c in given]:  # broadcast
        at = own.index(label)
        if int(weight.meta["val"].shape[at]) == 1 != sizes.get(label):
            weight = editor.call(aten.squeeze.dim, weight, at, like=like)
            own = own.replace(label, "")
    if given[0] in own:
        weight, own = _of_one_sample(editor, weight, own, given[0], like)
    if given[0] in own or given[0] not in result:
        reason = "takes the samples of a batch together"
        raise refuse(like, reason, "keep samples in the first dimension")
    sizes |= dict(zip(own, (int(n) for n in weight.meta["val"].shape), strict=True))
    leading, last = given[1:-2], given[-2:]
    summed = [c for c in given[1:] if c in own or c not in result]
    if len(given) < 4 or not set(summed) <= set(leading):
        leading, last = "".join(summed), "".join(c for c in given[1:] if c not in summed)
    outputs = [c for c in leading if c in result] + [
        c for c in own if c not in given and c in result
    ]
    matrix = _matrix(editor, weight, own, leading, outputs, sizes, like)
    found = _multiplied(editor, x, matrix, (given, leading, last), bias, like)
    shaped = editor.call(_reshape, found, [-1, *(sizes[c] for c in (*outputs, *last))], like=like)
    order = given[0] + "".join(outputs) + last
    dims = [order.index(c) for c in result]
    return shaped if order == result else editor.call(aten.permute.default, shaped, dims, like=like)


def _of_one_sample(
    editor: Editor, weight: Node, own: str, batch: str, like: Node
) -> tuple[Node, str]:
    """A constant that is the same for all samples, and its labels, without that dimension."""
    axis = own.index(batch)
    value = constant(editor.gm, weight)
    if not bool((value == value.narrow(axis, 0, 1)).all()):
        return weight, own
    return editor.call(aten.select.int, weight, axis, 0, like=like), own.replace(batch, "")


def _matrix(
    editor: Editor, weight: Node, own: str, inputs: str, outputs: list[str], sizes: dict[str, int],
    like: Node,
) -> Node:  # fmt: skip
    """(outputs, inputs) of a constant; dimensions that both have are diagonals."""
    free = iter(c for c in string.ascii_letters if c not in own + inputs + "".join(outputs))
    terms, parts, named = [own], [weight], []
    for label in outputs:
        named.append(label)
        if label in inputs:
            named[-1] = next(free)
            eye = editor.attach("_diagonal", torch.eye(sizes[label]), trained=False)
            terms.append(label + named[-1])
            parts.append(eye)
    for label in [c for c in inputs if c not in own and c not in outputs]:
        terms.append(label)
        parts.append(editor.attach("_ones", torch.ones(sizes[label]), trained=False))
    equation = f"{','.join(terms)}->{''.join(named)}{inputs}"
    matrix = editor.call(aten.einsum.default, equation, parts, like=like)
    size = [prod(sizes[c] for c in outputs), prod(sizes[c] for c in inputs)]
    return editor.call(_reshape, matrix, size, like=like)


def _multiplied(
    editor: Editor,
    x: Node,
    matrix: Node,
    labels: tuple[str, str, str],
    bias: Node | None,
    like: Node,
) -> Node:
    """A tensor with its ``leading`` dimensions multiplied by a matrix, (N, outputs, ...)."""
    given, leading, last = labels
    outputs, inputs = (int(n) for n in matrix.meta["val"].shape)
    order = given[0] + leading + last
    if order != given:
        x = editor.call(aten.permute.default, x, [given.index(c) for c in order], like=like)
    if not last:
        flat = x if rank_of(x) == 2 else editor.call(_reshape, x, [-1, inputs], like=like)
        return editor.call(LINEAR, flat, matrix, bias, like=like)
    outer = [int(n) for n in x.meta["val"].shape[len(order) - len(last) :]]
    size = [inputs, *(_rows(x, outer[0]) if len(outer) == 1 else (prod(outer[:-1]), outer[-1]))]
    maps = editor.call(_reshape, x, [-1, *size], like=like)
    filters = editor.call(_reshape, matrix, [outputs, inputs, 1, 1], like=like)
    return editor.call(CONV, maps, filters, bias, [1, 1], [0, 0], [1, 1], 1, like=like)


def _rows(x: Node, length: int) -> tuple[int, int]:
    """Height and width of a line of pixels: those of the map of which it is a view."""
    while is_move(x) and isinstance(x.args[0], Node):
        x = x.args[0]
        if samples_of(x):  # what is a size of it is not known
            break
        if rank_of(x) == 4 and prod(shape_of(x)[1:]) == length:
            return cast(tuple[int, int], shape_of(x)[1:])
    return 1, length

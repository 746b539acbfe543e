"""Fold BatchNorm into the convolution or linear layer before it; masks on weights survive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from secateur.canonical.pool import depthwise
from secateur.canonical.resample import AVERAGE_WEIGHT
from secateur.fx.graph import PRODUCTS, Editor, argument, aten, attribute, constant, is_call, refuse

_MULTIPLY = aten.mul.Tensor


def fold_norm(editor: Editor, norm: Node) -> Node:
    """The node that replaces ``norm`` (an ``aten.batch_norm``), inserted before it.

    Behind a conv2d or linear with no other user, y = a * (W x + b) + c becomes (a W) x + (a b + c).
    Elsewhere it becomes a depthwise 1x1 convolution.

    Raises
    ------
    SecateurError : it uses batch statistics (training mode)
    """
    gm = editor.gm
    x = norm.args[0]
    assert isinstance(x, Node)
    if norm.args[5]:
        raise refuse(norm, "BatchNorm in training mode", "call model.eval() before the export")

    def value(index: int) -> torch.Tensor | None:
        node = norm.args[index]
        return constant(gm, node).double() if isinstance(node, Node) else None

    gamma, beta, mean, var = (value(i) for i in range(1, 5))
    assert mean is not None
    assert var is not None
    scale = torch.rsqrt(var + float(norm.args[7]))  # type: ignore[arg-type]
    scale = scale if gamma is None else scale * gamma
    shift = -mean * scale if beta is None else beta - mean * scale

    if is_call(x, *PRODUCTS) and len(x.users) == 1:
        return fold(editor, x, scale, shift, like=norm)
    factor = editor.attach("_norm_weight", scale, trained=True)
    return depthwise(editor, x, factor, editor.attach("_norm_bias", shift, trained=True), like=norm)


def fold(
    editor: Editor, product: Node, scale: torch.Tensor, shift: torch.Tensor | None, *, like: Node
) -> Node:
    """``scale[c] * product[c] + shift[c]`` by the weights and biases of the product.

    Parameters
    ----------
    editor : of the graph
    product : a convolution or linear that nothing else reads
    scale, shift : (C,) of its outputs, doubles; no shift if None
    like : the node that is replaced
    """
    weight, bias = product.args[1], argument(product, 2, None)
    assert isinstance(weight, Node)
    if bias is not None or shift is not None:
        bias = _affine_bias(editor, bias, scale, torch.zeros(()) if shift is None else shift, like)
    average = str(weight.target).startswith(AVERAGE_WEIGHT)
    if average and bias is None and bool((scale == scale[0]).all()):  # an average still
        scaled = constant(editor.gm, weight).double() * scale[0]
        weight = editor.attach(AVERAGE_WEIGHT, scaled, trained=False)
    elif average or not bool((scale == 1).all()):
        weight = _scaled_weight(editor, weight, scale, like)
    return editor.call(
        cast(Callable[..., Any], product.target),
        product.args[0],
        weight,
        bias,
        *product.args[3:],
        like=product,
    )


def _scaled_weight(editor: Editor, weight: Node, scale: torch.Tensor, like: Node) -> Node:
    """``weight`` with output channel c times ``scale[c]``; the trained parameter takes the scale.

    Of mul(parameter, mask) the mask stays. Where no such parameter is found, a constant factor is
    multiplied to the whole.
    """
    shape = tuple(weight.meta["val"].shape)
    columns = scale.reshape(-1, *[1] * (len(shape) - 1))
    leaf = _trained_leaf(editor.gm, weight, shape)
    if leaf is None:
        factor = editor.attach("_norm_scale", columns, trained=False)
        return editor.call(_MULTIPLY, weight, factor, like=like)
    scaled = constant(editor.gm, leaf).double() * columns
    new_leaf = editor.attach("_folded_weight", scaled, trained=True)

    def rebuild(node: Node) -> Node:
        if node is leaf:
            return new_leaf
        if not is_call(node, _MULTIPLY) or not _contains(node, leaf):
            return node
        return editor.call(_MULTIPLY, *map_arg(node.args, rebuild), like=like)

    return rebuild(weight)


def _contains(node: Node, leaf: Node) -> bool:
    return node is leaf or any(_contains(n, leaf) for n in node.all_input_nodes)


def _trained_leaf(gm: GraphModule, node: Node, shape: tuple[int, ...]) -> Node | None:
    """The parameter of the full shape that reaches the weight through products only."""
    if node.op == "get_attr":
        tensor = attribute(gm, str(node.target))
        fits = isinstance(tensor, torch.nn.Parameter) and tuple(tensor.shape) == shape
        return node if fits else None
    if is_call(node, _MULTIPLY):
        for factor in node.all_input_nodes:
            if (leaf := _trained_leaf(gm, factor, shape)) is not None:
                return leaf
    return None


def _affine_bias(
    editor: Editor, bias: Node | None, scale: torch.Tensor, shift: torch.Tensor, like: Node
) -> Node:
    if bias is None:
        return editor.attach("_folded_bias", shift, trained=True)
    if bias.op == "get_attr":
        folded = constant(editor.gm, bias).double() * scale + shift
        return editor.attach("_folded_bias", folded, trained=True)
    factor = editor.attach("_norm_scale", scale, trained=False)
    product = editor.call(_MULTIPLY, bias, factor, like=like)
    offset = editor.attach("_folded_bias", shift, trained=True)
    return editor.call(aten.add.Tensor, product, offset, like=like)

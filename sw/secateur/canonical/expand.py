"""Operations in terms of others: differences, choices and norms of two tensors, and what PyTorch
itself defines by others.
"""

from __future__ import annotations

import functools
import math
import string
from collections.abc import Callable
from typing import Any, cast

import torch
from torch._decomp import core_aten_decompositions
from torch._ops import OpOverload
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_aggregate, map_arg

from secateur.fx.functions import functions_of, is_number
from secateur.fx.graph import (
    ADD,
    MUL,
    PAD,
    RELU,
    Editor,
    argument,
    aten,
    attribute,
    constant,
    known,
    rank_of,
    shape_of,
)
from secateur.fx.moves import is_move, varying_nodes

_SUB = aten.sub.Tensor
_reshape = cast(Callable[..., Node], aten.reshape.default)
#: Of ``aten``, all overloads: are taken as they are, or refused as they are.
_WHOLE = frozenset(
    """
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d linear batch_norm prelu
    max_pool1d max_pool2d adaptive_max_pool1d adaptive_max_pool2d
    avg_pool1d avg_pool2d adaptive_avg_pool1d adaptive_avg_pool2d
    mean sum amax max add sub mul div rsub neg relu hardtanh relu6 clamp clamp_min clamp_max clip
    matmul mm bmm einsum dropout feature_dropout
    upsample_linear1d upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa
    _upsample_bicubic2d_aa
    softmax log_softmax group_norm layer_norm instance_norm rms_norm scaled_dot_product_attention
    """.split()  # noqa: SIM905
)


def expand(editor: Editor) -> None:
    """Replace what the array has not by what it has, until nothing changes."""
    graph, changed = editor.gm.graph, True
    while changed:
        changed = False
        varying = varying_nodes(graph)
        inside = {node for function in functions_of(graph).values() for node in function.nodes}
        for node in list(graph.nodes):
            if node not in varying or node.op != "call_function" or is_move(node):
                continue
            with graph.inserting_before(node):
                replacement = _clip(editor, node)
                if replacement is None and node not in inside:
                    replacement = _RULES.get(node.target, _defined)(editor, node)
            if replacement is not None:
                node.replace_all_uses_with(replacement)
                graph.erase_node(node)
                changed = True
    graph.eliminate_dead_code()


@functools.cache
def _definition(target: OpOverload) -> Callable[..., Any] | None:
    """What computes an operator by others, if that is more than its own overloads."""
    return dict(core_aten_decompositions()).get(target)


def _defined(editor: Editor, node: Node) -> Node | None:
    """PyTorch's own definition of an operation with one result; None if there is none."""
    target = node.target
    if not isinstance(target, OpOverload) or target.namespace != "aten":
        return None
    if target._opname in _WHOLE or not isinstance(node.meta.get("val"), torch.Tensor):
        return None
    definition = _definition(target)
    if definition is None and not target._can_decompose():
        return None
    inputs = node.all_input_nodes

    def run(*values: Any) -> Any:
        given = dict(zip(inputs, values, strict=True))
        args: Any = map_arg(node.args, given.__getitem__)
        kwargs: Any = map_arg(node.kwargs, given.__getitem__)
        return (definition or target.decompose)(*args, **kwargs)

    with editor.mode:
        traced = make_fx(run)(*(source.meta["val"] for source in inputs))
    if any(inner.target is target for inner in traced.graph.nodes):
        return None
    return _inlined(editor, traced, node)


def _inlined(editor: Editor, traced: torch.fx.GraphModule, node: Node) -> Node | None:
    """The result of a traced graph in the place of a node; None if it is for one size of batch."""
    result = cast(Node, next(iter(traced.graph.find_nodes(op="output"))).args[0])
    sizes = [[known(size) for size in n.meta["val"].shape] for n in (result, node)]
    if sizes[0] != sizes[1]:
        return None
    found = dict(zip(traced.graph.find_nodes(op="placeholder"), node.all_input_nodes, strict=True))

    def number(value: Any) -> Any:
        if not isinstance(value, torch.SymInt):
            return value
        return editor.batch() if known(value) is None else known(value)

    for inner in traced.graph.nodes:
        if inner.op == "get_attr":
            tensor = attribute(traced, str(inner.target))
            found[inner] = editor.attach("_constant", tensor, trained=False, dtype=tensor.dtype)
        elif inner.op == "call_function":
            copy = editor.gm.graph.node_copy(inner, found.__getitem__)
            copy.args = map_aggregate(copy.args, number)
            copy.kwargs = map_aggregate(copy.kwargs, number)
            copy.meta = {"val": inner.meta["val"]}
            if "nn_module_stack" in node.meta:
                copy.meta["nn_module_stack"] = node.meta["nn_module_stack"]
            found[inner] = copy
    return cast(Node, found[result])


def _number(editor: Editor, value: object) -> float | None:
    """A constant that is one number, as that; None for a tensor, and for no value."""
    if not isinstance(value, Node):
        return None if value is None else float(cast(float, value))
    constant_number = value not in varying_nodes(editor.gm.graph) and is_number(value)
    return float(constant(editor.gm, value)) if constant_number else None


_MAXIMA = (aten.maximum.default, aten.fmax.default)
_MINIMA = (aten.minimum.default, aten.fmin.default)
_CLAMPS = (aten.clamp.Tensor, aten.clip.Tensor)


def _clip(editor: Editor, node: Node) -> Node | None:
    """A maximum or minimum of a tensor and a number."""
    if node.target in (*_MAXIMA, *_MINIMA):
        clamp = aten.clamp_min.default if node.target in _MAXIMA else aten.clamp_max.default
        for x, other in (node.args[:2], node.args[1::-1]):
            if (number := _number(editor, other)) is not None:
                return editor.call(clamp, x, number, like=node)
    if node.target in _CLAMPS:
        bounds = [argument(node, 1, None), argument(node, 2, None)]
        numbers = [_number(editor, bound) for bound in bounds]
        if [bound is None for bound in bounds] == [number is None for number in numbers]:
            return editor.call(aten.clamp.default, node.args[0], *numbers, like=node)
    return None


def _extreme(editor: Editor, node: Node) -> Node:
    """max(a, b) = a + relu(b - a), min(a, b) = a - relu(a - b)."""
    a, b = node.args[:2]
    if node.target in _MAXIMA:
        over = editor.call(RELU, editor.call(_SUB, b, a, like=node), like=node)
        return editor.call(ADD, a, over, like=node)
    over = editor.call(RELU, editor.call(_SUB, a, b, like=node), like=node)
    return editor.call(_SUB, a, over, like=node)


def _clamp(editor: Editor, node: Node) -> Node:
    """Bounds that are tensors."""
    x, low, high = node.args[0], argument(node, 1, None), argument(node, 2, None)
    if node.target is aten.clamp_max.Tensor:
        low, high = None, low
    for bound, function in ((low, aten.maximum.default), (high, aten.minimum.default)):
        x = x if bound is None else editor.call(function, x, bound, like=node)
    return cast(Node, x)


def _compared(editor: Editor, node: Node) -> Node:
    """a > b as a - b > 0."""
    packet = getattr(aten, cast(OpOverload, node.target)._opname)
    difference = editor.call(_SUB, *node.args[:2], like=node)
    return editor.call(packet.Scalar, difference, 0.0, like=node)


def _chosen(editor: Editor, node: Node) -> Node | None:
    """where(c, a, b) as c * a + (1 - c) * b."""
    chooses, *values = node.args
    if node.target is aten.masked_fill.Scalar:
        values, chooses = [values[1], chooses], values[0]
    gate = editor.call(aten.to.dtype, chooses, torch.float32, like=node)
    gates, parts = (gate, editor.call(aten.rsub.Scalar, gate, 1.0, like=node)), []
    for value, own in zip(values, gates, strict=True):
        number = _number(editor, value)
        if number is not None and not math.isfinite(number):
            other = values[1 if own is gates[0] else 0]
            return _left_out(editor, node, cast(Node, chooses), other, number)
        if number != 0:
            factor = value if isinstance(value, Node) and number is None else number
            parts.append(editor.call(MUL, own, factor, like=node))
    if not parts:
        return editor.call(MUL, gate, 0.0, like=node)
    return parts[0] if len(parts) == 1 else editor.call(ADD, *parts, like=node)


def _left_out(editor: Editor, node: Node, mask: Node, x: object, value: float) -> Node | None:
    """A choice between a tensor and an infinity, as a move; None if it depends on the input."""
    varying = varying_nodes(editor.gm.graph)
    if mask in varying or not isinstance(x, Node) or x not in varying:
        return None
    count = math.prod(shape_of(x))
    places = torch.arange(count, dtype=torch.float64).reshape(1, *shape_of(x))
    given = {x: places, mask: constant(editor.gm, mask)}
    args = map_arg(node.args, lambda n: given[n] if n in given else constant(editor.gm, n))
    order = cast(Callable[..., Any], node.target)(*args)
    if len(order) != 1 or order.dim() != rank_of(node):
        return None
    order = order.where(order.isfinite(), count).reshape(-1)
    index = editor.attach("_order", order, trained=False, dtype=torch.int64)
    flat = editor.call(_reshape, x, [-1, count], like=node)
    wider = editor.call(PAD, flat, [0, 1], "constant", value, like=node)
    chosen = editor.call(aten.index_select.default, wider, 1, index, like=node)
    return editor.call(_reshape, chosen, [-1, *shape_of(node)], like=node)


def _quotient(editor: Editor, node: Node) -> Node | None:
    """a / b as 1 / b * a; a constant divisor stays."""
    a, b = node.args[:2]
    if not isinstance(b, Node) or b not in varying_nodes(editor.gm.graph):
        return None
    return editor.call(MUL, editor.call(aten.reciprocal.default, b, like=node), a, like=node)


def _new(editor: Editor, node: Node) -> Node:
    """A constant that has no more than its type of a tensor."""
    fills = {aten.new_zeros.default: 0.0, aten.new_ones.default: 1.0}
    value = fills[node.target] if node.target in fills else node.args[2]
    return editor.call(aten.full.default, node.args[1], value, like=node)


def _filled(editor: Editor, node: Node) -> Node:
    """A tensor of one number, or another one in its place."""
    x, value = cast(tuple[Node, Any], node.args[:2])
    if isinstance(value, Node):
        return editor.call(aten.expand_as.default, value, x, like=node)
    sizes = [editor.batch() if known(n) is None else known(n) for n in x.meta["val"].shape]
    return editor.call(aten.full.default, sizes, value, like=node)


def _masked(editor: Editor, node: Node) -> Node | None:
    """x[mask] = value as where(mask, value, x)."""
    x, (*_, mask), value = cast(tuple[Node, list[Node], Node], node.args[:3])
    shapes = [n.meta["val"].shape for n in (mask, x)]
    if mask.meta["val"].dtype != torch.bool or shapes[0] != shapes[1] or not is_number(value):
        return None
    return editor.call(aten.where.self, mask, value, x, like=node)


def _prelu(editor: Editor, node: Node) -> Node | None:
    slope = _number(editor, node.args[1])
    if slope is None:
        return None
    return editor.call(aten.leaky_relu.default, node.args[0], slope, like=node)


def _norm(editor: Editor, node: Node) -> Node:
    """A norm over some dimensions: sums of powers, or a maximum."""
    x, order = cast(Node, node.args[0]), float(cast(float, argument(node, 1, 2)))
    dims = argument(node, 2, None)
    dims = list(range(1, rank_of(x))) if dims is None else dims
    keep = argument(node, 3, False)
    size = editor.call(aten.abs.default, x, like=node)
    if math.isinf(order):
        return editor.call(aten.amax.default, size, dims, keep, like=node)
    power = editor.call(aten.pow.Tensor_Scalar, size, order, like=node)
    total = editor.call(aten.sum.dim_IntList, power, dims, keep, like=node)
    return editor.call(aten.pow.Tensor_Scalar, total, 1 / order, like=node)


def _softmax(editor: Editor, node: Node) -> Node | None:
    """Of two values: the sigmoid of their difference."""
    x = cast(Node, node.args[0])
    dim = int(cast(int, node.args[1])) % rank_of(x)
    if dim == 0 or x.meta["val"].shape[dim] != 2:
        return None
    signs = editor.attach("_differences", torch.tensor([[1.0, -1], [-1, 1]]), trained=False)
    given = string.ascii_lowercase[: rank_of(x)]
    equation = f"{given},O{given[dim]}->{given.replace(given[dim], 'O')}"
    difference = editor.call(aten.einsum.default, equation, [x, signs], like=node)
    return editor.call(aten.sigmoid.default, difference, like=node)


Rule = Callable[[Editor, Node], Node | None]
_RULES: dict[Any, Rule] = {
    **dict.fromkeys((*_MAXIMA, *_MINIMA), _extreme),
    **dict.fromkeys((*_CLAMPS, aten.clamp_min.Tensor, aten.clamp_max.Tensor), _clamp),
    **dict.fromkeys((aten.gt.Tensor, aten.ge.Tensor, aten.lt.Tensor, aten.le.Tensor), _compared),
    **dict.fromkeys((aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf), _chosen),
    **dict.fromkeys((aten.masked_fill.Scalar,), _chosen),
    **dict.fromkeys((aten.new_zeros.default, aten.new_ones.default, aten.new_full.default), _new),
    **dict.fromkeys((aten.fill.Tensor, aten.copy.default), _filled),
    aten.index_put.default: _masked,
    aten.div.Tensor: _quotient,
    aten.prelu.default: _prelu,
    aten.linalg_vector_norm.default: _norm,
    aten.softmax.int: _softmax,
}

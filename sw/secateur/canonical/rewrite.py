"""Rewrite an exported graph into the few operations that the array has, without changing values.

Afterwards the graph holds only conv2d, linear, relu, hardtanh, add, mul, functions of one number,
max_pool2d, cat, pad, flatten and view to a 1x1 map; average pooling, lone BatchNorms, differences
and sums and products with constants are depthwise convolutions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from secateur.canonical.arithmetic import ARITHMETIC, arithmetic, prelu
from secateur.canonical.batch.merged import part_items
from secateur.canonical.contract import PRODUCTS_OF_MATRICES, product_of_matrices
from secateur.canonical.convolve import (
    TRANSPOSED,
    is_linear_on_maps,
    linear_on_maps,
    transposed,
    ungrouped,
)
from secateur.canonical.expand import expand
from secateur.canonical.lines import lift_lines
from secateur.canonical.norm import fold_norm
from secateur.canonical.partial import share_maps
from secateur.canonical.pieces import as_line, part_functions, settle_numbers
from secateur.canonical.pool import average, depthwise, max_pooling
from secateur.canonical.reduce import SUMS, reduce_maxima, reduce_sums
from secateur.canonical.resample import INTERPOLATIONS, resampled
from secateur.canonical.samples import (
    constants_of_samples,
    samples_first,
    settle_constants,
    settle_sizes,
)
from secateur.canonical.supported import check_layers, check_supported
from secateur.fx.functional import IDENTITIES, functionalise
from secateur.fx.functions import CLIPS
from secateur.fx.graph import (
    ACTIVATIONS,
    ADD,
    CAT,
    CONV,
    FLATTEN,
    HARDTANH,
    LINEAR,
    MAX_POOL,
    MUL,
    PAD,
    PRODUCTS,
    RELU,
    VIEW,
    Editor,
    activation_bounds,
    active_nodes,
    argument,
    aten,
    is_call,
    pair,
    rank_of,
    refuse,
    shape_of,
)
from secateur.fx.moves import is_move, samples_of, varying_nodes

Op = Callable[..., Any]

_VIEWS = {
    FLATTEN,
    VIEW,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
}


def canonicalise(gm: GraphModule) -> GraphModule:
    """Rewrite ``gm`` in place (see the module's docstring) and return it.

    Raises
    ------
    SecateurError : the array cannot run an operation
    """
    check_layers(gm)
    functionalise(gm)
    editor = Editor(gm)
    settle_sizes(editor)
    part_items(editor)
    constants_of_samples(editor)
    samples_first(editor)
    settle_numbers(editor)
    expand(editor)
    settle_constants(editor)
    max_pooling(editor)
    reduce_maxima(editor)
    lift_lines(editor)
    functions = part_functions(editor)
    inside = {node for function in functions.values() for node in function.nodes}
    varying = varying_nodes(gm.graph)
    for node in list(gm.graph.nodes):
        if node.op == "call_function" and node in varying:
            with gm.graph.inserting_before(node):
                if node in functions:
                    replacement = as_line(editor, functions[node])
                elif node in inside:
                    continue
                else:
                    replacement = _rewrite(editor, node)
            if replacement is not None and replacement is not node:
                node.replace_all_uses_with(replacement)
                gm.graph.erase_node(node)
    gm.graph.eliminate_dead_code()
    share_maps(editor)
    inside = {node for function in part_functions(editor).values() for node in function.nodes}
    _lift_activations(editor, inside)
    _give_activations_a_layer(editor, inside)
    _part_weights(editor)
    gm.graph.eliminate_dead_code()
    gm.graph.lint()
    gm.recompile()
    check_supported(gm)
    return gm


def _part_weights(editor: Editor) -> None:
    """A weight that several products read gets another name for each, and so exponents of its own.

    It stays one parameter: training changes it for all.
    """
    gm, seen = editor.gm, set[Node]()
    for node in list(gm.graph.nodes):
        weight = node.args[1] if is_call(node, *PRODUCTS) else None
        if not isinstance(weight, Node) or weight.op != "get_attr":
            continue
        if weight in seen:
            with gm.graph.inserting_before(node):
                node.replace_input_with(weight, editor.alias(weight))
        seen.add(weight)


def _rewrite(editor: Editor, node: Node) -> Node | None:
    """The canonical equivalent of one node, inserted before it; None or itself to keep it."""
    target, graph_input = node.target, node.args[0]
    if target in IDENTITIES:
        if target is aten.dropout.default and node.args[2]:
            remedy = "call model.eval() before the export; F.dropout takes training=self.training"
            raise refuse(node, "dropout in training mode", remedy)
        return graph_input if isinstance(graph_input, Node) else None
    if target is aten.conv2d.padding:
        return _conv_with_named_padding(editor, node)
    if target is aten.constant_pad_nd.default:
        value = float(argument(node, 2, 0.0))
        return editor.call(PAD, graph_input, node.args[1], "constant", value, like=node)
    if target in (aten.concat.default, aten.concatenate.default):
        return editor.call(CAT, *node.args, like=node)
    if target in CLIPS:
        return _clip(editor, node)
    if target in ARITHMETIC:
        return _broadcast(editor, node, arithmetic(editor, node))
    if target in _LIKE:
        return _shaped_like(editor, node)
    if target is aten.prelu.default:
        return prelu(editor, node)
    if target is aten.batch_norm.default:
        return fold_norm(editor, node)
    if target in (aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default):
        return average(editor, node)
    if target in SUMS:
        return reduce_sums(editor, node)
    if target is CONV:
        return ungrouped(editor, node)
    if target is LINEAR and is_linear_on_maps(node):
        return linear_on_maps(editor, node)
    if target in PRODUCTS_OF_MATRICES:
        return product_of_matrices(editor, node)
    if target is TRANSPOSED:
        return transposed(editor, node)
    if target in INTERPOLATIONS:
        return resampled(editor, node)
    if target in _VIEWS:
        return _view(editor, node)
    return None


#: Moves that take a shape from a second tensor.
_LIKE = {
    aten.expand_as.default: aten.expand.default,
    aten.view_as.default: aten.reshape.default,
    aten.reshape_as.default: aten.reshape.default,
}


def _shaped_like(editor: Editor, node: Node) -> Node | None:
    """The move with sizes in the second tensor's place; a constant stays."""
    x = cast(Node, node.args[0])
    if x not in varying_nodes(editor.gm.graph):
        return None
    like = cast(Op, _LIKE[cast(OpOverload, node.target)])
    return editor.call(like, x, [-1, *shape_of(node)], like=node)


def _broadcast(editor: Editor, node: Node, result: Node | None) -> Node | None:
    """A sum or product of two tensors with both of the result's shape; a product with one value per
    channel stays.
    """
    call = result or node
    if not is_call(call, ADD, MUL) or not all(isinstance(part, Node) for part in call.args[:2]):
        return result
    a, b = cast(list[Node], call.args[:2])
    if not {a, b} <= active_nodes(editor.gm):
        return result
    whole = shape_of(call)
    if is_call(call, MUL) and len(whole) == 3 and shape_of(a) == (whole[0], 1, 1):
        whole_b = editor.call(aten.expand.default, b, [-1, *whole], like=node)
        b = b if shape_of(b) == whole else whole_b
        return editor.call(MUL, a, b, like=node)
    if shape_of(a) == shape_of(b) == whole:
        return result
    sized = []
    for part in (a, b):
        shape = shape_of(part)
        if len(shape) < len(whole):
            ones = (1,) * (len(whole) - len(shape))
            part = editor.call(VIEW, part, [-1, *ones, *shape], like=node)
        if shape != whole:
            part = editor.call(aten.expand.default, part, [-1, *whole], like=node)
        sized.append(part)
    return editor.call(cast(Op, call.target), *sized, like=node)


def _conv_with_named_padding(editor: Editor, node: Node) -> Node:
    x, weight, bias = node.args[0], node.args[1], argument(node, 2, None)
    assert isinstance(x, Node)
    assert isinstance(weight, Node)
    dilation = pair(argument(node, 5, 1))
    kernel = shape_of(weight)[1:]
    named = argument(node, 4, "valid")
    total = [d * (k - 1) if named == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
    before = [t // 2 for t in total]
    rest = (pair(argument(node, 3, 1)), [0, 0], dilation, argument(node, 6, 1))
    if all(t % 2 == 0 for t in total):
        return editor.call(CONV, x, weight, bias, rest[0], before, *rest[2:], like=node)
    amounts = [before[1], total[1] - before[1], before[0], total[0] - before[0]]
    padded = editor.call(PAD, x, amounts, "constant", 0.0, like=node)
    return editor.call(CONV, padded, weight, bias, *rest, like=node)


def _clip(editor: Editor, node: Node) -> Node | None:
    """Any spelling of a clip as relu or hardtanh; clips of a clip become one."""
    x, low, high = cast(Node, node.args[0]), argument(node, 1, None), argument(node, 2, None)
    if is_call(node, *ACTIVATIONS, aten.relu6.default):
        low, high = (0.0, 6.0) if is_call(node, aten.relu6.default) else activation_bounds(node)
    elif node.target is aten.clamp_max.default:
        low, high = None, low
    low, high = float("-inf" if low is None else low), float("inf" if high is None else high)
    if is_call(x, *ACTIVATIONS) and len(x.users) == 1:
        before = activation_bounds(x)
        low, high = (min(max(bound, low), high) for bound in before)
        x = cast(Node, x.args[0])
    elif is_call(node, *ACTIVATIONS):
        return None
    if (low, high) == (0, float("inf")):
        return editor.call(RELU, x, like=node)
    return editor.call(HARDTANH, x, low, high, like=node)


def _view(editor: Editor, node: Node) -> Node | None:
    """Views of views become one; (N, -1) becomes flatten, 1x1 maps a view."""
    if samples_of(node):
        return None
    root = node.args[0]
    while is_call(root, *_VIEWS):
        assert isinstance(root, Node)
        root = root.args[0]
    assert isinstance(root, Node)
    if is_call(root, VIEW, FLATTEN):
        root = root.args[0]
    assert isinstance(root, Node)
    if samples_of(root):
        return None
    new, old = shape_of(node), shape_of(root)
    if torch.Size(new).numel() != torch.Size(old).numel():
        return None  # it takes samples together; whatever follows may part them again
    if new == old:
        return root
    if len(new) == 1:
        return editor.call(FLATTEN, root, 1, like=node)
    if len(new) == 3 and new[1:] == (1, 1):
        flat = root if rank_of(root) == 2 else editor.call(FLATTEN, root, 1, like=node)
        return editor.call(VIEW, flat, [-1, new[0], 1, 1], like=node)
    x = cast(Node, node.args[0])
    if is_call(node, VIEW, aten._unsafe_view.default) and is_move(x):
        return editor.call(cast(Op, aten.reshape.default), x, node.args[1], like=node)
    return None


def _lift_activations(editor: Editor, inside: set[Node]) -> None:
    """relu(max_pool(x)) becomes max_pool(relu(x)), and so for views: the relu joins its layer.

    What is ``inside`` a function is left alone.
    """
    moved = True
    while moved:
        moved = False
        for node in list(editor.gm.graph.nodes):
            free = is_call(node, *ACTIVATIONS) and node not in inside
            below = node.args[0] if free else None
            if not is_call(below, MAX_POOL, FLATTEN, VIEW):
                continue
            assert isinstance(below, Node)
            if len(below.users) > 1:
                continue
            with editor.gm.graph.inserting_before(below):
                first = editor.call(cast(Op, node.target), below.args[0], *node.args[1:], like=node)
                second = editor.call(cast(Op, below.target), first, *below.args[1:], like=below)
            node.replace_all_uses_with(second)
            editor.gm.graph.erase_node(node)
            editor.gm.graph.erase_node(below)
            moved = True


def _give_activations_a_layer(editor: Editor, inside: set[Node]) -> None:
    """An activation that no convolution, linear or add can absorb gets an identity before it.

    What is ``inside`` a function is left alone.
    """
    for node in list(editor.gm.graph.nodes):
        if not is_call(node, *ACTIVATIONS) or node in inside:
            continue
        x = node.args[0]
        assert isinstance(x, Node)
        if is_call(x, ADD, MUL, *PRODUCTS) and len(x.users) == 1:
            continue
        with editor.gm.graph.inserting_before(node):
            ones = editor.attach("_identity_weight", torch.ones(shape_of(x)[0]), trained=False)
            node.replace_input_with(x, depthwise(editor, x, ones, None, like=node))

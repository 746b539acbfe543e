"""Conv1d and its like: signals (N, C, L) become maps (N, C, 1, L)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from secateur.fx.functions import elementwise
from secateur.fx.graph import (
    CAT,
    CONV,
    FLATTEN,
    MAX_POOL,
    VIEW,
    Editor,
    active_nodes,
    argument,
    aten,
    is_call,
    rank_of,
    shape_of,
)
from secateur.fx.moves import samples_of

_FLAT = {
    FLATTEN,
    VIEW,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
}


def lift_lines(editor: Editor) -> None:
    """Rewrite a graph whose input is a signal; its output has the shape it had.

    Raises
    ------
    SecateurError : an operation has no equivalent on maps
    """
    gm = editor.gm
    active, lifted = active_nodes(gm), dict[Node, Node]()
    for node in list(gm.graph.nodes):
        if node not in active or (node.op == "placeholder" and rank_of(node) != 3):
            continue
        if node.op == "placeholder":
            channels, length = shape_of(node)
            if all(is_call(u, VIEW) and shape_of(u)[1:] == (1, length) for u in node.users):
                continue  # a canonical graph
            with gm.graph.inserting_after(node):
                lifted[node] = editor.call(VIEW, node, [-1, channels, 1, length], like=node)
        elif node.op == "output":
            _lower_outputs(editor, node, lifted)
        elif _on_lines(node, lifted):
            with gm.graph.inserting_before(node):
                call = _map_call(editor, node, lifted)
            if call is None:
                _kept(editor, node, lifted)
            elif rank_of(call) == rank_of(node):
                node.replace_all_uses_with(call)
            else:
                lifted[node] = call
    gm.graph.eliminate_dead_code()


def _lower_outputs(editor: Editor, output: Node, lifted: dict[Node, Node]) -> None:
    for node in output.all_input_nodes:
        if node in lifted:
            with editor.gm.graph.inserting_before(output):
                back = editor.call(VIEW, lifted[node], [-1, *shape_of(node)], like=node)
            output.replace_input_with(node, back)


_LINES = (
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.max_pool1d.default,
    aten.avg_pool1d.default,
    aten.adaptive_avg_pool1d.default,
    aten.upsample_linear1d.vec,
)


def _on_lines(node: Node, lifted: dict[Node, Node]) -> bool:
    """Whether a node reads signals."""
    if any(source in lifted for source in node.all_input_nodes) or node.target in _LINES:
        return True
    value = node.meta.get("val")
    computes = elementwise(node.target) or node.target is aten.batch_norm.default
    return isinstance(value, torch.Tensor) and value.dim() == 3 and computes


def _kept(editor: Editor, node: Node, lifted: dict[Node, Node]) -> None:
    """A node that works on signals as they are, between views."""
    for source in [n for n in node.all_input_nodes if n in lifted]:
        with editor.gm.graph.inserting_before(node):
            back = editor.call(VIEW, lifted[source], [-1, *shape_of(source)], like=source)
        node.replace_input_with(source, back)
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor) and value.dim() == 3 and not samples_of(node):
        channels, length = shape_of(node)
        with editor.gm.graph.inserting_after(node):
            lifted[node] = editor.call(VIEW, node, [-1, channels, 1, length], like=node)


def _map_call(editor: Editor, node: Node, lifted: dict[Node, Node]) -> Node | None:
    """What ``node`` does, on maps; None if maps have no such operation."""
    active = active_nodes(editor.gm)

    def up(value: object) -> object:
        if not isinstance(value, Node) or value in lifted:
            return lifted.get(value, value) if isinstance(value, Node) else value
        if value not in active or not isinstance(value.meta.get("val"), torch.Tensor):
            return value
        if rank_of(value) != 3 or samples_of(value):
            return value
        channels, length = shape_of(value)
        return editor.call(VIEW, value, [-1, channels, 1, length], like=value)

    target = node.target
    args = [up(a) for a in node.args]
    x = cast(Node, args[0])

    def two(index: int, default: Any, first: int) -> list[int]:
        """A size along L as sizes along H and L."""
        value = argument(node, index, default)
        value = value if isinstance(value, int) else value[0]
        return [first, int(value)]

    if target in (aten.conv1d.default, aten.conv1d.padding):
        weight = cast(Node, args[1])
        outputs, inputs, length = (int(n) for n in weight.meta["val"].shape)
        weight = editor.call(VIEW, weight, [outputs, inputs, 1, length], like=node)
        named = target is aten.conv1d.padding
        padding = argument(node, 4, "valid") if named else two(4, 0, 0)
        return editor.call(
            aten.conv2d.padding if named else CONV, x, weight, argument(node, 2, None),
            two(3, 1, 1), padding, two(5, 1, 1), argument(node, 6, 1), like=node,
        )  # fmt: skip
    if target is aten.max_pool1d.default:
        kernel = two(1, None, 1)
        moved = (two(2, kernel[1], 1), two(3, 0, 0), two(4, 1, 1))
        return editor.call(MAX_POOL, x, kernel, *moved, argument(node, 5, False), like=node)
    if target is aten.avg_pool1d.default:
        kernel = two(1, None, 1)
        rest = (two(2, kernel[1], 1), two(3, 0, 0), argument(node, 4, False))
        counted = node.args[5] if len(node.args) > 5 else True
        return editor.call(aten.avg_pool2d.default, x, kernel, *rest, counted, like=node)
    if target is aten.adaptive_avg_pool1d.default:
        return editor.call(aten.adaptive_avg_pool2d.default, x, two(1, None, 1), like=node)
    if target is aten.upsample_linear1d.vec:
        return _interpolated(editor, node, x)
    if target is aten.mean.dim:
        dims = cast(list[int], node.args[1])
        if [d % 3 for d in dims] != [2]:
            return None
        return editor.call(target, x, [2, 3], argument(node, 2, False), like=node)
    if target in _FLAT and rank_of(node) == 2 and shape_of(node)[0] == _numel(x):
        return editor.call(FLATTEN, x, 1, like=node)
    if is_call(node, CAT):
        parts = [_deep(editor, part, up, node) for part in cast(list[Node], node.args[0])]
        dim = int(argument(node, 1, 0)) % 3
        return editor.call(CAT, parts, dim + (dim == 2), like=node)
    return _elementwise(editor, node, up)


def _interpolated(editor: Editor, node: Node, x: Node) -> Node:
    """Linear interpolation of a signal as bilinear interpolation of a map of one row."""
    factors = node.args[3] and [1.0, *cast(list[float], node.args[3])]
    size = [1, shape_of(node)[1]] if factors is None else None
    target = cast(Callable[..., Any], aten.upsample_bilinear2d.vec)
    return editor.call(target, x, size, node.args[2], factors, like=node)


def _numel(node: Node) -> int:
    return int(torch.Size(shape_of(node)).numel())


def _elementwise(editor: Editor, node: Node, up: Callable[[object], object]) -> Node | None:
    """The same operation, if it works element by element or channel by channel."""
    same = (
        aten.batch_norm.default,
        aten.dropout.default,
        aten.feature_dropout.default,
        aten.pad.default,
        aten.constant_pad_nd.default,
        aten.contiguous.default,
        aten.clone.default,
        aten.prelu.default,
    )
    quantises = str(node.target).startswith("quantized_decomposed.")
    repeats = node.target is aten.pad.default and argument(node, 2, "constant") != "constant"
    if repeats or not (elementwise(node.target) or quantises or node.target in same):
        return None
    args = map_arg(node.args, lambda value: _deep(editor, value, up, node))
    call = editor.call(cast(Callable[..., Any], node.target), *args, like=node)
    call.kwargs = node.kwargs
    return call


def _deep(editor: Editor, value: Node, up: Callable[[object], object], like: Node) -> Node:
    """A tensor on maps; a constant with dimensions has one more, before the last."""
    above = cast(Node, up(value))
    if above is not value or value in active_nodes(editor.gm):
        return above
    flat = "val" not in value.meta or value.meta["val"].dim() < 2
    return value if flat else editor.call(aten.unsqueeze.default, value, -2, like=like)

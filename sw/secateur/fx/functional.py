"""Operations in place as operations with a result of their own."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, cast

from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node

from secateur.fx.graph import aten, is_call, refuse

_DROPOUTS = {aten.dropout.default, aten.feature_dropout.default}
#: Operations whose result is their argument, in inference.
IDENTITIES = _DROPOUTS | {
    aten.contiguous.default,
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
}


def functionalise(gm: GraphModule) -> None:
    """Give operations in place a result of their own, which later users of the tensor take.

    Raises
    ------
    SecateurError : a later user sees the tensor through a view
    """
    order = {n: i for i, n in enumerate(gm.graph.nodes)}
    for node in gm.graph.nodes:
        function = _out_of_place(node.target)
        if function is None:
            continue
        for alias, later in _readers(node, order):
            if _is_view(alias, node):
                raise refuse(
                    node,
                    "changes in place a tensor that is also used through a view",
                    "export the module by torch.export.export, or use the out-of-place operation",
                )
            for user in later:
                user.replace_input_with(alias, node)
        node.target = function


def writes_to_views(graph: Graph) -> bool:
    """Whether an operation in place changes what is read through a view, too."""
    order = {n: i for i, n in enumerate(graph.nodes)}
    changed = [node for node in graph.nodes if _out_of_place(node.target) is not None]
    return any(_is_view(alias, n) for n in changed for alias, _ in _readers(n, order))


def _readers(node: Node, order: dict[Node, int]) -> list[tuple[Node, list[Node]]]:
    """Other names of what ``node`` changes that are read behind it, and by which nodes."""
    found = []
    for alias in _aliases(cast(Node, node.args[0]), order, order[node]):
        later = [user for user in alias.users if order[user] > order[node]]
        if later:
            found.append((alias, later))
    return found


def _is_view(alias: Node, node: Node) -> bool:
    return _unviewed(alias) is not _unviewed(cast(Node, node.args[0]))


def _out_of_place(target: object) -> Callable[..., Any] | None:
    """``aten.relu`` of ``aten.relu_``; None if it is not in place."""
    if not isinstance(target, OpOverload) or not target._opname.endswith("_"):
        return None
    packet = getattr(aten, target._opname[:-1], None)
    return getattr(packet, target._overloadname, None)


def _aliases(node: Node, order: dict[Node, int], end: int) -> list[Node]:
    """``node`` and all nodes before ``end`` that may share its memory."""
    while _may_alias(node):
        node = cast(Node, node.args[0])
    found = [node]
    for alias in found:
        found += [u for u in alias.users if order[u] < end and _may_alias(u)]
    return found


def _may_alias(node: Node) -> bool:
    """Whether the result may share memory with the first argument, by the operator's schema."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return node.target is operator.getitem
    return is_call(node, *_DROPOUTS) or any(r.alias_info is not None for r in schema.returns)


def _unviewed(node: Node) -> Node:
    """The node that ``node`` is another name of."""
    while is_call(node, *IDENTITIES) and _may_alias(node):
        node = cast(Node, node.args[0])
    return node

"""What a model computes of all items of all samples at once, (N * T, ...), item by item.

Frames of a video, or steps of a sequence, are taken together with the samples by a view, go through
layers, and are parted by another view. Every node between the two is copied for each item; the
copies share their weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from secateur.canonical.norm import fold_norm
from secateur.fx.graph import FLATTEN, PRODUCTS, VIEW, Editor, aten, is_call, known, shape_of
from secateur.fx.moves import is_size, varying_nodes

_reshape = cast(Callable[..., Any], aten.reshape.default)
_stack = cast(Callable[..., Any], aten.stack.default)
#: Take samples and items together, or part them.
_VIEWS = (VIEW, FLATTEN, aten.reshape.default, aten._unsafe_view.default, aten.unflatten.int)
#: Sizes of a batch for which a size is tried.
_BATCHES = (97, 101)


def part_items(editor: Editor) -> None:
    """Compute items one by one, between the view that takes them together and the one behind."""
    parting = _Parting(editor)
    for node in list(editor.gm.graph.nodes):
        if node.op == "call_function" and node in parting.varying:
            with editor.gm.graph.inserting_before(node):
                parting.visit(node)
    editor.gm.graph.eliminate_dead_code()


class _Parting:
    """``parts`` are the items of nodes, (N, ...) each; ``batch`` is the size that is fixed."""

    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self.varying = varying_nodes(editor.gm.graph)
        self.batch = known(editor.gm.graph.find_nodes(op="placeholder")[0].meta["val"].shape[0])
        self.parts: dict[Node, list[Node]] = {}

    def visit(self, node: Node) -> None:
        """Part a node, or give it the parts of its argument."""
        items = self._items(node)
        if items > 1:
            parts = self._of(node, items)
            if parts is not None:
                self.parts[node] = parts
        elif is_call(node, *_VIEWS) and node.args[0] in self.parts:
            whole = self.editor.call(_stack, self.parts[cast(Node, node.args[0])], 1, like=node)
            node.replace_all_uses_with(self._seen(whole, list(shape_of(node)), node))

    def _items(self, node: Node) -> int:
        """Items per sample of a tensor, or of the tensors that an operation gives."""
        value = node.meta.get("val")
        value = value[0] if isinstance(value, list | tuple) and value else value
        sized = isinstance(value, torch.Tensor) and value.dim()
        return self._times(cast(torch.Tensor, value).shape[0]) if sized else 1

    def _times(self, size: Any) -> int:
        """How many times the batch a size is; 1 if it is another size."""
        if self.batch is not None or known(size) is not None:
            return 1 if size % (self.batch or size + 1) else size // (self.batch or size)
        expression = size.node.expr
        if len(expression.free_symbols) != 1:
            return 1
        (batch,) = expression.free_symbols
        found = [divmod(int(expression.subs(batch, count)), count) for count in _BATCHES]
        return found[0][0] if found[0] == found[1] and found[0][1] == 0 else 1

    def _of(self, node: Node, items: int) -> list[Node] | None:
        """The items of a node; None if it does not compute each by itself."""
        sources = [source for source in node.all_input_nodes if source in self.varying]
        if is_call(node, *_VIEWS) and self._items(sources[0]) == 1:
            whole = self._seen(sources[0], [items, *shape_of(node)], node)
            select = aten.select.int
            return [self.editor.call(select, whole, 1, i, like=node) for i in range(items)]
        if not all(len(self.parts.get(source, [])) == items for source in sources):
            return None
        if is_call(node, *_VIEWS):
            shape = list(shape_of(node))
            return [self._seen(part, shape, node) for part in self.parts[sources[0]]]
        if is_call(node, aten.batch_norm.default) and is_call(sources[0], *PRODUCTS):
            folded = fold_norm(self.editor, node)  # all copies read one weight
            folded.meta["val"] = node.meta["val"]
            return self._of(folded, items)
        parts = ({source: self.parts[source][i] for source in sources} for i in range(items))
        return [self._copied(node, part) for part in parts]

    def _seen(self, x: Node, shape: list[int], like: Node) -> Node:
        """The values of all samples in another shape."""
        return self.editor.call(_reshape, x, [-1, *shape], like=like)

    def _copied(self, node: Node, parts: dict[Node, Node]) -> Node:
        """The node's operation on one item."""

        def one(part: Any) -> Any:
            many = isinstance(part, Node) and is_size(part) and self._times(part.meta["val"]) > 1
            return self.editor.batch() if many else parts.get(part, part)

        copy = self.editor.gm.graph.node_copy(node)
        copy.args, copy.kwargs = map_arg(node.args, one), map_arg(node.kwargs, one)
        args: Any = map_arg(copy.args, lambda n: n.meta["val"])
        kwargs: Any = map_arg(copy.kwargs, lambda n: n.meta["val"])
        with self.editor.mode, torch.no_grad():
            copy.meta["val"] = cast(Callable[..., Any], copy.target)(*args, **kwargs)
        return copy

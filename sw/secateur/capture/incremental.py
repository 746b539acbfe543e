"""The graph of a window becomes that of a step, which keeps the columns that later steps need."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.graph import CodeGen
from torch.fx.node import map_arg

from secateur.capture.columns import (
    RESHAPE,
    VIEWS,
    Column,
    counts,
    is_cropped,
    reach,
    size_from_end,
    sizes_of,
)
from secateur.capture.outputs import output_nodes
from secateur.errors import SecateurWarning
from secateur.fx.functions import elementwise
from secateur.fx.graph import (
    CAT,
    CONV,
    MAX_POOL,
    PAD,
    Editor,
    active_nodes,
    argument,
    aten,
    is_call,
    name_of,
    pair,
    refuse,
)
from secateur.fx.moves import is_move, is_size

_LATER = "a step would need later frames; pad on the left only"


class Incremental:
    """The rewrite of a window's graph, which ``run`` does in place.

    Parameters
    ----------
    editor : of the canonical graph
    time : dimension of the frames in the window
    """

    def __init__(self, editor: Editor, time: int) -> None:
        self.editor, self.time = editor, time
        self.graph = editor.gm.graph
        (self.window,) = (n for n in self.graph.nodes if n.op == "placeholder")
        self.frames = int(self.window.meta["val"].shape[time])
        self.active = active_nodes(editor.gm)
        self.columns: dict[Node, Column] = {}
        self.steady: dict[Node, Node] = {}  # values without a time axis
        self.inputs: list[Node] = []  # the frame, and the states
        self.after: list[Node] = []
        self.histories: dict[tuple[Node, int], Node] = {}
        self.result: Column | None = None

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the states, without the batch."""
        return [tuple(int(n) for n in node.meta["val"].shape[1:]) for node in self.inputs[1:]]

    def run(self) -> Incremental:
        """Rewrite the graph in place."""
        end = next(n for n in self.graph.nodes if n.op == "output")
        nodes = [n for n in self.graph.nodes if n in self.active and n.op == "call_function"]
        shape = [int(n) for n in self.window.meta["val"].shape[1:]]
        del shape[self.time - 1]
        frame = self._input("frame", (prod(shape),))
        shape.insert(self.time - 1, 1)
        with self.graph.inserting_before(end):
            column = self.editor.call(RESHAPE, frame, [-1, *shape], like=self.window)
            self.columns[self.window] = Column(column, self.time, self.frames, 0)
            for node in nodes:
                if not is_size(node):
                    self._visit(node)
            result = self._flat_result(*output_nodes(self.editor.gm))
        self.graph.set_codegen(CodeGen())
        end.args = ((result, *self.after),)
        self.graph.eliminate_dead_code()
        self.graph.erase_node(self.window)
        self.graph.lint()
        self.editor.gm.recompile()
        return self

    def _input(self, name: str, shape: tuple[int, ...]) -> Node:
        """A new input, (N, *shape)."""
        with self.graph.inserting_after(self.inputs[-1] if self.inputs else self.window):
            node = self.graph.placeholder(name)
        with self.editor.mode:
            value = self.window.meta["val"]
            node.meta["val"] = value.new_empty((value.shape[0], *shape))
        self.inputs.append(node)
        return node

    def _visit(self, node: Node) -> None:
        timed = [n for n in node.all_input_nodes if n in self.columns]
        mixed = any(n in self.steady for n in node.all_input_nodes)
        if not timed:
            self.steady[node] = self._call(node, lambda n: self.steady.get(n, n))
            return
        column = None
        if not mixed:
            if is_call(node, CONV, MAX_POOL):
                column = self._looks_back(node)
            elif is_call(node, PAD) and float(argument(node, 3, 0.0)) == 0:
                column = self._padded(node)
            elif elementwise(node.target) or is_call(node, CAT):
                column = self._side_by_side(node)
            elif is_move(node) and len(timed) == 1:
                column = self._moved(node)
        if column is not None:
            self.columns[node] = column
        elif node not in self.steady:
            self._warn_of(node)
            self.steady[node] = self._call(node, self._whole)

    def _warn_of(self, node: Node) -> None:
        """Say that columns are computed again in every step."""
        column = self.columns.get(cast(Node, node.args[0]))
        if column and is_call(node, CONV, MAX_POOL) and sizes_of(node)[column.axis] > 1:
            warnings.warn(
                f"{name_of(node)}: has a stride over time or needs later frames; it and what "
                f"follows are computed for the whole window in every step",
                SecateurWarning,
                stacklevel=5,
            )

    def _call(self, node: Node, of: Callable[[Node], Node], *args: Any) -> Node:
        """The node's operation on other values, or with other arguments, ``args``."""
        given = map_arg(list(args or node.args), of)
        call = self.editor.call(cast(Callable[..., Any], node.target), *given, like=node)
        call.kwargs = node.kwargs
        return call

    def _history(self, source: Node, count: int) -> Node:
        """The newest ``count`` columns of a value, the oldest first."""
        column = self.columns[source]
        if count == 1:
            return column.node
        if (source, count) not in self.histories:
            shape = [int(n) for n in column.node.meta["val"].shape[1:]]
            shape[column.axis - 1] = count
            before = self._input(f"history_{len(self.after)}", tuple(shape))
            kept = self.editor.call(aten.slice.Tensor, before, column.axis, 1, count, like=source)
            now = self.editor.call(CAT, [kept, column.node], column.axis, like=source)
            self.histories[source, count] = now
            self.after.append(now)
            # Later readers take the column where it stands: its layer writes there at once.
            newest = self.editor.call(
                aten.slice.Tensor, now, column.axis, count - 1, count, like=source
            )
            self.columns[source] = replace(column, node=newest)
        return self.histories[source, count]

    def _late(self, source: Node, frames: int) -> Node:
        """The column of a value some frames ago."""
        past = self._history(source, frames + 1)
        axis = self.columns[source].axis
        return past if frames == 0 else self._cut(past, axis, 1, source)

    def _cut(self, node: Node, axis: int, count: int, like: Node) -> Node:
        return self.editor.call(aten.slice.Tensor, node, axis, 0, count, like=like)

    def _whole(self, source: Node) -> Node:
        """A value, all of its window if it has a time axis."""
        if source not in self.columns:
            return self.steady.get(source, source)
        column = self.columns[source]
        late = self.frames - 1 - column.ends
        if late < 0 or column.offset < 0:
            raise refuse(source, "is padded at the end of the window", _LATER)
        past = self._history(source, column.length + late)
        return past if late == 0 else self._cut(past, column.axis, column.length, source)

    def _looks_back(self, node: Node) -> Column | None:
        """A convolution or pooling over time, of the columns that it needs."""
        source = cast(Node, node.args[0])
        column = self.columns[source]
        back = reach(node, column)
        if back is None or (back.after and not is_cropped(node, column.axis, back.after)):
            return None
        if back.before and (column.offset > 0 or is_call(node, MAX_POOL)):
            return None
        offset = column.offset + back.span - 1 - back.before
        if offset < 0:
            return None
        given = list(node.args)
        given[0] = self._history(source, back.span)
        padding = list(pair(argument(node, back.padding_at, 0)))
        padding[column.axis - 2] = 0
        if len(given) > back.padding_at:
            given[back.padding_at] = padding
        call = self._call(node, lambda n: n, *given)
        return Column(call, column.axis, int(node.meta["val"].shape[column.axis]), offset)

    def _padded(self, node: Node) -> Column | None:
        """A padding with zeros: of time only in front, of a convolution that reads all of it."""
        column = self.columns[cast(Node, node.args[0])]
        rank = column.node.meta["val"].dim()
        amounts = [int(n) for n in cast(list[int], node.args[1])]
        at = 2 * (rank - 1 - column.axis)
        left, right = (amounts[at], amounts[at + 1]) if at < len(amounts) else (0, 0)
        if right or left < 0 or (left and column.offset):
            return None
        padded = replace(column, length=column.length + left, offset=column.offset - left)
        for user in node.users if left else ():
            back = reach(user, padded) if is_call(user, CONV) else None
            if back is None or back.before + left >= back.span or back.after:
                return None
        rest = [0 if i in (at, at + 1) else n for i, n in enumerate(amounts)]
        if any(rest):
            call = self._call(node, lambda n: n, column.node, rest, *node.args[2:])
            padded = replace(padded, node=call)
        return padded

    def _side_by_side(self, node: Node) -> Column | None:
        """An operation on values of the same frame, those that are known earlier delayed."""
        parts = {n: self.columns[n] for n in node.all_input_nodes if n in self.columns}
        first = next(iter(parts.values()))
        offset = max(column.offset for column in parts.values())
        others = [n for n in node.all_input_nodes if n not in parts and not is_size(n)]
        along = any(size_from_end(n, first.node, first.axis) > 1 for n in others)
        joins = is_call(node, CAT) and int(argument(node, 1, 0)) % len(sizes_of(node)) == first.axis
        if (
            along
            or joins
            or any(
                (c.length, c.axis) != (first.length, first.axis) or c.offset < 0
                for c in parts.values()
            )
        ):
            return None
        late = {n: self._late(n, offset - column.offset) for n, column in parts.items()}
        call = self._call(node, lambda n: late.get(n, n))
        return replace(first, node=call, offset=offset)

    def _moved(self, node: Node) -> Column | None:
        """A move that keeps the time axis, or takes one column of it."""
        source = next(n for n in node.all_input_nodes if n in self.columns)
        column = self.columns[source]
        size = column.node.meta["val"].dim()
        shape = [1] * size
        shape[column.axis] = column.length
        numbers = torch.arange(column.length).reshape(shape).expand(2, *sizes_of(source)[1:])

        def of(value: Node) -> Any:
            return numbers if value is source else 2

        if node.target is operator.getitem or any(
            n is not source and not is_size(n) for n in node.all_input_nodes
        ):
            return None
        found = cast(Callable[..., Any], node.target)(*map_arg(node.args, of), **node.kwargs)
        if not isinstance(found, Tensor):
            return None
        axis = next(
            (a for a in range(1, found.dim()) if found.shape[a] > 1 and counts(found, a)), 0
        )
        if axis == 0:
            single = found.flatten()
            if len(single) and bool((single == single[0]).all()):
                late = self.frames - 1 - int(single[0]) - column.offset
                if late >= 0 and column.offset >= 0 and node.target is aten.select.int:
                    node_of = self._late(source, late)
                    self.steady[node] = self._call(node, lambda n: n, node_of, node.args[1], 0)
            return None
        if is_call(node, aten.slice.Tensor) and int(argument(node, 1, 0)) % size == column.axis:
            start = int(found.movedim(axis, -1).flatten()[0])
            return Column(column.node, axis, found.shape[axis], column.offset + start)
        sizes = list(found.shape)
        sizes[axis] = 1
        if is_call(node, *VIEWS):
            call = self.editor.call(RESHAPE, column.node, [-1, *sizes[1:]], like=node)
        else:
            call = self._call(node, lambda n: column.node if n is source else n)
        same = [int(n) for n in call.meta["val"].shape[1:]] == sizes[1:]
        return Column(call, axis, column.length, column.offset) if same else None

    def _flat_result(self, node: Node) -> Node:
        """The result of a step, (N, K)."""
        found = self.steady.get(node)
        if found is None:
            self.result = self.columns[node]
            found = self.result.node
            if self.result.ends >= self.frames or self.result.offset < 0:
                raise refuse(node, "is padded at the end of the window", _LATER)
        size = prod(int(n) for n in found.meta["val"].shape[1:])
        return self.editor.call(RESHAPE, found, [-1, size], like=node)

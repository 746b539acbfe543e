"""The values of a graph's nodes while it is lowered, and the layers that make them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch.fx import GraphModule, Node

from secateur.capture.export import batch_of
from secateur.fx.graph import constant, conv_window, leaves, refuse
from secateur.fx.moves import Moved, Numbers, moved, samples_of, sources_of, varying_nodes
from secateur.ir import Table
from secateur.lowering.draft import PLAIN, DraftLayer, DraftSource, is_linear
from secateur.lowering.moved import copy_layer
from secateur.lowering.store import Grid, Size, Store, Value, concatenate
from secateur.lowering.views import (
    Numbering,
    as_map,
    copies,
    even_grid,
    scattered,
    side_by_side,
)
from secateur.quantisation.match import Operand
from secateur.quantisation.scales import REQUANTISE, Scale

#: Copies for one move; more would take longer than a network.
MOST_COPIES = 512
#: Channels that a layer computes at once, about.
LANES = 8


class Values:
    """The value of every node, ``of[node]``, and the ``layers`` so far.

    Parameters
    ----------
    gm : the graph
    """

    def __init__(self, gm: GraphModule) -> None:
        self.gm = gm
        self.of: dict[Node, Value] = {}
        self.sized: dict[tuple[bytes, bytes, Scale, Size], Value] = {}
        self.layers: list[DraftLayer] = []
        self.numbering = Numbering()
        self.varying = varying_nodes(gm.graph)
        self.fixed: set[Node] = set()
        self.batch = batch_of(gm)

    def new(self, store: Store, shape: tuple[int, ...] | None = None) -> Value:
        """The value of a new store, seen in this shape."""
        self.numbering.add(store)
        numbers = self.numbering.of(store)
        numbers = numbers.reshape(store.size if shape is None else shape)
        return Value(Moved(numbers, np.zeros(numbers.shape)), store.scale, store)

    def value(self, node: Node, user: Node) -> Value:
        """The value of a node.

        Raises
        ------
        SecateurError : it is not quantised; ``user`` is named
        """
        if node not in self.of:
            raise refuse(user, f"reads {node.name}, which is not quantised", REQUANTISE)
        return self.of[node]

    def move(self, node: Node) -> None:
        """The value of a move, which takes its place beside others at once where it can.

        One that leaves the samples in a later dimension has none: moves behind it go through it.

        Raises
        ------
        SecateurError : it mixes samples, or tensors of different scales
        """
        if samples_of(node):
            return
        parts = [part for part in self._stored_sources(node) if part in self.varying]
        given = {part: self.value(part, node) for part in parts if part not in self.fixed}
        if not given:
            # Its scale is that of the node that quantises it; zeros have any.
            self.fixed.add(node)
            return
        scales = [value.scale for value in given.values()]
        if len({(scale.exponent, scale.signed) for scale in scales}) > 1:
            raise refuse(node, "brings tensors of different scales together", REQUANTISE)
        scale = replace(scales[0], low=min(s.low for s in scales), high=max(s.high for s in scales))
        moves = {part: value.moved for part, value in given.items()}
        moves |= {part: self._constants(part) for part in parts if part in self.fixed}
        result = moved(node, moves, lambda n: constant(self.gm, n), self.batch)
        self.of[node] = Value(result, scale, self.numbering.whole(result.numbers))
        stores = self._beside(result.numbers)
        if stores is not None:
            self.of[node] = replace(self.of[node], store=concatenate(node.name, stores))

    def _stored_sources(self, node: Node) -> list[Node]:
        """What a move takes values of, behind moves that leave the samples elsewhere."""
        return leaves(node, lambda n: sources_of(n) if n is node or samples_of(n) else [])

    def constant(self, node: Node, scale: Scale) -> Value:
        """The value of a move that has constants alone."""
        return Value(self._constants(node), scale)

    def _constants(self, node: Node) -> Moved:
        return moved(node, {}, lambda n: constant(self.gm, n), self.batch)

    def _beside(self, numbers: Numbers) -> list[Store] | None:
        """The stores that a map consists of, if they can come to lie side by side."""
        if not numbers.size:
            return None
        runs = self.numbering.runs(numbers.reshape(as_map(numbers.shape)))
        stores = [store for store, _ in runs if store is not None]
        free = all(not store.fixed and store.parent is None for store in stores)
        once = len(set(stores)) == len(runs) > 1
        return stores if free and once else None

    def stored(self, node: Node, size: Size | None = None) -> Value:
        """The value of a node as a store, of this size if it is given: where it has its place, or
        side by side with others, or by copies.

        Raises
        ------
        SecateurError : it would take more than MOST_COPIES
        """
        value = self.of[node]
        if value.store is not None and size in (None, value.store.size):
            return value
        size = size or as_map(value.shape)
        numbers = value.moved.numbers.reshape(size)
        same = (numbers.tobytes(), value.moved.constants.tobytes(), value.scale, size)
        if same in self.sized:
            found = self.sized[same]
            numbers = found.moved.numbers.reshape(value.shape)
            return replace(found, moved=Moved(numbers, np.zeros(value.shape)))
        stores: list[Store] = []
        for part, channels in _together(self.numbering.runs(numbers)):
            first = sum(store.channels for store in stores)
            if part is None:
                stores += self._gathered(node, value, size, slice(first, first + channels))
            elif part.fixed or part.parent is not None or part in stores:
                stores.append(self.copied(part, node))
            else:
                stores.append(part)
        store = stores[0] if len(stores) == 1 else concatenate(node.name, stores)
        found_numbers = self.numbering.of(store).reshape(value.shape)
        value = Value(Moved(found_numbers, np.zeros(value.shape)), value.scale, store)
        if self.of[node].store is None:
            self.of[node] = value
        self.sized[same] = value
        return value

    def _gathered(self, node: Node, value: Value, size: Size, part: slice) -> list[Store]:
        """Copies of channels of a map that are not a store, as stores side by side."""
        whole = Moved(value.moved.numbers.reshape(size), value.moved.constants.reshape(size))
        scale, stores = value.scale, []
        for channels in side_by_side(self.numbering, whole.numbers[part]):
            numbers, constants = whole.numbers[part][channels], whole.constants[part][channels]
            codes = np.rint(np.ldexp(constants, -scale.exponent))
            codes = np.clip(codes, scale.low, scale.high).astype(np.int64)
            name = f"{node.name}.{part.start + channels.start}"
            store = Store(name, *as_map(numbers.shape), scale)
            made = copies(self.numbering, numbers, codes)
            if len(made) > MOST_COPIES:
                fixed = bool((numbers < 0).all())
                what = "a constant map of" if fixed else "an order that takes"
                remedy = "give one value per channel" if fixed else "leave the order as it is"
                raise refuse(_made_by(node), f"{what} {len(made)} copies", remedy)
            spare = self.numbering.stores[-1]
            self.layers += [copy_layer(copy, store, spare) for copy in made]
            self.numbering.add(store)
            stores.append(store)
        return stores

    def copied(self, store: Store, reader: Node) -> Store:
        """A copy of a store, for a reader that needs it in another place."""
        name = f"{store.name}.{reader.name}"
        copy = Store(name, store.channels, store.height, store.width, store.scale)
        source = DraftSource(store, "lanewise", np.ones((store.channels, 1, 1), np.int64), PLAIN)
        self.add_plain("copy", source, copy, [])
        self.numbering.add(copy)
        return copy

    def add_plain(
        self,
        kind: str,
        source: DraftSource,
        output: Store,
        nodes: list[Node],
        table: Table | None = None,
    ) -> None:
        """Add a layer that changes no code, but for a table.

        Parameters
        ----------
        kind : for reports
        source : what it reads, with weights of 1
        output : what it writes
        nodes : that it stands for
        table : looked up
        """
        zeros, scale = np.zeros(output.channels, np.int64), source.store.scale
        self.layers.append(
            DraftLayer(kind, [source], output, zeros, zeros, scale.low, scale.high, nodes, table)
        )

    def grid(self, operand: Operand) -> Grid | None:
        """Where an operand of a sum can be read without a copy, although moves have made it."""
        value = self.of[operand.value]
        if operand.product is None:
            grid = even_grid(self.numbering, value.moved.numbers.reshape(as_map(value.shape)))
            whole = grid is not None and np.array_equal(
                grid.channels, np.arange(grid.store.channels)
            )
            return grid if whole and not any(operand.padding) else None
        if is_linear(operand):
            return scattered(self.numbering, value.moved.numbers)
        grid = even_grid(self.numbering, value.moved.numbers.reshape(as_map(value.shape)))
        _, inputs, *kernel = (int(n) for n in constant(self.gm, operand.weight).shape)
        alone = grid is not None and np.array_equal(grid.channels, np.arange(grid.store.channels))
        dense = inputs == as_map(value.shape)[0] or (inputs == 1 and alone)
        window = conv_window(operand.product, (kernel[0], kernel[1]))
        padding = [a + b for a, b in zip(window.padding, operand.padding, strict=True)]
        return grid if grid is not None and dense and grid.takes(padding, value.shape) else None


def _made_by(node: Node) -> Node:
    """The node of the model whose codes a node has."""
    while str(node.target).startswith("quantized_decomposed."):
        node = node.all_input_nodes[0]
    return node


def _together(runs: list[tuple[Store | None, int]]) -> list[tuple[Store | None, int]]:
    """Runs of stores; where one is there again and again, copies of all at once if that is less."""
    parts: list[tuple[Store | None, int]] = []
    first = 0
    while first < len(runs):
        store, channels = runs[first]
        count = 1
        while store is not None and runs[first + count : first + count + 1] == [runs[first]]:
            count += 1
        if -(-count * channels // LANES) < (count - 1) * -(-channels // LANES):
            store, channels = None, count * channels
            first += count
        else:
            first += 1
        if store is None and parts and parts[-1][0] is None:
            parts[-1] = (None, parts[-1][1] + channels)
        else:
            parts.append((store, channels))
    return parts

"""From a converted PT2E graph to ``ir.Network``: exact integers, no geometry yet."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from secateur.canonical.supported import check_pool_windows, check_supported, unsupported
from secateur.capture.export import (
    input_node,
    is_converted,
    module_of,
    needed_nodes,
    source_hash,
)
from secateur.capture.outputs import output_node
from secateur.capture.steps import Sequence, state_pairs
from secateur.errors import SecateurError
from secateur.fx.functions import UNARY
from secateur.fx.graph import (
    MAX_POOL,
    PAD,
    Window,
    active_nodes,
    constant,
    conv_window,
    is_call,
    is_zero_pad,
    label_of,
    pad_amounts,
    path_of,
    pool_window,
    refuse,
    shape_of,
)
from secateur.fx.moves import Moved, Numbers, is_move, is_size, moved, sources_of
from secateur.ir import Layer, Network, Source, State, Table
from secateur.lowering.layer import (
    PLAIN,
    DraftLayer,
    DraftSource,
    copy_layer,
    draft_layer,
    is_linear,
    output_shape,
    written_in_place,
)
from secateur.lowering.store import Grid, Size, Store, Stores, Value, concatenate
from secateur.lowering.tables import table_of
from secateur.lowering.views import (
    Numbering,
    as_map,
    copies,
    even_grid,
    scattered,
    side_by_side,
)
from secateur.quantisation.match import Match, Operand, is_dequantise, is_quantise, match_layer
from secateur.quantisation.scales import REQUANTISE, Scale, scale_of

#: Copies for one move; more would take longer than a network.
MOST_COPIES = 512


def lower(model: torch.nn.Module | ExportedProgram) -> Network:
    """Lower a converted graph to integers; of a recurrent model, the graph of its step.

    Parameters
    ----------
    model : from :func:`secateur.quantize`, or such a graph saved and loaded

    Raises
    ------
    SecateurError : the model is not quantised, or the array cannot run a node
    """
    gm = model
    if isinstance(model, ExportedProgram):  # other tools make graphs that are not canonical
        gm = module_of(model)
        check_supported(gm)
    every_step = isinstance(gm, Sequence) and gm.every_step
    gm = gm.graph if isinstance(gm, Sequence) else gm
    if not isinstance(gm, GraphModule) or not is_converted(gm):
        raise SecateurError("the model is not quantised; quantise it with secateur.quantize")
    network = _Lowering(gm).network()
    network.every_step = every_step
    return network


class _Lowering:
    def __init__(self, gm: GraphModule) -> None:
        self.gm = gm
        self.values: dict[Node, Value] = {}
        self.layers: list[DraftLayer] = []
        self.used: set[Node] = set()
        self.input: Store | None = None
        self.states: dict[Node, Store] = {}
        self.numbering = Numbering()
        self.active = active_nodes(gm)
        size = input_node(gm).meta["val"].shape[0]
        self.batch = size if isinstance(size, int) else None

    def network(self) -> Network:
        active = self.active & needed_nodes(self.gm)
        for node in self.gm.graph.nodes:
            if node in active and node.op == "call_function":
                self._visit(node)
        self._check_complete(active)
        result = output_node(self.gm)
        if self.input is None:
            raise refuse(result, "the output does not depend on the input", "give it to a layer")
        if result not in self.values:
            raise refuse(result, "the output is not quantised", REQUANTISE)
        value = self._stored(result)
        store = value.whole
        if store.fixed or store.parent or store.parts:
            store = self._copied(store, result)  # results come from one layer
        after = []
        for before, later in state_pairs(self.gm):
            if before not in self.states:
                raise SecateurError(f"state {before.name!r} is never read; remove it")
            if later not in self.values:
                raise refuse(later, "a state that is not quantised", REQUANTISE)
            after.append((self.states[before], self._stored(later).whole))
        self.layers = written_in_place(self.layers, {store, *(kept for _, kept in after)})
        names, stores = set[str](), Stores()
        return Network(
            input=stores.tensor(self.input),
            output=stores.tensor(store),
            layers=[_finish(draft, stores, names) for draft in self.layers],
            features=value.shape,
            source_hash=source_hash(self.gm),
            states=[State(stores.part(before), stores.part(later)) for before, later in after],
        )

    def _visit(self, node: Node) -> None:
        if is_quantise(node):
            self._quantise(node)
        elif is_dequantise(node):
            value = self._value(cast(Node, node.args[0]), node)
            if scale_of(node) != scale_of(cast(Node, node.args[0])):
                raise refuse(node, "dequantises by another scale", REQUANTISE)
            self.values[node] = value
        elif is_call(node, MAX_POOL):
            self._max_pool(node)
        elif is_move(node) and not _has_parts(node):
            self._move(node)

    def _new(self, store: Store, shape: tuple[int, ...] | None = None) -> Value:
        """The value of a new store, seen in this shape."""
        self.numbering.add(store)
        numbers = self.numbering.of(store).reshape(shape or (-1, store.height, store.width))
        return Value(Moved(numbers, np.zeros(numbers.shape)), store.scale, store)

    def _move(self, node: Node) -> None:
        parts = [part for part in sources_of(node) if part in self.active]
        given = {part: self._value(part, node) for part in parts}
        scales = [value.scale for value in given.values()]
        if len({(scale.exponent, scale.signed) for scale in scales}) > 1:
            raise refuse(node, "brings tensors of different scales together", REQUANTISE)
        scale = replace(scales[0], low=min(s.low for s in scales), high=max(s.high for s in scales))
        moves = {part: value.moved for part, value in given.items()}
        result = moved(node, moves, lambda n: constant(self.gm, n), self.batch)
        self.values[node] = Value(result, scale, self.numbering.whole(result.numbers))
        stores = self._beside(result.numbers)
        if stores is not None:
            self.values[node] = replace(self.values[node], store=concatenate(node.name, stores))

    def _beside(self, numbers: Numbers) -> list[Store] | None:
        """The stores that a map consists of, if they can come to lie side by side."""
        if not numbers.size:
            return None
        runs = self.numbering.runs(numbers.reshape(as_map(numbers.shape)))
        stores = [store for store, _ in runs if store is not None]
        free = all(not store.fixed and store.parent is None for store in stores)
        once = len(set(stores)) == len(runs) > 1
        return stores if free and once else None

    def _stored(self, node: Node, size: Size | None = None) -> Value:
        """The value of a node as a store, of this size if it is given: where it has its place, or
        side by side with others, or by copies.
        """
        value = self.values[node]
        if value.store is not None and size in (None, value.store.size):
            return value
        size = size or as_map(value.shape)
        numbers = value.moved.numbers.reshape(size)
        stores: list[Store] = []
        for found, channels in self.numbering.runs(numbers):
            first = sum(store.channels for store in stores)
            if found is None:
                stores += self._gathered(node, value, size, slice(first, first + channels))
            elif found.fixed or found.parent is not None or found in stores:
                stores.append(self._copied(found, node))
            else:
                stores.append(found)
        store = stores[0] if len(stores) == 1 else concatenate(node.name, stores)
        found_numbers = self.numbering.of(store).reshape(value.shape)
        value = Value(Moved(found_numbers, np.zeros(value.shape)), value.scale, store)
        if self.values[node].store is None:
            self.values[node] = value
        return value

    def _gathered(self, node: Node, value: Value, size: Size, part: slice) -> list[Store]:
        """Copies of channels of a map that are no store, as stores side by side."""
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
                raise refuse(
                    node, f"an order that takes {len(made)} copies", "leave the order as it is"
                )
            spare = self.numbering.stores[0]
            self.layers += [copy_layer(copy, store, spare) for copy in made]
            self.numbering.add(store)
            stores.append(store)
        return stores

    def _copied(self, store: Store, reader: Node) -> Store:
        """A copy of a store, for a reader that needs it in another place."""
        name = f"{store.name}.{reader.name}"
        copy = Store(name, store.channels, store.height, store.width, store.scale)
        source = DraftSource(store, "lanewise", np.ones((store.channels, 1, 1), np.int64), PLAIN)
        self._add_plain("copy", source, copy, [])
        self.numbering.add(copy)
        return copy

    def _add_plain(
        self, kind: str, source: DraftSource, output: Store, nodes: list[Node],
        table: Table | None = None,
    ) -> None:  # fmt: skip
        """A layer that changes no code, but for a table."""
        zeros, scale = np.zeros(output.channels, np.int64), source.store.scale
        self.layers.append(
            DraftLayer(kind, [source], output, zeros, zeros, scale.low, scale.high, nodes, table)
        )

    def _value(self, node: Node, user: Node) -> Value:
        if node not in self.values:
            raise refuse(user, f"reads {node.name}, which is not quantised", REQUANTISE)
        return self.values[node]

    def _quantise(self, node: Node) -> None:
        source, scale = cast(Node, node.args[0]), scale_of(node)
        if source.op == "placeholder" and source in {before for before, _ in state_pairs(self.gm)}:
            state = self.states.get(source)
            if state is None:
                state = self.states[source] = Store(source.name, shape_of(source)[0], 1, 1, scale)
                self.values[source] = self._new(state, shape_of(source))
            if state.scale != scale:
                raise refuse(node, "a state has two scales", REQUANTISE)
            self.values[node] = self.values[source]
        elif source.op == "placeholder":
            shape = shape_of(source)
            if self.input is None:
                self.input = Store(source.name, *as_map(shape), scale, fixed=True)
                self.values[source] = self._new(self.input, shape)
            if self.input.scale != scale:
                raise refuse(node, "the input has two scales", REQUANTISE)
            if scale.high - scale.low != 255:
                raise refuse(node, f"input codes {scale.low}..{scale.high}", REQUANTISE)
            self.values[node] = self.values[source]
        elif source in self.values:
            found = self.values[source].scale
            fits = scale.low <= found.low and found.high <= scale.high
            if (found.exponent, found.signed) != (scale.exponent, scale.signed) or not fits:
                raise refuse(node, "changes the scale of a stored tensor", REQUANTISE)
            self.values[node] = self.values[source]
        elif is_call(source, *UNARY):
            self._look_up(node, source, scale)
        else:
            match = match_layer(source)
            for operand in match.operands:
                self._value(operand.value, match.result)
            operands = self._operands(match)
            draft = draft_layer(self.gm, match, operands, scale)
            self.used.update(match.nodes)
            draft.nodes = [*match.nodes, node, *(u for u in node.users if is_dequantise(u))]
            self.layers.append(draft)
            self.values[node] = self._new(draft.output, _shape(match, operands, draft.output))

    def _operands(self, match: Match) -> dict[Node, Value]:
        """What the operands of a layer read, as stores of the sizes that the layer wants."""
        wanted: dict[Node, Size | None] = {}
        plain = [operand.value for operand in match.operands if operand.product is None]
        for operand in match.operands:
            shape = self.values[operand.value].shape
            convolved = operand.product is not None and not is_linear(operand)
            wanted[operand.value] = as_map(shape) if convolved else None
        stored = [self.values[node].store for node in plain]
        together = len(match.operands) == len(plain)
        if not together or len({s and s.size for s in stored}) > 1:
            wanted |= {node: as_map(self.values[node].shape) for node in plain}
        found = {}
        for operand in match.operands:
            node = operand.value
            if operand.product is not None and self.values[node].store is None:
                grid = self._grid(operand)
                if grid is not None:
                    found[node] = replace(self.values[node], grid=grid)
                    continue
            found[node] = self._stored(node, wanted[node])
        return found

    def _grid(self, operand: Operand) -> Grid | None:
        """Where a product can read what moves have made, without a copy."""
        value = self.values[operand.value]
        if is_linear(operand):
            return scattered(self.numbering, value.moved.numbers)
        grid = even_grid(self.numbering, value.moved.numbers.reshape(as_map(value.shape)))
        _, inputs, *kernel = (int(n) for n in constant(self.gm, operand.weight).shape)
        dense = inputs == as_map(value.shape)[0]
        window = conv_window(cast(Node, operand.product), (kernel[0], kernel[1]))
        padding = [a + b for a, b in zip(window.padding, operand.padding, strict=True)]
        return grid if grid is not None and dense and grid.takes(padding, value.shape) else None

    def _look_up(self, node: Node, function: Node, scale: Scale) -> None:
        """A table behind the layer that makes the argument, or behind a copy of it."""
        argument = cast(Node, function.args[0])
        self._value(argument, function)
        value = self._stored(argument)
        store = value.whole
        table = table_of(function, store.scale, scale)
        output = Store(function.name, *store.size, scale)
        nodes = [function, node, *(u for u in node.users if is_dequantise(u))]
        makers = [d for d in self.layers if d.output is store]
        made = makers[0] if len(makers) == 1 else None
        alone = is_dequantise(argument) and len(argument.users) == 1
        alone = alone and len(argument.all_input_nodes[0].users) == 1
        if made is not None and made.kind != "maxpool" and made.table is None and alone:
            made.output, made.table = output, table
            made.nodes += nodes
        else:
            ones = np.ones((store.channels, 1, 1), np.int64)
            self._add_plain(
                "table", DraftSource(store, "lanewise", ones, PLAIN), output, nodes, table
            )
        self.used.add(function)
        self.values[node] = self._new(output, value.shape)

    def _max_pool(self, node: Node) -> None:
        x = cast(Node, node.args[0])
        outer = (0, 0, 0, 0)
        while is_zero_pad(x) and not self._value(cast(Node, x.args[0]), x).scale.signed:
            outer = cast(
                tuple[int, int, int, int],
                tuple(a + b for a, b in zip(outer, pad_amounts(x), strict=True)),
            )
            x = cast(Node, x.args[0])
        self._value(x, node)
        store = self._stored(x, as_map(self.values[x].shape)).whole
        top, left, bottom, right = outer
        size = (store.height + top + bottom, store.width + left + right)
        window = pool_window(node, size)
        top, left, bottom, right = (a + b for a, b in zip(window.padding, outer, strict=True))
        check_pool_windows(node, window, size)
        window = Window(window.kernel, window.stride, (top, left, bottom, right), window.dilation)
        ones = np.ones((store.channels, *window.kernel), np.int64)
        source = DraftSource(store, "maximum", ones, window)
        output = Store(node.name, *output_shape(source), store.scale)
        self._add_plain("maxpool", source, output, [node])
        self.values[node] = self._new(output)

    def _check_complete(self, active: set[Node]) -> None:
        """Every node must be part of a layer: nothing may be computed in floating point."""
        for node in self.gm.graph.nodes:
            known = node in self.values or node in self.used or is_size(node) or _has_parts(node)
            if node in active and node.op == "call_function" and not known:
                raise unsupported(node)


def _has_parts(node: Node) -> bool:
    """Whether a move has several results, which are taken one by one."""
    return is_move(node) and isinstance(node.meta.get("val"), list | tuple)


def _shape(match: Match, operands: dict[Node, Value], output: Store) -> tuple[int, ...]:
    """Shape of a layer's result, without samples."""
    last = match.operands[-1 if match.multiplies else 0]
    if last.product is None:
        return output.size if any(last.padding) else operands[last.value].shape
    return (output.channels,) if is_linear(last) else output.size


def _finish(draft: DraftLayer, stores: Stores, names: set[str]) -> Layer:
    sources = [
        Source(
            tensor=stores.tensor(s.store),
            mode=s.mode,
            weight=s.weight,
            stride=s.window.stride,
            padding=s.window.padding,
            dilation=s.window.dilation,
            first=s.store.first(),
            wshift=s.wshift,
        )
        for s in draft.sources
    ]
    first = _first(draft)
    return Layer(
        name=_name(draft, first, names),
        kind=draft.kind,
        sources=sources,
        output=stores.tensor(draft.output),
        bias=draft.bias,
        shift=draft.shift,
        low=draft.low,
        high=draft.high,
        first=draft.output.first(),
        nodes=[n.name for n in draft.nodes],
        table=draft.table,
        label="" if first is None else label_of(first),
        region=draft.region,
    )


def _first(draft: DraftLayer) -> Node | None:
    """The node that a layer is named by; a copy has none."""
    return next((n for n in draft.nodes if not is_call(n, PAD)), None)


def _name(draft: DraftLayer, first: Node | None, names: set[str]) -> str:
    """The module's path where the graph knows it, else the node's name; unique.

    An average has become a convolution, whose name would mislead.
    """
    base = draft.output.name  # of a copy, which stands for no node
    if first is not None:
        base = path_of(first) or ("average" if draft.kind == "avgpool" else first.name)
    name, count = base, 1
    while name in names:
        count += 1
        name = f"{base}#{count}"
    names.add(name)
    return name

"""From a converted PT2E graph to ``ir.Network``: exact integers, no geometry yet."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from secateur.canonical.supported import check_pool_windows, check_supported, unsupported
from secateur.capture.export import is_converted, module_of, needed_nodes, source_hash
from secateur.capture.outputs import output_node
from secateur.capture.steps import Sequence, state_pairs
from secateur.errors import SecateurError
from secateur.fx.functions import UNARY
from secateur.fx.graph import (
    CAT,
    FLATTEN,
    MAX_POOL,
    PAD,
    VIEW,
    Window,
    active_nodes,
    is_call,
    label_of,
    pad_amounts,
    path_of,
    pool_window,
    rank_of,
    refuse,
    shape_of,
)
from secateur.ir import Layer, Network, Source, State
from secateur.lowering.layer import PLAIN, DraftLayer, DraftSource, draft_layer, output_shape
from secateur.lowering.store import Store, Stores, Value, concatenate
from secateur.lowering.tables import table_of
from secateur.quantisation.match import is_dequantise, is_quantise, match_layer
from secateur.quantisation.scales import REQUANTISE, Scale, scale_of

_PADDING = "pad only before a convolution, an add or a pooling"


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
        check_supported(gm, sizes=True)
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

    def network(self) -> Network:
        active = active_nodes(self.gm) & needed_nodes(self.gm)
        for node in self.gm.graph.nodes:
            if node in active and node.op == "call_function":
                self._visit(node)
        self._check_complete(active)
        result = output_node(self.gm)
        if self.input is None:
            raise refuse(result, "the output does not depend on the input", "give it to a layer")
        if result not in self.values:
            raise refuse(result, "the output is not quantised", REQUANTISE)
        value = self.values[result]
        store, stores = value.store, Stores()
        if store is self.input:
            raise refuse(result, "the output is the input", "return the output of a layer")
        if store.parent or store.parts:
            store = self._copied(store, result)  # results come from one layer
        tensor = stores.tensor(store)
        shape: tuple[int, ...] = (tensor.channels, tensor.height, tensor.width)
        if is_call(result, VIEW) and len(cast(list[int], result.args[1])) == 3:
            shape = (tensor.channels, tensor.width)  # a signal
        names: set[str] = set()
        states = []
        for before, after in state_pairs(self.gm):
            if before not in self.states:
                raise SecateurError(f"state {before.name!r} is never read; remove it")
            if after not in self.values:
                raise refuse(after, "a state that is not quantised", REQUANTISE)
            stored = (self.states[before], self.values[after].store)
            states.append(State(*(stores.part(store) for store in stored)))
        return Network(
            input=stores.tensor(self.input),
            output=tensor,
            layers=[_finish(draft, stores, names) for draft in self.layers],
            features=(int(np.prod(shape)),) if value.flat else shape,
            source_hash=source_hash(self.gm),
            states=states,
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
        elif is_call(node, CAT):
            parts = cast(list[Node], node.args[0])
            values = [self._value(part, node) for part in parts]
            self.values[node] = concatenate(node, values, self._copied)
        elif is_call(node, FLATTEN):
            self.values[node] = Value(self._value(cast(Node, node.args[0]), node).store, True)
        elif is_call(node, VIEW):
            self._view(node)

    def _copied(self, store: Store, reader: Node) -> Store:
        """A copy of a store, for a reader that needs it in another place."""
        name = f"{store.name}.{reader.name}"
        copy = Store(name, store.channels, store.height, store.width, store.scale)
        ones = np.ones((store.channels, 1, 1), np.int64)
        source = DraftSource(store, "lanewise", ones, PLAIN)
        none = np.zeros(store.channels, np.int64)
        low, high = store.scale.low, store.scale.high
        self.layers.append(DraftLayer("copy", [source], copy, none, none, low, high, [], False))
        return copy

    def _value(self, node: Node, user: Node) -> Value:
        if is_call(node, PAD):
            raise refuse(node, f"padding that {user.name} reads", _PADDING)
        if node not in self.values:
            raise refuse(user, f"reads {node.name}, which is not quantised", REQUANTISE)
        return self.values[node]

    def _quantise(self, node: Node) -> None:
        source, scale = cast(Node, node.args[0]), scale_of(node)
        if source.op == "placeholder" and source in {before for before, _ in state_pairs(self.gm)}:
            state = Store(source.name, shape_of(source)[0], 1, 1, scale)
            state = self.states.setdefault(source, state)
            if state.scale != scale:
                raise refuse(node, "a state has two scales", REQUANTISE)
            self.values[node] = Value(state, True)
        elif source.op == "placeholder":
            shape = shape_of(source)
            channels, height, width = (shape[0], 1, *shape[1:], 1)[:3] if len(shape) < 3 else shape
            self.input = self.input or Store(
                source.name, channels, height, width, scale, fixed=True
            )
            if self.input.scale != scale:
                raise refuse(node, "the input has two scales", REQUANTISE)
            if scale.high - scale.low != 255:
                raise refuse(node, f"input codes {scale.low}..{scale.high}", REQUANTISE)
            self.values[node] = Value(self.input, rank_of(source) == 2)
        elif source in self.values:
            found = self.values[source].store.scale
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
            draft = draft_layer(self.gm, match, self.values, scale)
            self.used.update(match.nodes)
            draft.nodes = [*match.nodes, node, *(u for u in node.users if is_dequantise(u))]
            self.layers.append(draft)
            self.values[node] = Value(draft.output, draft.flat)

    def _look_up(self, node: Node, function: Node, scale: Scale) -> None:
        """A table behind the layer that makes the argument, or behind a copy of it."""
        argument = cast(Node, function.args[0])
        value = self._value(argument, function)
        table = table_of(function, value.store.scale, scale)
        store = value.store
        output = Store(function.name, store.channels, store.height, store.width, scale)
        nodes = [function, node, *(u for u in node.users if is_dequantise(u))]
        made = next((d for d in self.layers if d.output is store), None)
        alone = is_dequantise(argument) and len(argument.users) == 1
        alone = alone and len(argument.all_input_nodes[0].users) == 1
        if made is not None and made.kind != "maxpool" and made.table is None and alone:
            made.output, made.table = output, table
            made.nodes += nodes
        else:
            shape = (store.channels, 1, 1)
            source = DraftSource(store, "lanewise", np.ones(shape, np.int64), PLAIN)
            zeros = np.zeros(store.channels, np.int64)
            low, high = store.scale.low, store.scale.high
            self.layers.append(
                DraftLayer(
                    "table", [source], output, zeros, zeros, low, high, nodes, value.flat, table
                )
            )
        self.used.add(function)
        self.values[node] = Value(output, value.flat)

    def _max_pool(self, node: Node) -> None:
        x = cast(Node, node.args[0])
        outer = (0, 0, 0, 0)
        while is_call(x, PAD):
            outer = cast(
                tuple[int, int, int, int],
                tuple(a + b for a, b in zip(outer, pad_amounts(x), strict=True)),
            )
            self.used.add(x)
            x = cast(Node, x.args[0])
        store = self._value(x, node).store
        top, left, bottom, right = outer
        size = (store.height + top + bottom, store.width + left + right)
        window = pool_window(node, size)
        padding = [a + b for a, b in zip(window.padding, outer, strict=True)]
        check_pool_windows(node, window, size)
        if padding != list(window.padding) and store.scale.signed:
            raise refuse(
                node,
                "zero padding before max pooling of a signed tensor",
                "pad by MaxPool2d(padding=...), or put a ReLU before the pad",
            )
        top, left, bottom, right = padding
        window = Window(window.kernel, window.stride, (top, left, bottom, right), window.dilation)
        ones = np.ones((store.channels, *window.kernel), np.int64)
        source = DraftSource(store, "maximum", ones, window)
        channels, height, width = output_shape(source)
        output = Store(node.name, channels, height, width, store.scale)
        zeros = np.zeros(channels, np.int64)
        low, high = store.scale.low, store.scale.high
        self.layers.append(
            DraftLayer("maxpool", [source], output, zeros, zeros, low, high, [node], False)
        )
        self.values[node] = Value(output, False)

    def _view(self, node: Node) -> None:
        value = self._value(cast(Node, node.args[0]), node)
        sizes = [int(n) for n in cast(list[int], node.args[1])[1:]]
        store = value.store
        shape = [store.channels, store.height, store.width]
        if sizes in (shape, [shape[0], *shape[2:]] if shape[1] == 1 else shape):
            self.values[node] = Value(store, False)
        elif sizes in ([-1], [int(np.prod(shape))]):
            self.values[node] = Value(store, True)
        else:
            raise refuse(node, f"view of {shape} as {sizes}", "flatten to (N, features)")

    def _check_complete(self, active: set[Node]) -> None:
        """Every node must be part of a layer: nothing may be computed in floating point."""
        for node in self.gm.graph.nodes:
            known = node in self.values or node in self.used
            if node not in active or node.op != "call_function" or known:
                continue
            if is_call(node, torch.ops.aten.sym_size.int):
                continue
            if is_call(node, PAD):
                raise refuse(node, "padding that nothing of the array reads", _PADDING)
            raise unsupported(node)


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

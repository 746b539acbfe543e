"""From a converted PT2E graph to ``ir.Network``: exact integers, no geometry yet."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from secateur.canonical.supported import check_pool_windows, check_supported, unsupported
from secateur.capture.export import (
    is_converted,
    module_of,
    needed_nodes,
    source_hash,
)
from secateur.capture.outputs import output_nodes
from secateur.capture.ports import inputs_of, results_of
from secateur.capture.steps import Sequence, state_pairs
from secateur.errors import SecateurError
from secateur.fx.functions import Function, functions_of
from secateur.fx.graph import (
    MAX_POOL,
    Window,
    is_call,
    is_zero_pad,
    pad_amounts,
    pool_window,
    refuse,
    shape_of,
)
from secateur.fx.inputs import finer_of, in_units, table_of, unscaled
from secateur.fx.moves import is_move, is_size, with_samples_first
from secateur.ir import Form, Network, Port, State
from secateur.lowering import tables
from secateur.lowering.draft import (
    PLAIN,
    DraftSource,
    is_linear,
    output_shape,
    result_shape,
)
from secateur.lowering.finish import finish
from secateur.lowering.layer import draft_layer
from secateur.lowering.moved import written_in_place
from secateur.lowering.store import Size, Store, Stores, Value
from secateur.lowering.values import Values
from secateur.lowering.views import as_map
from secateur.quantisation.match import Match, is_dequantise, is_quantise, match_layer
from secateur.quantisation.scales import REQUANTISE, Scale, scale_of
from secateur.quantisation.sqnr import MEASURED


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
    every_step, steps = (gm.every_step, gm.steps) if isinstance(gm, Sequence) else (False, 0)
    gm = gm.graph if isinstance(gm, Sequence) else gm
    if not isinstance(gm, GraphModule) or not is_converted(gm):
        raise SecateurError("the model is not quantised; quantise it with secateur.quantize")
    network = _Lowering(gm).network()
    network.every_step, network.steps = every_step, steps
    return network


class _Lowering:
    def __init__(self, gm: GraphModule) -> None:
        self.gm = gm
        self.values = Values(gm)
        self.functions = functions_of(gm.graph)
        self.used: set[Node] = set()
        self.inputs: dict[Node, Store] = {}
        self.sources: dict[Node, Node] = {}
        self.states: dict[Node, Store] = {}

    def network(self) -> Network:
        active = self.values.varying & needed_nodes(self.gm)
        for node in self.gm.graph.nodes:
            if node in active and node.op == "call_function":
                self._visit(node)
        self.used.update(node for node in output_nodes(self.gm) if in_units(node)[0] is not node)
        self._check_complete(active)
        arguments = inputs_of(self.gm)
        form, results = results_of(self.gm)
        states = state_pairs(self.gm)
        if states:  # a step returns (y, *states)
            form, results = "output", {"output": output_nodes(self.gm)[0]}
            arguments = dict(list(arguments.items())[: -len(states)])
        outputs = self._outputs(results)
        if not any(node in self.inputs for node in arguments.values()):
            last = output_nodes(self.gm)[0]
            raise refuse(last, "the output does not depend on the input", "give it to a layer")
        after = []
        for before, later in states:
            if before not in self.states:
                raise SecateurError(f"state {before.name!r} is never read; remove it")
            if later not in self.values.of:
                raise refuse(later, "a state that is not quantised", REQUANTISE)
            after.append((self.states[before], self.values.stored(later).whole))
        kept = {store for store, *_ in outputs.values()} | {store for _, store in after}
        self.values.layers = written_in_place(self.values.layers, kept)
        names, stores = set[str](), Stores()
        return Network(
            inputs=[
                self._read(name, node, stores)
                for name, node in arguments.items()
                if node in self.inputs
            ],
            outputs=[port(name, stores.tensor(store)) for name, (store, port) in outputs.items()],
            layers=[
                finish(draft, stores, names, self.gm.meta.get(MEASURED, {}))
                for draft in self.values.layers
            ],
            form=Form(tuple(arguments), form),
            source_hash=source_hash(self.gm),
            states=[State(stores.part(before), stores.part(later)) for before, later in after],
        )

    def _read(self, name: str, node: Node, stores: Stores) -> Port:
        """The port of an input."""
        source = self.sources[node]
        tensor, finer = stores.tensor(self.inputs[node]), finer_of(self.gm, source)
        return Port(name, tensor, shape_of(source), finer, table=table_of(self.gm, source))

    def _outputs(self, results: dict[str, Node]) -> dict[str, tuple[Store, partial[Port]]]:
        """Every result, in a store of its own that one layer writes."""
        found: dict[str, tuple[Store, partial[Port]]] = {}
        for name, result in results.items():
            in_own, factors = in_units(result)
            node, axis = with_samples_first(in_own)
            if node not in self.values.varying:
                raise refuse(node, "the output does not depend on the input", "give it to a layer")
            if node not in self.values.of:
                raise refuse(node, "the output is not quantised", REQUANTISE)
            value = self.values.stored(node)
            store = value.whole
            if store.fixed or store.parent or store.parts:
                store = self.values.copied(store, node)
            store.fixed = True
            # Without samples, which are first if the factors are several.
            factors = factors.reshape(factors.shape[1:])
            found[name] = store, partial(Port, shape=value.shape, samples=axis, factors=factors)
        return found

    def _visit(self, node: Node) -> None:
        if is_quantise(node):
            self._quantise(node)
        elif is_dequantise(node):
            value = self.values.value(cast(Node, node.args[0]), node)
            if scale_of(node) != scale_of(cast(Node, node.args[0])):
                raise refuse(node, "dequantises by another scale", REQUANTISE)
            self.values.of[node] = value
        elif is_call(node, MAX_POOL):
            self._max_pool(node)
        elif is_move(node) and not _has_parts(node):
            self.values.move(node)

    def _quantise(self, node: Node) -> None:
        source, scale = cast(Node, node.args[0]), scale_of(node)
        if source.op == "placeholder" and source in {before for before, _ in state_pairs(self.gm)}:
            state = self.states.get(source)
            if state is None:
                state = self.states[source] = Store(source.name, *as_map(shape_of(source)), scale)
                self.values.of[source] = self.values.new(state, shape_of(source))
            if state.scale != scale:
                raise refuse(node, "a state has two scales", REQUANTISE)
            self.values.of[node] = self.values.of[source]
        elif unscaled(source).op == "placeholder":
            self._input(node, source, scale)
        elif source in self.values.of:
            found = self.values.of[source].scale
            fits = scale.low <= found.low and found.high <= scale.high
            if (found.exponent, found.signed) != (scale.exponent, scale.signed) or not fits:
                raise refuse(node, "changes the scale of a stored tensor", REQUANTISE)
            self.values.of[node] = self.values.of[source]
        elif is_move(source):
            self.values.of[source] = self.values.of[node] = self.values.constant(source, scale)
        elif source in self.functions:
            self._look_up(node, self.functions[source], scale)
        else:
            match = match_layer(source)
            for operand in match.operands:
                self.values.value(operand.value, match.result)
            operands = self._operands(match)
            draft = draft_layer(self.gm, match, operands, scale)
            self.used.update(match.nodes)
            draft.nodes = [*match.nodes, node, *(u for u in node.users if is_dequantise(u))]
            self.values.layers.append(draft)
            self.values.of[node] = self.values.new(
                draft.output, result_shape(match, operands, draft.output)
            )

    def _input(self, node: Node, source: Node, scale: Scale) -> None:
        """The value of an input that ``node`` quantises, perhaps scaled, perhaps looked up."""
        x, shape = unscaled(source), shape_of(source)
        if x not in self.inputs:
            self.inputs[x] = Store(x.name, *as_map(shape), scale, fixed=True)
            self.sources[x] = source
            self.values.of[source] = self.values.new(self.inputs[x], shape)
        if self.inputs[x].scale != scale or source not in self.values.of:
            raise refuse(node, "the input has two scales", REQUANTISE)
        if scale.high - scale.low != 255:
            raise refuse(node, f"input codes {scale.low}..{scale.high}", REQUANTISE)
        self.values.of[node] = self.values.of[source]

    def _operands(self, match: Match) -> dict[Node, Value]:
        """What the operands of a layer read, as stores of the sizes that the layer wants."""
        wanted: dict[Node, Size | None] = {}
        plain = [operand.value for operand in match.operands if operand.product is None]
        for operand in match.operands:
            shape = self.values.of[operand.value].shape
            convolved = operand.product is not None and not is_linear(operand)
            wanted[operand.value] = as_map(shape) if convolved else None
        stored = [self.values.of[node].store for node in plain]
        together = len(match.operands) == len(plain)
        if not together or len({s and s.size for s in stored}) > 1:
            wanted |= {node: as_map(self.values.of[node].shape) for node in plain}
        found = {}
        for operand in match.operands:
            node = operand.value
            if not match.multiplies and self.values.of[node].store is None:
                grid = self.values.grid(operand)
                if grid is not None:
                    found[node] = replace(self.values.of[node], grid=grid)
                    continue
            found[node] = self.values.stored(node, wanted[node])
        return found

    def _look_up(self, node: Node, function: Function, scale: Scale) -> None:
        """A table behind the layer that makes the argument, or behind a copy of it."""
        argument, result = function.argument, function.nodes[-1]
        self.values.value(argument, result)
        value = self.values.stored(argument)
        store = value.whole
        table = tables.table_of(function, store.scale, scale)
        output = Store(result.name, *store.size, scale)
        nodes = [*function.nodes, node, *(u for u in node.users if is_dequantise(u))]
        makers = [d for d in self.values.layers if d.output is store]
        made = makers[0] if len(makers) == 1 else None
        readers = {argument, *function.nodes}
        alone = is_dequantise(argument) and set(argument.users) <= readers
        codes = argument.all_input_nodes[0]
        alone = alone and all(is_dequantise(u) and set(u.users) <= readers for u in codes.users)
        if made is not None and made.kind != "maxpool" and made.table is None and alone:
            made.output, made.table = output, table
            made.nodes += nodes
        else:
            ones = np.ones((store.channels, 1, 1), np.int64)
            self.values.add_plain(
                "table", DraftSource(store, "lanewise", ones, PLAIN), output, nodes, table
            )
        self.used.update(function.nodes)
        self.values.of[node] = self.values.new(output, value.shape)

    def _max_pool(self, node: Node) -> None:
        x = cast(Node, node.args[0])
        outer = (0, 0, 0, 0)
        while is_zero_pad(x) and not self.values.value(cast(Node, x.args[0]), x).scale.signed:
            outer = cast(
                tuple[int, int, int, int],
                tuple(a + b for a, b in zip(outer, pad_amounts(x), strict=True)),
            )
            x = cast(Node, x.args[0])
        self.values.value(x, node)
        store = self.values.stored(x, as_map(self.values.of[x].shape)).whole
        top, left, bottom, right = outer
        size = (store.height + top + bottom, store.width + left + right)
        window = pool_window(node, size)
        top, left, bottom, right = (a + b for a, b in zip(window.padding, outer, strict=True))
        check_pool_windows(node, window, size)
        window = Window(window.kernel, window.stride, (top, left, bottom, right), window.dilation)
        ones = np.ones((store.channels, *window.kernel), np.int64)
        source = DraftSource(store, "maximum", ones, window)
        output = Store(node.name, *output_shape(source), store.scale)
        self.values.add_plain("maxpool", source, output, [node])
        self.values.of[node] = self.values.new(output)

    def _check_complete(self, active: set[Node]) -> None:
        """Every node must be part of a layer: nothing may be computed in floating point."""
        for node in self.gm.graph.nodes:
            known = node in self.values.of or node in self.used or is_size(node)
            known = known or is_move(node)  # with samples elsewhere, or for the shape of a constant
            if node in active and node.op == "call_function" and not known:
                raise unsupported(node)


def _has_parts(node: Node) -> bool:
    """Whether a move has several results, which are taken one by one."""
    return is_move(node) and isinstance(node.meta.get("val"), list | tuple)

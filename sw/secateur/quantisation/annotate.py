"""``SecateurQuantizer`` places the fake quantisers of PT2E where the array stores codes.

A convolution or linear with the add and the activation behind it is one hardware layer: only the
output of its last node is quantised. So is the output of a product of two tensors, and both the
argument and the result of a function by table. Max pooling, views, padding and concatenation move
codes and need no quantisation of their own; the parts of a concatenation share one scale.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

from secateur.canonical.rewrite import canonicalise
from secateur.canonical.supported import check_supported
from secateur.capture.ports import inputs_of
from secateur.capture.steps import state_pairs
from secateur.fx.functions import Function, functions_of
from secateur.fx.graph import (
    ACTIVATIONS,
    ADD,
    MAX_POOL,
    MUL,
    PRODUCTS,
    activation_bounds,
    active_nodes,
    constant,
    is_call,
    is_trained,
    leaves,
)
from secateur.fx.inputs import is_scaled_input
from secateur.fx.moves import adds_constants, is_move, padding_value, sources_of, varying_nodes
from secateur.quantisation.exponents.inputs import scale_inputs
from secateur.quantisation.fake_quantise import ActivationFakeQuantize, PerChannelWeightFakeQuantize

_ANNOTATION = "quantization_annotation"
#: Key of a node's ``meta``: whether it is a move that adds constants.
_CONSTANTS = "secateur_constants"
#: Key of a node's ``meta``: of a node of a function, whether it is the last.
_LOOKED_UP = "secateur_looked_up"


class SecateurQuantizer(Quantizer):  # type: ignore[misc]
    """Power-of-two, symmetric, zero point 0; for ``prepare_pt2e`` and ``prepare_qat_pt2e``.

    Parameters
    ----------
    unsigned : names of inputs that are never negative (codes 0..255 instead of -128..127)
    samples : batches of inputs by name; one without negative values is unsigned, and one of unlike
        channels gets an exponent for each, see ``quantisation.exponents.inputs``
    qat : fake-quantise from the start (training) instead of only observing
    """

    def __init__(
        self,
        *,
        unsigned: Collection[str] = (),
        samples: Mapping[str, list[torch.Tensor]] | None = None,
        qat: bool = False,
    ) -> None:
        super().__init__()
        self.samples = samples or {}
        positive = [n for n, xs in self.samples.items() if all(float(x.min()) >= 0 for x in xs)]
        self.unsigned = {*unsigned, *positive}
        self.qat = qat
        self._unsigned: set[Node] = set()
        self._functions: dict[Node, Function] = {}

    def transform_for_annotation(self, model: GraphModule) -> GraphModule:
        """Bring the graph to its canonical form, and scale its inputs.

        Raises
        ------
        SecateurError : the array cannot run it
        """
        model = canonicalise(model)
        scale_inputs(model, self.samples)
        return model

    def annotate(self, model: GraphModule) -> GraphModule:
        """Give all stored values and all weights their fake quantisers."""
        for members, unsigned in self.groups(model):
            leader = members[0]
            leader.meta[_ANNOTATION] = QuantizationAnnotation(
                output_qspec=self._activation_spec(unsigned), _annotated=True
            )
            for member in members[1:]:
                member.meta[_ANNOTATION] = QuantizationAnnotation(
                    output_qspec=SharedQuantizationSpec(leader), _annotated=True
                )
        for node in active_nodes(model):
            if is_call(node, *PRODUCTS):
                annotation = node.meta.setdefault(
                    _ANNOTATION, QuantizationAnnotation(_annotated=True)
                )
                annotation.input_qspec_map[node.args[1]] = self._weight_spec()
        return model

    def groups(self, model: GraphModule) -> list[tuple[list[Node], bool]]:
        """The stored values of a canonical graph, by the scale that they share, and whether none of
        a group is ever negative.
        """
        outputs, states = stored_nodes(model), state_pairs(model)
        active = active_nodes(model)
        nodes = [n for n in model.graph.nodes if n in active and n.op != "output"]
        self._functions = functions_of(model.graph)
        self._unsigned = {n for name, n in inputs_of(model).items() if name in self.unsigned}
        signs = self._signs(nodes, states)
        shared = _shared_groups(nodes, outputs, states).values()
        return [(members, all(signs[m] for m in members)) for members in shared]

    def validate(self, model: GraphModule) -> None:
        """Check that the array can run the graph."""
        check_supported(model)

    def _activation_spec(self, unsigned: bool) -> QuantizationSpec:
        return QuantizationSpec(
            dtype=torch.uint8 if unsigned else torch.int8,
            observer_or_fake_quant_ctr=ActivationFakeQuantize.with_args(qat=self.qat),
            quant_min=0 if unsigned else -128,
            quant_max=255 if unsigned else 127,
            qscheme=torch.per_tensor_symmetric,
        )

    def _weight_spec(self) -> QuantizationSpec:
        return QuantizationSpec(
            dtype=torch.int8,
            observer_or_fake_quant_ctr=PerChannelWeightFakeQuantize.with_args(qat=self.qat),
            quant_min=-127,
            quant_max=127,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
        )

    def _signs(self, nodes: list[Node], states: list[tuple[Node, Node]]) -> dict[Node, bool]:
        """Whether values are never negative. States begin with zeros: one is never negative if
        that follows for its next value."""
        positive = {before for before, _ in states}
        while True:
            signs = {before: before in positive for before, _ in states}
            for node in nodes:
                if node not in signs:
                    signs[node] = self._never_negative(node, signs)
            kept = {before for before, after in states if signs[after]} & positive
            if kept == positive:
                return signs
            positive = kept

    def _never_negative(self, node: Node, before: dict[Node, bool]) -> bool:
        """Whether a value is never negative, as far as that of those before it is known."""
        if node.op == "placeholder":
            return node in self._unsigned
        if node in self._functions:
            function = self._functions[node]
            return function.never_negative(before[function.argument])
        if is_call(node, *ACTIVATIONS):
            return activation_bounds(node)[0] >= 0
        if is_call(node, *PRODUCTS):
            return before[cast(Node, node.args[0])] and _keeps_signs(node)
        if is_move(node) and node.meta.get(_CONSTANTS):
            return _adds_positive(node) and all(
                before.get(source, True) for source in sources_of(node)
            )
        return all(before.get(part, True) for part in node.all_input_nodes)


def stored_nodes(model: GraphModule) -> list[Node]:
    """The nodes of a canonical graph of which the values are stored, as codes, in order.

    `stored_parts` of its nodes can be asked for afterwards.
    """
    active, varying = active_nodes(model), varying_nodes(model.graph)
    functions = functions_of(model.graph)
    inside = {node for function in functions.values() for node in function.nodes}
    nodes = [n for n in model.graph.nodes if n in active and n.op != "output"]
    for node in nodes:
        node.meta[_CONSTANTS] = adds_constants(node, varying)
        node.meta[_LOOKED_UP] = node in functions if node in inside else None
    return [n for n in nodes if _ends_a_layer(n)]


def _adds_positive(move: Node) -> bool:
    """Whether no constant is negative that a move brings among the values."""
    gm = cast(GraphModule, move.graph.owning_module)
    value = padding_value(move)
    varying = varying_nodes(move.graph)
    fixed = [source for source in sources_of(move) if source not in varying]
    return (value is None or value >= 0) and not any(
        is_trained(gm, source) or bool((constant(gm, source) < 0).any()) for source in fixed
    )


def _keeps_signs(product: Node) -> bool:
    """Whether the weights and biases are constants, and none is negative: averages, sums."""
    gm = cast(GraphModule, product.graph.owning_module)
    constants = [part for part in product.args[1:3] if isinstance(part, Node)]
    fixed = not any(is_trained(gm, part) for part in constants)
    return fixed and all(bool((constant(gm, part) >= 0).all()) for part in constants)


def _absorbed(product: Node) -> bool:
    """Whether a convolution or linear runs in the same layer as the add that reads it."""
    user = next(iter(product.users))
    sums = is_call(user, ADD) and user.meta.get(_LOOKED_UP) is None
    return len(product.users) == 1 and sums and user.args[0] is not user.args[1]


def _ends_a_layer(node: Node) -> bool:
    """Whether the node's value is stored, as codes."""
    if node.op == "placeholder":
        return any(not is_scaled_input(user) for user in node.users)
    if is_move(node):
        return bool(node.meta.get(_CONSTANTS))
    if node.meta.get(_LOOKED_UP) is not None:
        return bool(node.meta[_LOOKED_UP])
    if not is_call(node, ADD, MUL, *PRODUCTS, *ACTIVATIONS):
        return False
    if is_call(node, *ACTIVATIONS):
        return True
    user = next(iter(node.users))
    if len(node.users) == 1 and is_call(user, *ACTIVATIONS) and user.meta.get(_LOOKED_UP) is None:
        return False
    return not (is_call(node, *PRODUCTS) and _absorbed(node))


def _stored_sources(node: Node) -> list[Node]:
    return [stored for source in sources_of(node) for stored in stored_parts(source)]


def stored_parts(node: Node) -> list[Node]:
    """The layer outputs that a value consists of."""

    def parts(value: Node) -> list[Node]:
        if _ends_a_layer(value):
            return []
        if is_move(value):
            return sources_of(value)
        return [cast(Node, value.args[0])] if is_call(value, MAX_POOL) else []

    return [leaf for leaf in leaves(node, parts) if _ends_a_layer(leaf)]


def _shared_groups(
    nodes: list[Node], outputs: list[Node], states: list[tuple[Node, Node]]
) -> dict[Node, list[Node]]:
    """Outputs by the scale they share, the first of each group as key (union-find).

    The parts of a concatenation share one; so do a state and its next value.
    """
    order = {n: i for i, n in enumerate(outputs)}
    parent = {n: n for n in outputs}

    def root(node: Node) -> Node:
        while parent[node] is not node:
            node = parent[node]
        return node

    united = [stored_parts(node) for node in nodes if is_move(node) and len(sources_of(node)) > 1]
    united += [[node, *_stored_sources(node)] for node in nodes if node.meta.get(_CONSTANTS)]
    united += [[before, *stored_parts(after)] for before, after in states]
    for stored in united:
        roots = {root(node) for node in stored if node in parent}  # others are constants
        first = min(roots, key=order.__getitem__)
        for other in roots:
            parent[other] = first
    groups: dict[Node, list[Node]] = {}
    for node in outputs:
        groups.setdefault(root(node), []).append(node)
    return groups

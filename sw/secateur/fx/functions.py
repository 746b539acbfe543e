"""Functions of one number that the array looks up, however a graph writes them.

A piece of a graph is one function if all of it works element by element, with numbers for
constants, and one tensor alone varies. PyTorch computes it for every code: one table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from secateur.fx.graph import ADD, MAX_POOL, MUL, aten, constant, is_call
from secateur.fx.moves import is_move, varying_nodes

#: Of ``aten``, all overloads: work element by element, which torch does not tag.
UNTAGGED = frozenset(
    """
    hardswish log_sigmoid rsub where floor_divide masked_fill
    to _to_copy type_as ones_like zeros_like full_like
    """.split()  # noqa: SIM905
)
#: What clips; the layer that makes the argument does it.
CLIPS = (
    aten.relu.default,
    aten.relu6.default,
    aten.hardtanh.default,
    aten.clamp.default,
    aten.clamp_min.default,
    aten.clamp_max.default,
    aten.clip.default,
)
#: Exponents of scales; functions are tried on the values of all codes.
_EXPONENTS = range(-24, 25)


def elementwise(target: object) -> bool:
    """Whether an operation works element by element; torch does not tag all that do."""
    if not isinstance(target, OpOverload):
        return False
    return torch.Tag.pointwise in target.tags or target._opname in UNTAGGED


@dataclass(frozen=True)
class Function:
    """A function of one number.

    Attributes
    ----------
    argument : the tensor of which it is a function
    nodes : in order; the last one is the result
    """

    argument: Node
    nodes: tuple[Node, ...]

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """What PyTorch computes of values (K,)."""
        gm = cast(GraphModule, self.nodes[0].graph.owning_module)
        found = {self.argument: values}

        def value(node: Node) -> Any:
            if node not in found and stored(node) is stored(self.argument):
                return values
            return found[node] if node in found else constant(gm, node)

        with torch.no_grad():
            for node in self.nodes:
                call = cast(Callable[..., Any], node.target)
                found[node] = call(*map_arg(node.args, value), **map_arg(node.kwargs, value))
        return found[self.nodes[-1]].reshape(-1)

    @property
    def clips(self) -> bool:
        """Whether it does nothing but clip."""
        return all(is_call(node, *CLIPS) for node in self.nodes)

    def never_negative(self, of_unsigned: bool) -> bool:
        """Whether it has no negative value, of numbers that are never negative or of any."""
        values = values_of_codes()
        found = self(values[values >= 0] if of_unsigned else values)
        return bool((found[~found.isnan()] >= 0).all())


def values_of_codes() -> torch.Tensor:
    """What codes stand for, at all scales that are usual."""
    codes = torch.arange(-255, 256, dtype=torch.float32)
    return torch.cat([codes * 2.0**exponent for exponent in _EXPONENTS])


def stored(node: Node) -> Node:
    """The codes of a dequantised value, which may be dequantised for every user; else the node."""
    if str(node.target).startswith("quantized_decomposed.dequantize_per_"):
        return cast(Node, node.args[0])
    return node


def functions_of(graph: Graph) -> dict[Node, Function]:
    """The functions of a graph by their last nodes, as large as they can be.

    A function ends where a layer, a move or the output reads it. The next one begins there if all
    that follows depends on that value alone. What clips a layer's sum is part of that layer.
    """
    varying, cuts = varying_nodes(graph), set[Node]()
    while True:
        members = _members(graph, varying, cuts)
        ends = [node for node in members if not members.keys() >= node.users.keys()]
        pieces = {end: _piece(end, members, cuts, varying) for end in ends}
        found = {end for end in ends if end not in cuts and _all_pass(end, pieces[end], members)}
        if not found:
            break
        cuts |= found
    functions = {}
    for end, piece in pieces.items():
        own = [n for n in members if n in piece and (n is end or n not in cuts)]
        argument = next(node for node in piece if node not in own)
        if _is_of_floats(argument):
            functions[end] = Function(argument, tuple(own))
    return functions


def _is_of_floats(node: Node) -> bool:
    """Whether values are numbers that the array has codes for; indices, as of argmax, are not."""
    value = node.meta.get("val")
    return not isinstance(value, torch.Tensor) or value.is_floating_point()


def _members(graph: Graph, varying: set[Node], cuts: set[Node]) -> dict[Node, Node]:
    """The nodes that are functions of one other tensor, in order, with that tensor.

    ``cuts`` are those of which what follows is a function.
    """
    roots: dict[Node, Node] = {}
    members: dict[Node, Node] = {}
    for node in graph.nodes:
        if node not in varying:
            continue
        roots[node] = stored(node)
        if node.op != "call_function" or not elementwise(node.target) or is_move(node):
            continue
        own = {roots[source] for source in node.all_input_nodes if source in varying}
        numbers = all(source in varying or is_number(source) for source in node.all_input_nodes)
        if len(own) == 1 and numbers and not _joins_a_layer(node, roots):
            members[node] = own.pop()
            roots[node] = node if node in cuts else members[node]
    return members


def is_number(node: Node) -> bool:
    """Whether a constant is a single number."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.numel() == 1


def _joins_a_layer(node: Node, roots: dict[Node, Node]) -> bool:
    """Whether a node clips the sum of a layer that nothing else reads."""
    if not is_call(node, *CLIPS) or any(isinstance(a, Node) for a in node.args[1:]):
        return False
    x = cast(Node, node.args[0])
    sums = x.op == "call_function" and roots[x] is x and len(x.users) == 1
    codes = str(x.target).startswith("quantized_decomposed.")
    other = elementwise(x.target) and not is_call(x, ADD, MUL)
    return sums and not codes and not other and not is_move(x) and not is_call(x, MAX_POOL)


def _piece(end: Node, members: dict[Node, Node], cuts: set[Node], varying: set[Node]) -> list[Node]:
    """The nodes of which the value of a function is computed, and its argument."""
    found = [end]
    for node in found:
        if node is end or (node in members and node not in cuts):
            found += [n for n in node.all_input_nodes if n in varying and n not in found]
    return found


def _all_pass(end: Node, piece: list[Node], members: dict[Node, Node]) -> bool:
    """Whether a function goes on behind its end, and reads nothing before it."""
    before = {node for node in piece if node is not end}
    own = all(user in before or user is end for node in before for user in node.users)
    return own and any(user in members for user in end.users)

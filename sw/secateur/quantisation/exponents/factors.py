"""Factors of products with scales of least error of the products.

``x / max(norm(x), 1e-12)`` multiplies by 1e12 where all of x is zero, and by much where it is
small. A scale that holds these values leaves nothing of the others. The product is small there all
the same, and so the factor may be clipped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from secateur.fx.functions import functions_of
from secateur.fx.graph import MUL, Editor, active_nodes, aten, is_call
from secateur.fx.moves import is_move, sources_of

#: A factor is clipped if that divides the squared error of the product by this, at least.
_BETTER = 4.0
#: Values of a batch that are looked at, beside the largest.
_VALUES = 1 << 14
#: Logarithms of steps of 8-bit codes.
_EXPONENTS = range(-30, 64)


def clip_factors(gm: GraphModule, data: Iterable[list[list[Tensor]]]) -> None:
    """Clip functions that are factors where the product is the better for it.

    Parameters
    ----------
    gm : canonical, is changed
    data : what it is given, as ``fed`` yields it
    """
    factors = _factors(gm)
    if not factors:
        return
    products = _Products(gm, factors)
    with torch.no_grad():
        for steps in data:
            for inputs in steps:
                products.run(*inputs, enable_io_processing=False)
    editor = Editor(gm)
    for factor, seen in products.seen.items():
        bound = _bound(torch.cat([own for own, _ in seen]), torch.cat([w for _, w in seen]))
        if bound is not None:
            user = next(iter(factor.users))
            with gm.graph.inserting_before(user):
                clipped = editor.call(aten.clamp.default, factor, -bound, bound, like=factor)
            user.replace_input_with(factor, clipped)
    gm.graph.lint()
    gm.recompile()


def _bound(values: Tensor, weights: Tensor) -> float | None:
    """Where a factor is clipped; None if it stays.

    Parameters
    ----------
    values : (K,) of the factor
    weights : (K,) squares of the other one
    """
    levels = 255 if float(values.min()) >= 0 else 127
    plain: dict[int, float] = {}
    weighted: dict[int, float] = {}
    for exponent in _EXPONENTS:
        step = 2.0**exponent
        error = ((values / step).round().clamp(-levels, levels) * step - values).square()
        plain[exponent], weighted[exponent] = float(error.sum()), float((error * weights).sum())
    first, best = _least(plain), _least(weighted)
    if best >= first or weighted[first] < _BETTER * weighted[best]:
        return None
    return levels * 2.0**best


def _least(errors: dict[int, float]) -> int:
    """The largest exponent of least error."""
    return min(errors, key=lambda exponent: (errors[exponent], -exponent))


def _factors(gm: GraphModule) -> dict[Node, tuple[Node, int]]:
    """Functions that nothing but a product of two tensors reads, perhaps moved: that product, and
    which of its operands it is.
    """
    active, functions = active_nodes(gm), functions_of(gm.graph)
    found = {}
    for product in gm.graph.nodes:
        operands = [node for node in product.args[:2] if isinstance(node, Node)]
        if not is_call(product, MUL) or len(set(operands)) < 2 or not active.issuperset(operands):
            continue
        for at, node in enumerate(operands):
            while is_move(node) and len(node.users) == 1 and len(sources_of(node)) == 1:
                node = sources_of(node)[0]
            if node in functions and len(node.users) == 1:
                found[node] = product, at
    return found


class _Products(Interpreter):
    """Runs a float graph and keeps values of factors.

    Attributes
    ----------
    seen : of each factor its values, and the squares of what they are multiplied by, (K,) each
    """

    def __init__(self, gm: GraphModule, factors: dict[Node, tuple[Node, int]]) -> None:
        super().__init__(gm)
        self._factors: dict[Node, list[tuple[Node, int]]] = {}
        for factor, (product, at) in factors.items():
            self._factors.setdefault(product, []).append((factor, at))
        self._generator = torch.Generator().manual_seed(0)
        self.seen: dict[Node, list[tuple[Tensor, Tensor]]] = {node: [] for node in factors}

    def run_node(self, n: Node) -> Any:
        """Also look at the factors of a product."""
        for factor, at in self._factors.get(n, ()):
            args, _ = self.fetch_args_kwargs_from_env(n)
            pair = torch.broadcast_tensors(args[at].double(), args[1 - at].double())
            own, other = (values.flatten() for values in pair)
            if len(own) > _VALUES:
                some = torch.randint(len(own), (_VALUES,), generator=self._generator)
                some = torch.cat([some, own.abs().argmax()[None].cpu()]).to(own.device)
                own, other = own[some], other[some]
            self.seen[factor].append((own, other.square()))
        return super().run_node(n)

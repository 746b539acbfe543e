"""Exponents of what functions are looked up of: those of least error of the functions' results.

A sigmoid or tanh of a large number is the same as that of a smaller one. So its argument may be
clipped where the function is flat, and has finer steps where it is steep.

In a loop a gate, such as the update gate of a GRU, decides how long a state is kept: a gate of z
replaces it in 1 / z steps, and its error counts as often, but at most once a step of the sequence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from secateur.fx.functions import Function, functions_of
from secateur.fx.graph import PRODUCTS, attribute, is_call
from secateur.quantisation.fake_quantise import DEAD, ActivationFakeQuantize
from secateur.quantisation.match import observed_layers

#: Exponents below that of least error of the argument that are tried.
_FINER = 8
#: Values of a batch that are looked at.
_SAMPLES = 4096


class Argument:
    """A fake quantiser that nothing but functions read, and values that it was given.

    Parameters
    ----------
    quantiser : of the argument, watched until ``choose``
    functions : of the argument
    steps : how often it is computed for a sample with the same weights
    """

    def __init__(
        self, quantiser: ActivationFakeQuantize, functions: list[Function], steps: int
    ) -> None:
        self.quantiser, self.functions, self.steps = quantiser, functions, steps
        self._seen: list[Tensor] = []
        self._generator = torch.Generator().manual_seed(0)
        self._watch = quantiser.register_forward_pre_hook(self._observe)

    def _observe(self, module: nn.Module, args: tuple[Tensor]) -> None:
        values = args[0].detach().flatten().cpu()
        if len(values) > _SAMPLES:
            values = values[torch.randint(len(values), (_SAMPLES,), generator=self._generator)]
        self._seen.append(values.clone())

    def choose(self) -> None:
        """Set the exponent by the error of the functions' results, if it is less for another."""
        self._watch.remove()
        now = int(self.quantiser.exponent)
        if now == DEAD:
            return
        values = torch.cat(self._seen)
        wanted = [function(values).double() for function in self.functions]
        found = {e: self._error(values, wanted, e) for e in range(now - _FINER, now + 1)}
        best = min(found, key=lambda e: (found[e], -e))
        exponent = max(best, int(self.quantiser.floor))
        self.quantiser.exponent = torch.tensor(exponent, dtype=torch.int32)

    def _error(self, values: Tensor, wanted: list[Tensor], exponent: int) -> float:
        """Sum of the squared errors of all results.

        Parameters
        ----------
        values : (K,) of the argument
        wanted : (K,) each, what the functions make of them
        exponent : of the argument
        """
        low, high = self.quantiser.quant_min, self.quantiser.quant_max
        codes = torch.fake_quantize_per_tensor_affine(values, 2.0**exponent, 0, low, high)
        total = 0.0
        for function, results in zip(self.functions, wanted, strict=True):
            errors = function(codes).double() - results
            if self.steps > 1 and float(results.min()) >= 0:
                errors *= (1 / results).clamp(1, self.steps)
            errors = errors.square()
            total += float(errors[errors.isfinite()].sum())
        return total


def looked_up(prepared: GraphModule) -> dict[Node, list[Function]]:
    """The fake quantisers of a prepared graph that nothing but functions read, and these.

    What the host computes of an output is none of them.
    """
    functions: dict[Node, list[Function]] = {}
    for end, function in functions_of(prepared.graph).items():
        if any(user.op == "call_module" for user in end.users):
            functions.setdefault(function.argument, []).append(function)
    found = {}
    for node, own in functions.items():
        members = {member for function in own for member in function.nodes}
        if node.op == "call_module" and set(node.users) <= members:
            found[node] = own
    return found


def repeats(graph: GraphModule) -> dict[str, int]:
    """Of the products of a graph that is not balanced: how many have the same weights, by name."""
    products = [node for node in graph.graph.nodes if is_call(node, *PRODUCTS)]
    weights = {
        node.name: attribute(graph, str(node.args[1].target)).data_ptr()
        for node in products
        if node.args[1].op == "get_attr"
    }
    count = Counter(weights.values())
    return {name: count[weight] for name, weight in weights.items()}


def arguments_of(prepared: GraphModule, steps: int, repeated: Mapping[str, int]) -> list[Argument]:
    """The arguments of functions in a prepared graph that no other layer reads.

    Parameters
    ----------
    prepared : the graph
    steps : how often it runs on a sample
    repeated : of its products, as ``repeats`` counts them: a loop may be unrolled
    """
    often = {
        node: max((repeated.get(o.product.name, 1) for o in match.operands if o.product), default=1)
        for match, node in observed_layers(prepared)
    }
    calls: dict[nn.Module, list[Node]] = {}
    for node in prepared.graph.nodes:
        if node.op == "call_module":
            calls.setdefault(prepared.get_submodule(str(node.target)), []).append(node)
    found = []
    for node, functions in looked_up(prepared).items():
        module = prepared.get_submodule(str(node.target))
        if calls[module] == [node] and isinstance(module, ActivationFakeQuantize):
            found.append(Argument(module, functions, steps * often.get(node, 1)))
    return found

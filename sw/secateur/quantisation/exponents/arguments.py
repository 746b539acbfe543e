"""Exponents of what functions are looked up of: those of least error of the functions' results.

A sigmoid or tanh of a large number is the same as that of a smaller one. So its argument may be
clipped where the function is flat, and has finer steps where it is steep.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from secateur.fx.functions import Function, functions_of
from secateur.quantisation.fake_quantise import DEAD, ActivationFakeQuantize

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
    """

    def __init__(self, quantiser: ActivationFakeQuantize, functions: list[Function]) -> None:
        self.quantiser, self.functions = quantiser, functions
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
            errors = (function(codes).double() - results).square()
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


def arguments_of(prepared: GraphModule) -> list[Argument]:
    """The arguments of functions in a prepared graph that no other layer reads."""
    calls: dict[nn.Module, list[Node]] = {}
    for node in prepared.graph.nodes:
        if node.op == "call_module":
            calls.setdefault(prepared.get_submodule(str(node.target)), []).append(node)
    found = []
    for node, functions in looked_up(prepared).items():
        module = prepared.get_submodule(str(node.target))
        if calls[module] == [node] and isinstance(module, ActivationFakeQuantize):
            found.append(Argument(module, functions))
    return found

"""Weights rounded by the error of their sums, and biases that take the mean of it away.

One pass over the layers in order: the inputs of each are those of the layers before, as they are
already quantised, and its outputs are compared with those of the float model.

References
----------
Biases: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV
2019 (arXiv:1906.04721), section 4.2, with means of calibration data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.node import map_aggregate

from secateur.capture.outputs import output_nodes
from secateur.fx.graph import LINEAR, argument, conv_window, is_call
from secateur.quantisation.balance.layers import uniform
from secateur.quantisation.fake_quantise import ActivationFakeQuantize, PowerOfTwo
from secateur.quantisation.gptq import round_weights
from secateur.quantisation.harmonise import fits
from secateur.quantisation.observed import ObservedLayer, Product

#: Samples of the calibration data that are run.
SAMPLES = 64
#: Positions at which the inputs of a product are looked at, per weight of a row, and at least.
_POSITIONS, _LEAST = 4, 4096


def refine(
    prepared: GraphModule,
    layers: list[ObservedLayer],
    data: Callable[[], Iterator[list[list[Tensor]]]],
    stepped: bool = False,
) -> None:
    """Round the weights of a prepared, harmonised graph, and correct its biases.

    Parameters
    ----------
    prepared : is changed; its fake quantisers only observe
    layers : of it
    data : yields what it is given, of which some is used; states are those that it computes
    stepped : it is the graph of a step, and all outputs but the first are states
    """

    def some() -> list[list[Tensor]]:
        found, count = list[list[Tensor]](), 0
        with torch.no_grad():
            for steps in data():
                found, count = found + steps, count + len(steps[0][0])
                if count >= SAMPLES:
                    break
        return found

    exact = some()
    quantisers = [module for module in prepared.modules() if isinstance(module, PowerOfTwo)]
    for module in quantisers:
        module.enable_fake_quant(True)
    Refinement(prepared, layers, stepped).refine(exact, some())
    for module in quantisers:
        module.enable_fake_quant(False)


@dataclass
class _Both:
    """A value in batches: of the quantised network, and of the float one."""

    quantised: list[Any]
    exact: list[Any]


class Refinement(Interpreter):
    """Runs a prepared, harmonised graph, and rewrites the weights and biases of its products.

    Parameters
    ----------
    prepared : the graph
    layers : its layers
    stepped : all its outputs but the first are states
    """

    def __init__(
        self, prepared: GraphModule, layers: list[ObservedLayer], stepped: bool = False
    ) -> None:
        super().__init__(prepared)
        # A bias in a loop changes the states, for which its error was measured: it stays.
        self._looped = _before(output_nodes(prepared)[1:] if stepped else [])
        self._products = {p.node: (layer, p) for layer in layers for p in layer.products}
        self._count = 0

    def refine(self, exact: list[list[Tensor]], quantised: list[list[Tensor]]) -> None:
        """Rewrite the graph for inputs of the float network, and those of the quantised one."""
        given = zip(zip(*quantised, strict=True), zip(*exact, strict=True), strict=True)
        inputs = [_Both(list(q), list(e)) for q, e in given]
        with torch.no_grad():
            self.run(*inputs, enable_io_processing=False)
        gm = cast(GraphModule, self.module)
        gm.graph.lint()
        gm.recompile()

    def run_node(self, n: Node) -> Any:
        """The value of a node in both networks."""
        if n.op in ("placeholder", "get_attr", "output"):
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if n.op == "call_module":
            module = self.fetch_attr(str(n.target))
            if not isinstance(module, ActivationFakeQuantize):
                return args[0]
            return _Both([module(x) for x in args[0].quantised], args[0].exact)
        if n in self._products:
            return self._product(n, args)
        return _mapped(cast(Callable[..., Any], n.target), args, kwargs)

    def _product(self, node: Node, args: tuple[Any, ...]) -> _Both:
        layer, product = self._products[node]
        x, weight = cast(_Both, args[0]), cast(Tensor, args[1])
        bias = cast("Tensor | None", args[2] if len(args) > 2 else None)
        call = cast(Callable[..., Any], node.target)
        exact = [call(batch, weight, bias, *args[3:]) for batch in x.exact]
        if uniform(node, weight):
            weight = product.w(weight)
            return _Both([call(batch, weight, bias, *args[3:]) for batch in x.quantised], exact)
        weight = self._rounded(node, product, layer, x.quantised, weight)
        found = [call(batch, weight, bias, *args[3:]) for batch in x.quantised]
        if node in self._looped:
            return _Both(found, exact)
        channel = 1 if exact[0].dim() > 2 else -1
        error = torch.cat([
            (e.double() - q.double()).movedim(channel, 0).flatten(1)
            for e, q in zip(exact, found, strict=True)
        ], 1).mean(1)  # fmt: skip
        bias = error.float() if bias is None else (bias.double() + error).float()
        self._write_bias(node, bias)
        found = [call(batch, weight, bias, *args[3:]) for batch in x.quantised]
        return _Both(found, exact)

    def _rounded(
        self, node: Node, product: Product, layer: ObservedLayer, x: list[Tensor], weight: Tensor
    ) -> Tensor:
        """The weights on their grid; they replace those that the graph holds."""
        if len(product.calls) > 1:  # inputs of several calls
            return cast(Tensor, product.w(weight))
        exponents = product.exponents()
        groups = 1 if is_call(node, LINEAR) else int(argument(node, 6, 1))
        rows = weight.double().flatten(1)
        scales = torch.exp2(torch.from_numpy(exponents).double())
        limits = (product.w.quant_min, product.w.quant_max)
        grouped = rows.reshape(groups, -1, rows.shape[1])
        moments = _moments(node, x, weight, groups)
        found = round_weights(grouped, scales.reshape(groups, -1), moments, limits)
        found = found.reshape(rows.shape)
        nearest = torch.from_numpy(np.ldexp(product.codes(exponents), exponents[:, None]))
        held = product.rows
        product.rows = found.numpy()
        if not fits(layer):
            product.rows, found = nearest.numpy(), nearest
            if not fits(layer):
                product.rows = held
        rounded = found.reshape(weight.shape).float()
        self._write(cast(Node, node.args[1]), rounded)
        product.w.hold(torch.from_numpy(exponents))
        return rounded

    def _attach(self, name: str, value: Tensor, before: Node) -> Node:
        gm = cast(GraphModule, self.module)
        name, self._count = f"{name}_{self._count}", self._count + 1
        gm.register_buffer(name, value)
        with gm.graph.inserting_before(before):
            return gm.graph.get_attr(name)

    def _write(self, observer: Node, weight: Tensor) -> None:
        observer.args = (self._attach("_rounded", weight, observer),)

    def _write_bias(self, product: Node, bias: Tensor) -> None:
        args = list(product.args) + [None] * (3 - len(product.args))
        args[2] = self._attach("_corrected", bias, product)
        product.args = tuple(args)


def _before(ends: list[Node]) -> set[Node]:
    """The nodes that these are computed from, and these."""
    found, left = set[Node](), list(ends)
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left += node.all_input_nodes
    return found


def _mapped(call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """A call of both networks' values; of constants alone a constant."""
    found: list[_Both] = []
    map_aggregate((args, kwargs), lambda a: found.append(a) if isinstance(a, _Both) else None)
    if not found:
        return call(*args, **kwargs)

    def at(index: int, exact: bool) -> Any:
        def pick(a: Any) -> Any:
            if not isinstance(a, _Both):
                return a
            return (a.exact if exact else a.quantised)[index]

        return call(*map_aggregate(args, pick), **map_aggregate(kwargs, pick))

    count = range(len(found[0].exact))
    return _Both([at(i, False) for i in count], [at(i, True) for i in count])


def _moments(node: Node, x: list[Tensor], weight: Tensor, groups: int) -> Tensor:
    """(G, K, K) mean products of what the weights of a row are multiplied by."""
    columns = int(weight[0].numel())
    wanted = max(_LEAST, _POSITIONS * columns) // len(x) + 1
    total = torch.zeros(groups, columns, columns, dtype=torch.float64)
    count = 0
    for batch in x:
        if is_call(node, LINEAR):
            inputs = batch.double().reshape(1, -1, columns)
        else:
            window = conv_window(node, (int(weight.shape[2]), int(weight.shape[3])))
            top, left = window.padding[:2]
            unfolded = F.unfold(
                batch, window.kernel, window.dilation, (top, left), window.stride
            )  # (N, C * K, L)
            inputs = unfolded.movedim(1, 0).flatten(1)
            step = -(-inputs.shape[1] // wanted)
            inputs = inputs[:, ::step].double().reshape(groups, columns, -1).mT
        total += inputs.mT @ inputs
        count += inputs.shape[1]
    return total / max(count, 1)

"""Multiply the stored tensors of a float graph by factors; its results stay what they were."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from secateur.fx.graph import HARDTANH, MUL, Editor, activation_bounds, argument, is_call
from secateur.quantisation.balance.layers import FloatLayer, FloatLayers


class Rescaled:
    """Rewrites a graph.

    Parameters
    ----------
    layers : of the graph, which is changed
    factors : of the stored tensors: a number in (1,), or (C,) of an output that nothing reads
    """

    def __init__(self, layers: FloatLayers, factors: dict[Node, Tensor]) -> None:
        self._layers, self._factors = layers, factors
        self._editor = Editor(layers.gm)
        # All is read before anything is changed.
        self._columns = {
            product: self._of_columns(product)
            for layer in layers.layers
            for product in layer.products
        }

    def write(self) -> GraphModule:
        """Change weights, biases, bounds and functions."""
        arguments = {
            layer.end: self._layers.parts(layer.function.argument)[0]
            for layer in self._layers.layers
            if layer.function is not None
        }
        for layer in self._layers.layers:
            factor = self._factors[layer.end]
            for product in layer.products:
                self._weights(product, factor)
            if layer.clip is not None and is_call(layer.clip, HARDTANH) and float(factor) != 1:
                low, high = activation_bounds(layer.clip)
                layer.clip.args = (layer.clip.args[0], low * float(factor), high * float(factor))
            if layer.function is not None:
                before = self._factors[arguments[layer.end]]
                self._function(layer, float(before), float(factor))
        gm = self._editor.gm
        gm.graph.lint()
        gm.recompile()
        return gm

    def _of_columns(self, product: Node) -> Tensor:
        """What the weights of a product are multiplied by for the factors of its input."""
        parts = self._layers.parts(cast(Node, product.args[0]))
        # Constants that are no part are zeros: a weight that meets nothing else would only make the
        # scale of its row coarser.
        inverse = torch.tensor([*(1 / float(self._factors[part]) for part in parts), 0.0])
        columns = self._layers.columns(product)
        if columns is None:  # all parts have one factor
            return inverse[0]
        values = inverse[torch.from_numpy(columns.part)]
        return values.reshape(-1)[0] if bool((values == values.reshape(-1)[0]).all()) else values

    def _weights(self, product: Node, factor: Tensor) -> None:
        rank = len(cast(Node, product.args[1]).meta["val"].shape)
        scale = (self._columns[product] * factor.reshape([-1] + [1] * (rank - 1))).float()
        args = list(product.args) + [None] * (3 - len(product.args))
        bias = argument(product, 2, None)
        with self._editor.gm.graph.inserting_before(product):
            if bool((scale != 1).any()):
                args[1] = self._times(cast(Node, args[1]), scale, product)
            if bias is not None and bool((factor != 1).any()):
                args[2] = self._times(bias, factor.float(), product)
        product.args = tuple(args)

    def _times(self, weight: Node, scale: Tensor, like: Node) -> Node:
        factor = self._editor.attach("_factor", scale, trained=False)
        return self._editor.call(MUL, weight, factor, like=like)

    def _function(self, layer: FloatLayer, before: float, after: float) -> None:
        """A function of the argument by its factor, which becomes part of the table."""
        assert layer.function is not None
        x, nodes, graph = layer.function.argument, layer.function.nodes, self._editor.gm.graph
        if before != 1:
            with graph.inserting_before(nodes[0]):
                argument = self._editor.call(MUL, x, 1 / before, like=nodes[0])
            for node in nodes:
                node.replace_input_with(x, argument)
        if after != 1:
            users = list(layer.end.users)
            with graph.inserting_after(layer.end):
                result = self._editor.call(MUL, layer.end, after, like=layer.end)
            for user in users:
                user.replace_input_with(layer.end, result)

"""Codes of every layer as stock PyTorch computes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Interpreter, Node

from secateur.capture.export import batch_of, module_of
from secateur.capture.ports import Call, inputs_of, tensors_of
from secateur.capture.steps import Sequence
from secateur.errors import SecateurError
from secateur.fx.inputs import is_looked_up, is_scaled_input
from secateur.ir import Ints, Network
from secateur.lowering.lower import lower
from secateur.quantisation.match import is_dequantise, is_quantise
from secateur.quantisation.prepare import Graph


class _Recorder(Interpreter):
    def __init__(self, gm: GraphModule, wanted: set[str]) -> None:
        super().__init__(gm)
        self.wanted = wanted
        self.seen: dict[str, torch.Tensor] = {}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.name in self.wanted:
            self.seen[n.name] = value
        return value


def reference(
    graph: Graph | ExportedProgram, x: torch.Tensor | Call, network: Network | None = None
) -> dict[str, Ints]:
    """Output codes of every layer and of the inputs, by name.

    NNPACK is off: its Winograd convolutions are not exact.

    Parameters
    ----------
    graph : a converted graph
    x : its float input (N, ...), of a recurrent model (N, T, F); a call if there are several
    network : the lowered graph; lowered here if None

    Returns
    -------
    codes : (N, C, H, W) each; of a recurrent model those of all steps, (N * T, C, 1, 1)

    Raises
    ------
    SecateurError : the graph takes another batch, or a value is not on the grid of its codes
    """
    gm = module_of(graph) if isinstance(graph, ExportedProgram) else graph
    network = network or lower(gm)
    if not isinstance(gm, Sequence):
        call = x if isinstance(x, Call) else Call((x,))
        inputs = tensors_of(gm, call)
        batch, count = batch_of(gm), inputs[0].shape[0]
        if batch not in (None, count):
            raise SecateurError(f"the graph takes batches of {batch}, not {count}")
        return _codes(gm, inputs, network)[0]
    x = x.one if isinstance(x, Call) else x
    states, steps = gm.zeros(x), []
    for step in x.unbind(1):
        codes, (_, *states) = _codes(gm.graph, [step, *states], network)
        steps.append(codes)
    stacked = {name: np.stack([codes[name] for codes in steps], 1) for name in steps[0]}
    return {name: codes.reshape(-1, *codes.shape[2:]) for name, codes in stacked.items()}


def _behind(node: Node) -> Iterator[Node]:
    """The nodes behind an input up to those that read its values."""
    for user in node.users:
        if is_quantise(user) or is_scaled_input(user) or is_looked_up(user):
            yield from _behind(user)
        yield user


def _codes(
    gm: GraphModule, inputs: list[torch.Tensor], network: Network
) -> tuple[dict[str, Ints], Any]:
    """Codes by name, and what the graph returns, in a tuple."""
    named, wanted = inputs_of(gm), {}
    for port in network.inputs:
        first = next(filter(is_dequantise, _behind(named[port.name])))
        shape = (port.tensor.channels, port.tensor.height, port.tensor.width)
        wanted[port.tensor.name] = (first.name, port.tensor, shape)
    for layer in (layer for layer in network.layers if layer.nodes):  # a copy stands for none
        shape = (layer.channels, layer.pixels.height, layer.pixels.width)
        wanted[layer.name] = (layer.nodes[-1], layer.output, shape)
    recorder = _Recorder(gm, {node for node, _, _ in wanted.values()})
    with torch.no_grad(), torch.backends.nnpack.flags(enabled=False):
        returned = recorder.run(*inputs, enable_io_processing=False)
    codes = {}
    for name, (node, tensor, shape) in wanted.items():
        value = recorder.seen[node].detach().double().numpy()
        scaled = np.ldexp(value, -tensor.exponent)
        exact = scaled.astype(np.int64)
        if (exact != scaled).any():
            raise SecateurError(f"layer {name}: the graph's output is not on the grid of its codes")
        codes[name] = exact.reshape(-1, *shape)
    return codes, returned

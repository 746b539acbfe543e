"""Factors of the tensors that a graph stores, by which their values fill 8-bit codes.

A scale that is a power of two wastes up to one bit of a tensor. The weights and the bias of the
layer that computes it are multiplied by a factor, and those that read it are divided by it: the
function stays the same, for a ReLU of a positive multiple is that multiple of the ReLU. Tables of
functions absorb any factor on both sides. What the host gets back it multiplies by the inverse.

References
----------
Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019
(arXiv:1906.04721), section 4.1, with one factor for a tensor instead of one for a channel.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from secateur.capture.outputs import output_nodes
from secateur.fx.graph import MUL, shape_of
from secateur.quantisation.annotate import SecateurQuantizer
from secateur.quantisation.balance.choose import Histograms, Noise, choose
from secateur.quantisation.balance.layers import FloatLayers
from secateur.quantisation.balance.means import exact_means
from secateur.quantisation.balance.rescale import Rescaled
from secateur.quantisation.balance.ties import Ties, log_factor


def balance(
    gm: GraphModule, quantizer: SecateurQuantizer, data: Iterable[list[list[Tensor]]]
) -> list[Tensor]:
    """Give the stored tensors of a canonical graph factors, in place; the host undoes the outputs'.

    Parameters
    ----------
    gm : the graph
    quantizer : that will annotate it
    data : what it is given, as ``fed`` yields it

    Returns
    -------
    inverse : of every output, what it has to be multiplied by, float32: a number, or an array that
        broadcasts to it, with its samples
    """
    groups = quantizer.groups(gm)
    signs = {node: unsigned for members, unsigned in groups for node in members}
    histograms = Histograms(gm, signs)
    with torch.no_grad():
        for steps in data:
            for inputs in steps:
                histograms.run(*inputs, enable_io_processing=False)
    layers = FloatLayers(gm)
    noises = {node: Noise(observed) for node, observed in histograms.of.items()}
    ties = Ties(layers)
    chosen = choose(ties, noises, [members for members, _ in groups])
    exact_means(layers, ties, chosen)
    logs = {node: log_factor(ties.sum(node), chosen) for node in layers.stored}
    inverse = [_inverse(layers, output, logs) for output in output_nodes(gm)]
    Rescaled(layers, {node: 2.0**log for node, log in logs.items()}).write()
    return inverse


def _inverse(layers: FloatLayers, output: Node, logs: dict[Node, float]) -> Tensor:
    """What an output has to be multiplied by."""
    found = torch.tensor([2.0 ** -logs[part] for part in layers.parts(output)])
    if bool((found == found[:1]).all()):
        # An output without parts depends on no input, and is refused later.
        return found[0] if len(found) else torch.ones(())
    along = layers.along(output)
    assert along is not None, "the parts have one factor"
    axis, parts = along
    sizes = [1] * (1 + len(shape_of(output)))
    sizes[1 + axis] = -1
    return found[torch.tensor(parts)].reshape(sizes)


def to_units(gm: GraphModule, inverse: list[Tensor]) -> None:
    """Multiply the outputs of a graph, in place: the last step, which the host takes.

    Parameters
    ----------
    gm : prepared from a graph that is balanced
    inverse : of `balance`
    """
    end = next(n for n in gm.graph.nodes if n.op == "output")
    for index, (output, factors) in enumerate(
        dict(zip(output_nodes(gm), inverse, strict=True)).items()
    ):
        if bool((factors == 1).all()):
            continue
        with gm.graph.inserting_before(end):
            by: Node | float = float(factors) if factors.dim() == 0 else _held(gm, index, factors)
            scaled = gm.graph.call_function(MUL, (output, by))
        scaled.meta.update(output.meta)
        end.replace_input_with(output, scaled)
    gm.recompile()


def _held(gm: GraphModule, index: int, factors: Tensor) -> Node:
    name = f"_units_{index}"
    gm.register_buffer(name, factors)
    return gm.graph.get_attr(name)

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
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from secateur.capture.outputs import output_nodes
from secateur.fx.graph import MUL, Editor, shape_of
from secateur.quantisation.annotate import SecateurQuantizer
from secateur.quantisation.balance.channels import channel_factors, numbered, outputs_alone
from secateur.quantisation.balance.choose import Histograms, Noise, choose
from secateur.quantisation.balance.layers import FloatLayers
from secateur.quantisation.balance.means import exact_means
from secateur.quantisation.balance.rescale import Rescaled
from secateur.quantisation.balance.ties import Ties, log_factor


class Balanced(NamedTuple):
    """What the host has to know of a balanced graph.

    Attributes
    ----------
    inverse : of every output, what it has to be multiplied by, float32: a number, or an array that
        broadcasts to it, with its samples
    channels : factors, (C,), of stored tensors that have one per channel, by name
    """

    inverse: list[Tensor]
    channels: dict[str, Tensor]


def balance(
    gm: GraphModule, quantizer: SecateurQuantizer, data: Iterable[list[list[Tensor]]]
) -> Balanced:
    """Give the stored tensors of a canonical graph factors, in place; the host undoes the outputs'.

    Parameters
    ----------
    gm : the graph
    quantizer : that will annotate it
    data : what it is given, as ``fed`` yields it
    """
    groups = quantizer.groups(gm)
    signs = {node: unsigned for members, unsigned in groups for node in members}
    layers = FloatLayers(gm)
    alone = outputs_alone(layers)
    histograms = Histograms(gm, signs, alone)
    with torch.no_grad():
        for steps in data:
            for inputs in steps:
                histograms.run(*inputs, enable_io_processing=False)
    noises = {node: Noise(observed) for node, observed in histograms.of.items()}
    ties = Ties(layers)
    chosen = choose(ties, noises, [members for members, _ in groups])
    exact_means(layers, ties, chosen)
    logs = {node: log_factor(ties.sum(node), chosen) for node in layers.stored}
    channels = channel_factors(layers, alone, histograms.peaks)
    factors = {
        node: 2.0**log * channels.get(node, torch.ones(1)).double() for node, log in logs.items()
    }
    inverse = [_inverse(layers, output, factors, channels) for output in output_nodes(gm)]
    Rescaled(layers, factors).write()
    return Balanced(inverse, {node.name: factors for node, factors in channels.items()})


def _inverse(
    layers: FloatLayers, output: Node, factors: dict[Node, Tensor], channels: dict[Node, Tensor]
) -> Tensor:
    """What an output has to be multiplied by.

    Parameters
    ----------
    layers : of the graph
    output : of it
    factors : of the stored tensors, a number or one per channel
    channels : those that are one per channel
    """
    parts = layers.parts(output)
    found = (1 / torch.cat([factors[part] for part in parts])).float() if parts else torch.ones(0)
    if bool((found == found[:1]).all()):
        # An output without parts depends on no input, and is refused later.
        return found[0] if len(found) else torch.ones(())
    along = numbered(layers, output, channels)
    assert along is not None, "the parts have one factor"
    axis, numbers = along
    sizes = [1] * (1 + len(shape_of(output)))
    sizes[1 + axis] = -1
    return found[torch.tensor(numbers)].reshape(sizes)


def to_units(gm: GraphModule, inverse: list[Tensor]) -> None:
    """Multiply the outputs of a graph, in place: the last step, which the host takes.

    Parameters
    ----------
    gm : prepared from a graph that is balanced
    inverse : of `balance`
    """
    end = next(n for n in gm.graph.nodes if n.op == "output")
    editor = Editor(gm)
    for output, factors in dict(zip(output_nodes(gm), inverse, strict=True)).items():
        if bool((factors == 1).all()):
            continue
        with gm.graph.inserting_before(end):
            several = factors.dim() > 0
            by = editor.attach("_units", factors, trained=False) if several else float(factors)
            scaled = gm.graph.call_function(MUL, (output, by))
        observed = output.all_input_nodes[0] if output.op == "call_module" else output
        scaled.meta.update(observed.meta)
        end.replace_input_with(output, scaled)
    gm.recompile()

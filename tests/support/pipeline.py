"""One network through everything: PyTorch graph, image, golden, decoder; shared by the tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map

from secateur.capture.ports import Call
from secateur.compiler.compiler import compile_network
from secateur.hw.spec import Geometry
from secateur.image import host
from secateur.image.decode import decode
from secateur.image.image import Image
from secateur.inference import input_words, outputs_of
from secateur.ir import Network
from secateur.lowering.lower import lower
from secateur.lowering.reference import reference
from secateur.quantisation.prepare import Graph, quantize
from secateur.sim import golden
from secateur.target import Target


@dataclass(frozen=True)
class Built:
    """A quantised graph, what it was lowered to, and its calibration inputs."""

    graph: Graph
    network: Network
    x: Any

    @property
    def call(self) -> Call:
        """The calibration inputs as a call of the graph."""
        if isinstance(self.x, dict):
            return Call((), self.x)
        return Call(self.x if isinstance(self.x, tuple) else (self.x,))


def build(model: torch.nn.Module, x: Any) -> Built:
    """Quantise after training and lower; ``x`` is a tensor, a tuple or a dictionary."""
    graph = quantize(model.eval(), x)
    return Built(graph, lower(graph), x)


def target(n: int, p: int, *, bank_words: int = 4096, weight_words: int = 1 << 16) -> Target:
    """A target with memories of any size."""
    geometry = Geometry(n=n, p=p, weight_words=weight_words, bank_words=bank_words)
    return Target(name=f"{n}x{p}", geometry=geometry)


def simulated(n: int, p: int) -> Target:
    """A target whose simulator is built once for all tests: a build takes as long as many runs."""
    if (n, p) == (8, 8):
        return Target.load("8x8")
    return target(n, p, bank_words=2048, weight_words=2048)


def check_image(built: Built, image: Image, geometry: Geometry) -> int:
    """Golden = PyTorch on every layer, predicted = golden cycles, decoded weights = the model's.

    Inputs run one after another in one memory, sequences in one each. Returns the number of codes
    compared.
    """
    meta = image.metadata
    expected = reference(built.graph, built.call, built.network)
    recurrent = bool(meta["states"])
    steps, arrays = 1, tree_map(lambda x: x.numpy(), built.x)
    if recurrent:
        steps = arrays.shape[1]
    packed = input_words(image, arrays)[0]
    program = golden.parse(image.stream, geometry)
    run = golden.run(program, packed, sequential=not recurrent, steps=steps)
    assert run.cycles == meta["cycles"]
    assert program.interval == meta["interval"]["cycles"]
    tensors = {tensor["name"]: tensor for tensor in meta["tensors"]}
    compared = 0
    for trace, layer in zip(run.layers, meta["layers"], strict=True):
        where = tensors[layer["output"]]
        for name, codes in host.layer_codes(trace.m, trace.codes, layer, where):
            wanted = host.expected_codes(expected, layer, name)
            if layer["kind"] != "copy":  # a copy stands for no layer of the model
                np.testing.assert_array_equal(codes, wanted, err_msg=name)
                compared += codes.size
    outputs = outputs_of(image, run.results, steps, run.cycles)
    with torch.no_grad(), torch.backends.nnpack.flags(enabled=False):
        wanted = built.call.of(built.graph)
    found, leaves = tree_leaves(outputs.values), tree_leaves(wanted)
    for value, leaf in zip(found, leaves, strict=True):
        if isinstance(leaf, torch.Tensor):
            np.testing.assert_array_equal(value, leaf.numpy())
        else:
            assert value == leaf
    decoded = decode(image)
    strips = {each["name"]: each["strip"]["layer"] for each in meta["layers"] if "strip" in each}
    for layer in built.network.layers:
        sources = [source for source in layer.sources if source.mode not in ("maximum", "gate")]
        weights = [w for w in decoded if strips.get(w.layer, w.layer) == layer.name]
        count = len({found.layer for found in weights}) if sources else 1
        assert len(weights) == count * len(sources)
        assert count == max(1, list(strips.values()).count(layer.name)) or not sources
        for found, source in zip(weights, sources * count, strict=True):
            np.testing.assert_array_equal(found.dense(), source.weight)
    return compared


def compile_for(built: Built, to: Target) -> Image:
    """The image of a built network."""
    return compile_network(built.network, to)

"""Compare an image with the graph that it was compiled from: all codes of all layers agree."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.capture.export import batch_of
from secateur.capture.ports import Call, call_with, inputs_of, tensors_of
from secateur.capture.steps import Sequence
from secateur.errors import SecateurError
from secateur.image import host
from secateur.image.image import Image
from secateur.inference import Array, traced
from secateur.ir import Network
from secateur.lowering.reference import reference
from secateur.quantisation.prepare import Graph
from secateur.text import first_line

#: Inputs, and steps of a sequence, that a compiled image is tried with.
SAMPLES, STEPS = 2, 12


def some_inputs(graph: Graph, network: Network, calibration: Tensor | Call | None = None) -> Call:
    """A few inputs of a converted graph: of the calibration data, or random codes.

    Parameters
    ----------
    graph : from ``secateur.quantize``
    network : the lowered graph
    calibration : inputs, samples first, (N, ...), of a recurrent model (N, T, F)

    Returns
    -------
    call : (2, ...) each, or as many samples as the graph is fixed to; sequences of at most 12 steps
    """
    recurrent = isinstance(graph, Sequence)
    gm = graph.graph if isinstance(graph, Sequence) else graph
    count = batch_of(gm) or SAMPLES
    if calibration is not None:
        call = calibration if isinstance(calibration, Call) else Call((calibration,))
        at = torch.arange(count) % len(call)
        return call.map(lambda x: (x[:, :STEPS] if recurrent else x)[at])
    generator, ports = torch.Generator().manual_seed(0), {p.name: p for p in network.inputs}
    drawn = []
    for name in network.form.arguments:
        shape = inputs_of(gm)[name].meta["val"].shape
        sizes = (count, *[STEPS] * recurrent, *(int(size) for size in shape[1:]))
        signed, exponents = True, np.zeros((), np.int64)
        table = ports[name].table if name in ports else None
        if table is not None:
            drawn.append(torch.randint(len(table), sizes, generator=generator))
            continue
        if name in ports:
            signed, exponents = ports[name].tensor.signed, ports[name].exponents
        low, high = (-128, 128) if signed else (0, 256)
        codes = torch.randint(low, high, sizes, generator=generator).numpy()
        drawn.append(torch.from_numpy(np.ldexp(codes, exponents)).float())
    return Call(tuple(drawn)) if recurrent else call_with(gm, drawn)


def check_image(
    image: Image, graph: Graph, x: Tensor | Call, network: Network | None = None
) -> int:
    """Compare the golden interpreter's codes of every layer, and its outputs, with PyTorch's.

    Parameters
    ----------
    image : compiled from ``graph``
    graph : converted, from ``secateur.quantize``
    x : inputs in the model's units, (N, ...), of a recurrent model (N, T, F); or a call
    network : the lowered graph; lowered here if None

    Returns
    -------
    compared : layers that were compared, over all inputs

    Raises
    ------
    SecateurError : a code differs, which is a fault of Secateur; or PyTorch cannot run the graph
    """
    compared, call = 0, x if isinstance(x, Call) else Call((x,))
    with torch.no_grad(), torch.backends.nnpack.flags(enabled=False):
        try:
            expected, values = reference(graph, call, network), call.of(graph)
        except SecateurError:
            raise
        except Exception as error:  # torch raises all kinds on graphs made by other tools
            raise SecateurError(
                f"PyTorch cannot run the quantised model: {first_line(error)}; quantise it "
                f"again, or skip the comparison (check=False, --no-check)"
            ) from None
    tensors = call.tensors if isinstance(graph, Sequence) else tensors_of(graph, call)
    outputs, layers = traced(image, [x.numpy() for x in tensors])
    of_layers = {layer["name"]: layer for layer in image.metadata["layers"]}
    for name, codes in layers:
        wanted = host.expected_codes(expected, of_layers.get(name, {}), name)
        if wanted is not None:  # a copy stands for no layer of the model
            _compare(f"layer {name!r}", codes, wanted)
            compared += len(codes)
    returned = [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]
    for (name, found), value in zip(outputs.named.items(), returned, strict=True):
        _compare(f"output {name!r}", found, value.numpy())
    return compared


def _compare(what: str, found: Array, expected: Array) -> None:
    if not np.array_equal(found, expected):
        how = "sizes"
        if found.shape == expected.shape:
            how = f"{np.count_nonzero(found != expected):,} of {found.size:,} codes"
        raise SecateurError(
            f"{what}: {how} of the image differ from PyTorch's: a fault of Secateur; please report "
            f"it with the model"
        )

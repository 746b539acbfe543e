"""Compare an image with the graph that it was compiled from: all codes of all layers agree."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from secateur.capture.export import input_node
from secateur.capture.steps import Sequence
from secateur.errors import SecateurError
from secateur.image.image import Image
from secateur.inference import Array, traced
from secateur.ir import Network
from secateur.lowering.reference import reference
from secateur.quantisation.prepare import Graph
from secateur.text import first_line

#: Inputs, and steps of a sequence, that a compiled image is tried with.
SAMPLES, STEPS = 2, 12


def some_inputs(graph: Graph, network: Network, calibration: Tensor | None = None) -> Tensor:
    """A few inputs of a converted graph: of the calibration data, or random codes.

    Parameters
    ----------
    graph : from ``secateur.quantize``
    network : the lowered graph
    calibration : inputs, samples first, (N, ...), of a recurrent model (N, T, F)

    Returns
    -------
    x : (2, ...), or as many samples as the graph is fixed to; sequences of at most 12 steps
    """
    recurrent = isinstance(graph, Sequence)
    shape = input_node(graph.graph if isinstance(graph, Sequence) else graph).meta["val"].shape
    count = shape[0] if isinstance(shape[0], int) else SAMPLES
    if calibration is not None:
        part = calibration[:, :STEPS] if recurrent else calibration
        return part[torch.arange(count) % len(part)]
    low, high = (-128, 128) if network.input.signed else (0, 256)
    sizes = (count, *[STEPS] * recurrent, *(int(size) for size in shape[1:]))
    codes = torch.randint(low, high, sizes, generator=torch.Generator().manual_seed(0))
    return codes.float() * 2.0**network.input.exponent


def check_image(image: Image, graph: Graph, x: Tensor, network: Network | None = None) -> int:
    """Compare the golden interpreter's codes of every layer, and its outputs, with PyTorch's.

    Parameters
    ----------
    image : compiled from ``graph``
    graph : converted, from ``secateur.quantize``
    x : inputs in the model's units, (N, ...), of a recurrent model (N, T, F)
    network : the lowered graph; lowered here if None

    Returns
    -------
    compared : layers that were compared, over all inputs

    Raises
    ------
    SecateurError : a code differs, which is a fault of Secateur; or PyTorch cannot run the graph
    """
    compared = 0
    with torch.no_grad(), torch.backends.nnpack.flags(enabled=False):
        try:
            expected, values = reference(graph, x, network), graph(x).numpy()
        except SecateurError:
            raise
        except Exception as error:  # torch raises all kinds on graphs made by other tools
            raise SecateurError(
                f"PyTorch cannot run the quantised model: {first_line(error)}; quantise it "
                f"again, or skip the comparison (check=False, --no-check)"
            ) from None
    outputs, layers = traced(image, x.numpy())
    for name, codes in layers:
        if name in expected:  # a copy stands for no layer of the model
            _compare(f"layer {name!r}", codes, expected[name])
            compared += len(codes)
    _compare("the output", outputs.values, values)
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

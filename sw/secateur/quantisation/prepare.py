"""From a float model to a converted PT2E graph with the results of the array."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import cast

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torchao.quantization.pt2e import allow_exported_model_train_eval
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e, prepare_qat_pt2e

from secateur.canonical.rewrite import canonicalise
from secateur.capture.export import (
    check_model,
    check_tensors,
    export,
    input_node,
    is_converted,
    leave_to_host,
)
from secateur.capture.recurrent import is_recurrent
from secateur.capture.steps import Sequence, capture_sequences
from secateur.errors import SecateurError
from secateur.quantisation.annotate import SecateurQuantizer
from secateur.quantisation.bias import write_biases
from secateur.quantisation.divide import divide
from secateur.quantisation.fake_quantise import ActivationFakeQuantize, PowerOfTwo
from secateur.quantisation.harmonise import harmonise
from secateur.quantisation.observed import ObservedLayer

Calibration = torch.Tensor | Iterable[torch.Tensor]
Model = torch.nn.Module | ExportedProgram
#: A graph; of a recurrent model, that of a step in a module that runs it over sequences.
Graph = GraphModule | Sequence
#: Share of the largest output that rounding may change when a graph is rewritten.
REWRITTEN = 1e-2
#: Sums are divided this often at most, each time by what calibration has shown.
_DIVISIONS = 3


def quantize(
    model: Model,
    calibration: Calibration,
    *,
    qat: Callable[[Graph], object] | None = None,
    seed: int = 0,
) -> Graph:
    """Quantise a float model to 8 bits with power-of-two scales.

    A softmax at the very end is left to the host, with a SecateurWarning.

    Parameters
    ----------
    model : module or ExportedProgram with one input, (N, C, H, W), (N, C, L) or (N, C), and one
        output, a tensor or a tuple, list or dictionary of one; a recurrent one, a module, takes
        sequences (N, T, F)
    calibration : inputs in the model's own units, one tensor (samples first) or batches
    qat : called with the prepared graph to train it in place, between calibration and conversion
    seed : of torch's generators during ``qat``; they continue afterwards as before it

    Returns
    -------
    graph : the converted graph: stock PyTorch operations that compute the codes of the array; it
        returns a tensor, also if the model returned it in a tuple, list or dictionary

    Raises
    ------
    SecateurError : the array cannot run the model, or the calibration data are unusable
    """
    prepared = prepare(model, calibration, qat=qat is not None)
    if qat is not None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            qat(prepared)
    return finalize(prepared)


def prepare(
    model: Model, calibration: Calibration, *, qat: bool = False, train_scales: bool = False
) -> Graph:
    """Export, insert fake quantisers and calibrate them; see :func:`quantize`.

    Parameters
    ----------
    model, calibration : as of :func:`quantize`; the input is unsigned if no calibration value is
        negative
    qat : the graph fake-quantises: train it like any module, then :func:`finalize` it. Activation
        scales stay as calibrated, weight scales follow the weights
    train_scales : base-2 logarithms of the scales are parameters, "...logarithm"; give them a
        learning rate of their own and no decay

    Raises
    ------
    SecateurError : as of :func:`quantize`

    References
    ----------
    Trained scales: Jain et al., TQT, MLSys 2020 (arXiv:1903.08066), with Adam at 0.01.
    """
    check_model(model)
    batches = calibration_batches(calibration)
    if is_converted(model):
        raise SecateurError("the model is quantised already; give the float model")
    check_tensors(model)
    sequence = None
    if is_recurrent(model):
        captured = capture_sequences(cast(torch.nn.Module, model), batches[0])
        sequence = captured if isinstance(captured, Sequence) else None
        model = captured
    graph = export(model, batches[0]) if sequence is None else sequence.graph
    leave_to_host(graph)
    # Before torchao's own folding of BatchNorm, which knows no masks.
    graph = _canonical(graph, batches[0]) if sequence is None else canonicalise(graph)
    unsigned = all(float(b.min()) >= 0 for b in batches)
    quantizer = SecateurQuantizer(unsigned_input=unsigned, qat=qat)

    def run(prepared: GraphModule, batch: torch.Tensor) -> None:
        if sequence is None:
            _run(prepared, batch)
        else:
            sequence.with_graph(prepared)(batch)

    for again in reversed(range(_DIVISIONS + 1)):
        original = copy.deepcopy(graph) if again else graph
        prepared = (prepare_qat_pt2e if qat else prepare_pt2e)(graph, quantizer)
        layers = _calibrate(prepared, batches, run, qat)
        graph = original
        if not again or not divide(graph, layers):
            break
    if train_scales:
        for module in [m for m in prepared.modules() if isinstance(m, PowerOfTwo)]:
            module.train_scale()
    prepared = cast(GraphModule, allow_exported_model_train_eval(prepared))
    return prepared if sequence is None else sequence.with_graph(prepared)


def _calibrate(
    prepared: GraphModule,
    batches: list[torch.Tensor],
    run: Callable[[GraphModule, torch.Tensor], None],
    qat: bool,
) -> list[ObservedLayer]:
    """Choose all scales from data; the layers as they are afterwards."""
    activations = [m for m in prepared.modules() if isinstance(m, ActivationFakeQuantize)]
    for module in activations:
        module.disable_fake_quant()
        module.decay = 1.0
    with torch.no_grad():
        for batch in batches:
            run(prepared, batch)
    for module in activations:
        module.disable_observer()
        module.enable_fake_quant(qat)
    return harmonise(prepared)


def finalize(prepared: Graph) -> Graph:
    """Fix all scales and biases of a prepared graph and convert it; ``prepared`` stays usable.

    Raises
    ------
    SecateurError : the graph was never calibrated
    """
    if not isinstance(prepared, GraphModule | Sequence):
        raise SecateurError(
            f"finalize takes what secateur.prepare returned, not {type(prepared).__name__}"
        )
    if isinstance(prepared, Sequence):
        return prepared.with_graph(cast(GraphModule, finalize(prepared.graph)))
    prepared = copy.deepcopy(prepared)
    for name, module in prepared.named_modules():
        if isinstance(module, ActivationFakeQuantize) and not module.observed:
            raise SecateurError(f"{name}: the graph is not calibrated; run inputs through it first")
        if isinstance(module, PowerOfTwo):
            module.settle()
    harmonise(prepared)
    write_biases(prepared)
    return cast(GraphModule, convert_pt2e(prepared))


def calibration_batches(calibration: Calibration) -> list[torch.Tensor]:
    """The calibration data as batches; a tensor is cut into batches of 64.

    Raises
    ------
    SecateurError : the data are empty, not float32, or not finite
    """
    if isinstance(calibration, torch.Tensor):
        calibration = calibration.split(64)
    try:
        batches = list(calibration)
    except TypeError:
        batches = [calibration]
    for batch in batches:
        if not isinstance(batch, torch.Tensor):
            raise SecateurError(
                f"calibration: give a torch tensor (torch.from_numpy makes one) or batches of "
                f"inputs alone, such as [x for x, y in loader], not {type(batch).__name__}"
            )
    if not batches or any(b.numel() == 0 for b in batches):
        raise SecateurError("calibration: no samples; give a few dozen typical inputs")
    for batch in batches:
        if batch.dtype != torch.float32:
            raise SecateurError(f"calibration: {batch.dtype} data; give float32 in model units")
        if not bool(torch.isfinite(batch).all()):
            raise SecateurError("calibration: infinite or NaN values; clean the data")
    return batches


def _canonical(graph: GraphModule, batch: torch.Tensor) -> GraphModule:
    """The canonical graph; its outputs are compared with those of the model as it was exported.

    Raises
    ------
    SecateurError : they differ by more than rounding explains
    """
    inputs = next(_parts(graph, batch))
    with torch.no_grad():
        expected = graph(inputs.clone())  # the model may write to its input
        graph = canonicalise(graph)
        error = float((graph(inputs.clone()) - expected).abs().max())
    allowed = REWRITTEN * max(float(expected.abs().max()), 1e-6)
    if bool(expected.isfinite().all()) and not error <= allowed:
        raise SecateurError(
            f"the model, rewritten for the array, gives outputs that differ by {error:.3g} from "
            f"its own: a fault of Secateur; please report it with the model"
        )
    return graph


def _run(graph: GraphModule, batch: torch.Tensor) -> None:
    for part in _parts(graph, batch):
        graph(part)


def _parts(graph: GraphModule, batch: torch.Tensor) -> Iterator[torch.Tensor]:
    """A batch, cut or repeated to the size of a graph with a fixed batch."""
    shape = input_node(graph).meta["val"].shape
    if tuple(batch.shape[1:]) != tuple(int(n) for n in shape[1:]):
        raise SecateurError(
            f"calibration: samples of shape {tuple(batch.shape[1:])}, the model takes "
            f"{tuple(int(n) for n in shape[1:])}"
        )
    if not isinstance(shape[0], int):
        yield batch
        return
    for start in range(0, batch.shape[0], shape[0]):
        part = batch[start : start + shape[0]]
        missing = shape[0] - part.shape[0]
        yield torch.cat([part, part[:1].expand(missing, *part.shape[1:])])

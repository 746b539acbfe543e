"""From a float model to a converted PT2E graph with the results of the array."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch.fx import GraphModule
from torch.utils import _pytree as pytree
from torchao.quantization.pt2e import allow_exported_model_train_eval
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e, prepare_qat_pt2e

from secateur.canonical.rewrite import canonicalise
from secateur.capture.export import (
    checked,
    in_float32,
    is_converted,
    leave_to_host,
)
from secateur.capture.lookup import give_tables, looked_up, take_tables
from secateur.capture.ports import Call
from secateur.capture.recurrent import is_recurrent
from secateur.capture.steps import Sequence, capture_sequences
from secateur.errors import SecateurError
from secateur.quantisation.annotate import SecateurQuantizer
from secateur.quantisation.balance.balance import balance, to_units
from secateur.quantisation.bias import write_biases
from secateur.quantisation.calibration import (
    Calibration,
    Model,
    calibration_calls,
    check_types,
    cut_alike,
    fed,
    graph_of,
    parts,
    samples_by_name,
)
from secateur.quantisation.divide import divide
from secateur.quantisation.exponents.arguments import arguments_of, repeats
from secateur.quantisation.exponents.factors import clip_factors
from secateur.quantisation.fake_quantise import ActivationFakeQuantize, PowerOfTwo
from secateur.quantisation.harmonise import harmonise
from secateur.quantisation.observed import ObservedLayer
from secateur.quantisation.refine import refine
from secateur.quantisation.sqnr import MEASURED, Yardstick

#: A graph; of a recurrent model, that of a step in a module that runs it over sequences.
Graph = GraphModule | Sequence
#: Share of the largest output that rounding may change when a graph is rewritten.
REWRITTEN = 1e-2
#: Keys of a prepared graph's ``meta``: what it is measured by, and the float network, if its own
#: weights are rounded.
_YARDSTICK, _FLOAT = "secateur_yardstick", "secateur_float"
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
    model : module or ExportedProgram with inputs (N, C, H, W), (N, C, L) or (N, C), and outputs
        that are tensors, also in tuples, lists and dictionaries; a recurrent one, a module, takes
        sequences (N, T, F) and returns one tensor
    calibration : inputs in the model's own units: one tensor (samples first), or batches. Of a
        model with several, its arguments in a tuple or by name in a dictionary, or batches of such
    qat : called with the prepared graph to train it in place, between calibration and conversion
    seed : of torch's generators during ``qat``; they continue afterwards as before it

    Returns
    -------
    graph : the converted graph: stock PyTorch operations that compute the codes of the array; it
        takes what the model takes and returns what the model returns, a single tensor without a
        tuple, list or dictionary around it

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
    model, calibration : as of :func:`quantize`; an input is unsigned if none of its calibration
        values is negative
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
    model = checked(model)
    calls = calibration_calls(model, calibration)
    if is_converted(model):
        raise SecateurError("the model is quantised already; give the float model")
    model = in_float32(model, calls[0])
    try:
        graph, calls, sequence = _captured(model, calls)
    except SecateurError:
        for call in calls:
            check_types(call, integers=False)
        raise
    leave_to_host(graph)
    tables = take_tables(graph)
    found = [looked_up(graph, call, tables) for call in calls]
    for call in found:
        check_types(call, integers=False)
    # Before torchao's own folding of BatchNorm, which knows no masks.
    graph = _canonical(graph, found[0]) if sequence is None else canonicalise(graph)
    clip_factors(graph, fed(graph, found, sequence))
    quantizer = SecateurQuantizer(samples=samples_by_name(graph, found), qat=qat)
    data = _Data(found, sequence, repeats(graph))
    balanced = balance(graph, quantizer, fed(graph, found, sequence))
    prepared, layers = _observed(graph, quantizer, data)
    give_tables(prepared, tables)
    prepared.meta[_YARDSTICK] = Yardstick(calls, sequence, balanced.channels)
    if not qat:
        prepared.meta[_FLOAT] = copy.deepcopy(prepared)
        refine(prepared, layers, lambda: fed(prepared, calls, sequence), sequence is not None)
    to_units(prepared, balanced.inverse)
    if train_scales:
        for module in [m for m in prepared.modules() if isinstance(m, PowerOfTwo)]:
            module.train_scale()
    prepared = cast(GraphModule, allow_exported_model_train_eval(prepared))
    if sequence is None:
        return prepared
    sequence.steps = data.steps
    return sequence.with_graph(prepared)


def _captured(model: Model, calls: list[Call]) -> tuple[GraphModule, list[Call], Sequence | None]:
    """The graph of a model, its calls, and what runs the graph of a step over sequences."""
    sequence = None
    if isinstance(model, Sequence):
        sequence = model.with_graph(copy.deepcopy(model.graph))
    elif is_recurrent(model):
        captured = capture_sequences(cast(torch.nn.Module, model), calls[0].one)
        sequence = captured if isinstance(captured, Sequence) else None
        model = captured
    graph, calls = graph_of(model, calls) if sequence is None else (sequence.graph, calls)
    return graph, cut_alike(graph, calls), sequence


@dataclass
class _Data:
    """Calibration data of a graph.

    Attributes
    ----------
    calls : of the model
    sequence : that runs the graph of a step; None for other graphs
    repeated : how often its products have the same weights
    """

    calls: list[Call]
    sequence: Sequence | None
    repeated: dict[str, int]

    def run(self, prepared: GraphModule) -> None:
        """Run a prepared graph on them."""
        for call in self.calls:
            if self.sequence is not None:
                call.of(self.sequence.with_graph(prepared))
                continue
            for part in parts(prepared, call):
                part.of(prepared)

    @property
    def steps(self) -> int:
        """How often the graph runs on a sample, at most."""
        return 1 if self.sequence is None else max(call.one.shape[1] for call in self.calls)


def _observed(
    graph: GraphModule, quantizer: SecateurQuantizer, data: _Data
) -> tuple[GraphModule, list[ObservedLayer]]:
    """The graph with calibrated fake quantisers, and its layers; wide sums are divided.

    Parameters
    ----------
    graph : canonical
    quantizer : places the fake quantisers
    data : that it is calibrated with
    """
    for again in reversed(range(_DIVISIONS + 1)):
        original = copy.deepcopy(graph) if again else graph
        prepared = (prepare_qat_pt2e if quantizer.qat else prepare_pt2e)(graph, quantizer)
        layers = _calibrate(prepared, data, quantizer.qat)
        graph = original
        if not again or not divide(graph, layers):
            break
    return prepared, layers


def _calibrate(prepared: GraphModule, data: _Data, qat: bool) -> list[ObservedLayer]:
    """Choose all scales from data; the layers as they are afterwards.

    Parameters
    ----------
    prepared : with observers
    data : that it is run on
    qat : fake-quantise afterwards
    """
    activations = [m for m in prepared.modules() if isinstance(m, ActivationFakeQuantize)]
    for module in activations:
        module.disable_fake_quant()
        module.decay = 1.0
    arguments = arguments_of(prepared, data.steps, data.repeated)
    with torch.no_grad():
        data.run(prepared)
    for argument in arguments:
        argument.choose()
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
    exact = prepared.meta.pop(_FLOAT, None) or copy.deepcopy(prepared)
    harmonise(prepared)
    write_biases(prepared)
    yardstick = prepared.meta.pop(_YARDSTICK, None)  # torchao's own functions leave none
    measured = {} if yardstick is None else yardstick.measure(exact, prepared)
    converted = cast(GraphModule, convert_pt2e(prepared))
    converted.meta[MEASURED] = measured
    return converted


def _canonical(graph: GraphModule, call: Call) -> GraphModule:
    """The canonical graph; its outputs are compared with those of the model as it was exported.

    Raises
    ------
    SecateurError : they differ by more than rounding explains
    """
    part = next(parts(graph, call))

    def outputs() -> list[torch.Tensor]:
        found = pytree.tree_leaves(part.map(torch.clone).of(graph))  # the model may write to them
        return [leaf for leaf in found if isinstance(leaf, torch.Tensor)]

    with torch.no_grad():
        expected = outputs()
        graph = canonicalise(graph)
        found = outputs()
    # An output that cancels to nothing is as exact as what it is made of.
    least = max(1e-4 * max(float(x.abs().max()) for x in part.tensors), 1e-6)
    for before, after in zip(expected, found, strict=True):
        error = float((after - before).abs().max())
        allowed = REWRITTEN * max(float(before.abs().max()), least)
        if bool(before.isfinite().all()) and not error <= allowed:
            raise SecateurError(
                f"the model, rewritten for the array, gives outputs that differ by {error:.3g} "
                f"from its own: a fault of Secateur; please report it with the model"
            )
    return graph

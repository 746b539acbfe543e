"""ONNX models as PyTorch modules: what exporters write for networks that the array can run.

Convolutions, dense layers and batch norms become modules of their own, so that they can be pruned
and trained like any others. Tensors stay as the file has them, channels first; a Transpose is
refused, with what to tell the exporter.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.onnx_layers import LAYERS, Context, dequantised, refuse

Step = tuple[Callable[..., Tensor], tuple[str, ...], str]


class OnnxModel(nn.Module):
    """A chain of steps over named tensors, one input and one output.

    ``layers`` holds the modules, by the names of their nodes. ``notes`` says what is not as in the
    file.
    """

    def __init__(self, source: str, result: str, notes: list[str]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        self.notes = notes
        self._source, self._result = source, result
        self._steps: list[Step] = []

    def add(self, name: str, run: Callable[..., Tensor], inputs: tuple[str, ...], out: str) -> None:
        """Append a step that computes the tensor ``out``."""
        if isinstance(run, nn.Module):
            key, count = name, 1
            while key in self.layers:
                count += 1
                key = f"{name}_{count}"
            self.layers[key] = run
        self._steps.append((run, inputs, out))

    def forward(self, x: Tensor) -> Tensor:
        tensors = {self._source: x}
        for run, inputs, out in self._steps:
            tensors[out] = run(*(tensors[name] for name in inputs))
        return tensors[self._result]


def load_onnx(path: Path) -> OnnxModel:
    """Read an ONNX file.

    Raises
    ------
    SecateurError : the file is no ONNX model, the package onnx is missing, or the model has an
        operator, or a form of one, that is not supported: named, with what to do instead
    """
    try:
        import onnx
    except ImportError:
        raise SecateurError(
            f"{path}: ONNX files need the package onnx: pip install 'secateur[onnx]'"
        ) from None
    if not path.is_file():
        raise SecateurError(f"{path}: no such file")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SecateurError(f"{path}: not an ONNX model ({reason})") from None
    try:
        return convert_onnx(model)
    except SecateurError as error:
        raise SecateurError(f"{path}: {error}") from None


def convert_onnx(model: Any, constants: dict[str, npt.NDArray[Any]] | None = None) -> OnnxModel:
    """An ``onnx.ModelProto`` as a module; ``constants`` binds further inputs of the graph.

    Raises
    ------
    SecateurError : as `load_onnx`
    """
    import onnx
    from onnx import numpy_helper

    inferred = onnx.shape_inference.infer_shapes(model)
    graph = inferred.graph
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    known |= constants or {}
    sources = [value for value in graph.input if value.name not in known]
    if len(sources) != 1 or len(graph.output) != 1:
        raise SecateurError(
            f"the model has {len(sources)} inputs and {len(graph.output)} outputs, the array takes "
            f"one tensor and returns one; export one network with one of each"
        )
    shapes = {
        value.name: [int(dim.dim_value) for dim in value.type.tensor_type.shape.dim]
        for value in [*graph.input, *graph.value_info, *graph.output]
    }
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    for value in graph.output:
        readers[value.name] = readers.get(value.name, 0) + 1
    context = Context(known, shapes, readers, list(model.opset_import))
    result = OnnxModel(sources[0].name, graph.output[0].name, context.notes)
    for node in graph.node:
        _convert(node, context, result)
    return result.eval()


def _convert(node: Any, context: Context, result: OnnxModel) -> None:
    from onnx import helper

    names = [name for name in node.input if name]
    if all(name in context.known for name in names):
        context.known |= zip(node.output, _fold(node, context), strict=True)
        return
    if node.op_type not in LAYERS or node.domain not in ("", "ai.onnx"):
        raise refuse(node, "is not supported", f"supported are {', '.join(sorted(LAYERS))}")
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    for name in node.output[1:]:
        if name in context.readers:
            raise refuse(node, f"has a second output, {name!r}, that is read", "export without it")
    run = LAYERS[node.op_type](node, attributes, context)
    dynamic = tuple(name for name in names if name not in context.known)
    label = (node.name or node.output[0]).strip("/").replace("/", "_").replace(".", "_")
    result.add(label, run, dynamic, node.output[0])


def _fold(node: Any, context: Context) -> list[npt.NDArray[Any]]:
    """The outputs of a node whose inputs are constant."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    values = {name: context.known[name] for name in node.input if name}
    if node.op_type == "DequantizeLinear":  # onnx evaluates its later versions only
        return [dequantised(node, *values.values())]
    graph = helper.make_graph(
        [node],
        "constant",
        [helper.make_value_info(name, helper.make_tensor_type_proto(0, None)) for name in values],
        [
            helper.make_value_info(name, helper.make_tensor_type_proto(0, None))
            for name in node.output
        ],
    )
    model = helper.make_model(graph, opset_imports=context.opsets)
    try:
        return list(ReferenceEvaluator(model).run(None, values))
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise refuse(node, f"a constant cannot be computed ({reason})", "fold constants") from None

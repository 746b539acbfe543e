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
from secateur.onnx_context import Context, refuse
from secateur.onnx_layers import LAYERS, RECURRENT_LAYERS, REFUSED
from secateur.onnx_quantised import RECHOSEN, dequantised, moved

Step = tuple[Callable[..., Tensor], tuple[str, ...], str]


class _Function(nn.Module):
    """A function as a module: the names of modules are those that messages give."""

    def __init__(self, run: Callable[..., Tensor]) -> None:
        super().__init__()
        self.run = run

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.run(*inputs)


class OnnxModel(nn.Module):
    """A chain of steps over named tensors, one output; one input if it is to run on the array.

    ``layers`` holds the modules, by the names of their nodes. ``notes`` says what is not as in the
    file. ``shape`` is that of a sample, 0 where it is not fixed.
    """

    def __init__(self, sources: tuple[str, ...], result: str, notes: list[str]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        self.notes = notes
        self._sources, self._result = sources, result
        self._steps: list[Step] = []
        self.shape: tuple[int, ...] = ()

    @property
    def quantised(self) -> bool:
        """Whether the file quantises activations, and this module does not."""
        return RECHOSEN in self.notes

    def add(self, name: str, run: Callable[..., Tensor], inputs: tuple[str, ...], out: str) -> None:
        """Append a step that computes the tensor ``out``."""
        run = run if isinstance(run, nn.Module) else _Function(run)
        key, count = name, 1
        while key in self.layers:
            count += 1
            key = f"{name}_{count}"
        self.layers[key] = run
        self._steps.append((run, inputs, out))

    def forward(self, x: Tensor) -> Tensor:
        """The output for samples of ``shape``; SecateurError if they are of another."""
        given = tuple(x.shape[1:])
        if len(given) != len(self.shape) or any(
            n not in (0, has) for n, has in zip(self.shape, given, strict=True)
        ):
            raise SecateurError(
                f"samples of shape {given}, the ONNX file says {self.shape} (0: any size)"
            )
        return self.evaluate(x)

    def evaluate(self, *inputs: Tensor) -> Tensor:
        """The output for one tensor or several."""
        tensors = dict(zip(self._sources, inputs, strict=True))
        for run, names, out in self._steps:
            tensors[out] = run(*(tensors[name] for name in names))
        return tensors[self._result]


def read_onnx(path: Path | str) -> Any:
    """The ``onnx.ModelProto`` of a file.

    Raises SecateurError if the file is no ONNX model, or the package onnx is missing.
    """
    path = Path(path)
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
    return model


def load_onnx(path: Path | str) -> OnnxModel:
    """Read an ONNX file as a module in float.

    Raises
    ------
    SecateurError : the file is no ONNX model, the package onnx is missing, or the model has an
        operator, or a form of one, that is not supported: named, with what to do instead
    """
    model = read_onnx(path)
    try:
        return convert_onnx(model)
    except SecateurError as error:
        raise SecateurError(f"{path}: {error}") from None


def convert_onnx(
    model: Any,
    constants: dict[str, npt.NDArray[Any]] | None = None,
    *,
    keep: bool = False,
    inputs: int = 1,
) -> OnnxModel:
    """An ``onnx.ModelProto`` as a module.

    Parameters
    ----------
    model : the model
    constants : binds further inputs of the graph
    keep : quantise activations where the model does; by default it is left to calibration
    inputs : how many the module takes; the array takes one

    Raises
    ------
    SecateurError : as `load_onnx`; with ``keep``, for scales that are no powers of two
    """
    import onnx
    from onnx import numpy_helper

    inferred = onnx.shape_inference.infer_shapes(model)
    graph = inferred.graph
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    known |= constants or {}
    sources = [value for value in graph.input if value.name not in known]
    if len(sources) != inputs or len(graph.output) != 1:
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
    context = Context(known, shapes, readers, list(model.opset_import), keep=keep)
    result = OnnxModel(tuple(value.name for value in sources), graph.output[0].name, context.notes)
    result.shape = tuple(shapes[sources[0].name][1:])
    # Recurrent layers first: exporters write other operators for their states before them.
    for node in sorted(graph.node, key=lambda node: node.op_type not in RECURRENT_LAYERS):
        _convert(node, context, result)
    return result.eval()


def _convert(node: Any, context: Context, result: OnnxModel) -> None:
    from onnx import helper

    names = [name for name in node.input if name]
    if all(name in context.known for name in names):
        context.known |= zip(node.output, _fold(node, context), strict=True)
        return
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    convert = (LAYERS | REFUSED).get(node.op_type)
    if convert is None or node.domain not in ("", "ai.onnx"):
        raise refuse(node, "is not supported", f"supported are {', '.join(sorted(LAYERS))}")
    for name in node.output[1:]:
        if node.op_type in LAYERS and name in context.readers:
            raise refuse(node, f"has a second output, {name!r}, that is read", "export without it")
    run = convert(node, attributes, context)
    moved(node, context)
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
    opsets = context.opsets
    if node.op_type == "QuantizeLinear":  # the same
        opsets = [helper.make_opsetid("", max(context.version(), 19))]
    model = helper.make_model(graph, opset_imports=opsets)
    try:
        return list(ReferenceEvaluator(model).run(None, values))
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise refuse(node, f"a constant cannot be computed ({reason})", "fold constants") from None

"""The context of the converters of ONNX operators: constants, shapes and readers of a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.capture.onnx.file import outside
from secateur.capture.onnx.node import OnnxNode, guarded, nodes_of, refuse
from secateur.capture.onnx.values import Array, Budget, values_of
from secateur.errors import SecateurError
from secateur.text import name as quoted

Run = Callable[..., Tensor]
Product = nn.Conv1d | nn.Conv2d | nn.Linear
#: Types of an input: FLOAT, FLOAT16, DOUBLE, BFLOAT16, and one that the file does not say.
_FLOATS = (1, 10, 11, 16, 0)


@dataclass
class Context:
    """What is known of a graph while it is converted.

    Attributes
    ----------
    nodes : in order
    sources, result : names of the inputs and of the output
    known : constants by tensor name
    budget : counts the constants
    shapes : as inferred, 0 where unknown
    readers : how often a tensor is read
    version : version of ONNX's own operators that the model imports
    keep : whether scales of activations are kept
    products : modules by the tensor that they make
    notes : messages for the user
    scales : (exponent, signed) of tensors that hold codes
    """

    nodes: list[OnnxNode]
    sources: tuple[str, ...]
    result: str
    known: dict[str, Array]
    budget: Budget
    shapes: dict[str, list[int]]
    readers: dict[str, int]
    version: int
    keep: bool = False
    products: dict[str, Product] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    scales: dict[str, tuple[int, bool]] = field(default_factory=dict)

    def constant(self, node: OnnxNode, index: int) -> Array | None:
        """Input ``index``, which must be constant; None if it is not given."""
        if index >= len(node.input) or not node.input[index]:
            return None
        if node.input[index] not in self.known:
            what = f"input '{quoted(node.input[index])}' that is not constant"
            raise refuse(node, what, "export it as an initializer")
        return self.known[node.input[index]]

    def weight(self, node: OnnxNode, index: int) -> Array:
        """Input ``index``, which must be given, and constant."""
        found = self.constant(node, index)
        if found is None:
            raise refuse(node, f"has no input {index}", "export the model again")
        return found

    def scalar(self, node: OnnxNode, index: int) -> float | None:
        """Input ``index``, which must be one number; None if it is not given."""
        found = self.constant(node, index)
        if found is not None and found.size != 1:
            raise refuse(node, f"input {index} of shape {found.shape}", "give one number")
        return None if found is None else float(found.flat[0])

    def integers(self, node: OnnxNode, index: int) -> list[int] | None:
        """Input ``index``, which must be a row of whole numbers; None if it is not given."""
        found = self.constant(node, index)
        if found is not None and (found.dtype.kind not in "iu" or found.ndim > 1):
            what = f"input {index} of {found.dtype}, shape {found.shape}"
            raise refuse(node, what, "give a row of whole numbers")
        return None if found is None else [int(n) for n in found.flat]

    def axes(self, node: OnnxNode, index: int, rank: int) -> list[int] | None:
        """The axes that an input or the attribute ``axes`` gives.

        Parameters
        ----------
        node : the node
        index : of the input
        rank : dimensions of the tensor that they belong to

        Returns
        -------
        axes : sorted, counted from 0; None if neither is there

        Raises
        ------
        SecateurError : an axis is out of range
        """
        found = self.integers(node, index)
        if found is None and node.has("axes"):
            found = node.integers("axes")
        if found is not None and any(not -rank <= axis < rank for axis in found):
            raise refuse(node, f"axes {found} of {rank} dimensions", "export the model again")
        return None if found is None else sorted(axis % rank for axis in found)

    def shape(self, node: OnnxNode, *ranks: int) -> list[int]:
        """Shape of the first input; refused if its rank is unknown or none of ``ranks``."""
        shape = self.shapes.get(node.input[0])
        if shape is None or (ranks and len(shape) not in ranks):
            found = "unknown" if shape is None else len(shape)
            wanted = " or ".join(map(str, ranks)) or "a fixed one"
            raise refuse(node, f"input of rank {found}, expected {wanted}", "use layers of maps, "
                         "signals or vectors: (N, C, H, W), (N, C, L), (N, C)")  # fmt: skip
        return shape

    def only_reader(self, name: str) -> bool:
        """Whether the tensor is read once."""
        return self.readers.get(name, 0) == 1


def context_of(
    model: Any, constants: dict[str, Array], budget: Budget, inputs: int, keep: bool
) -> Context:
    """What an ``onnx.ModelProto`` contains.

    Parameters
    ----------
    model : the message
    constants : binds inputs of the graph
    budget : counts the constants
    inputs : how many other inputs the graph must have
    keep : whether scales of activations are kept

    Raises
    ------
    SecateurError : the model is not valid, or has another number of inputs, or several outputs
    """
    budget.limits.check_nodes(len(model.graph.node), "the model")
    nodes = nodes_of(model.graph, model.functions)
    for tensor in outside(model):
        what = f"tensor '{quoted(tensor.name)}'"
        raise SecateurError(f"{what}: its data are in another file; read the model with read_onnx")
    known = dict(constants)
    for tensor in model.graph.initializer:
        if tensor.name not in constants:
            known[tensor.name] = values_of(tensor, f"tensor '{quoted(tensor.name)}'", budget)
    sources = [value for value in model.graph.input if value.name not in known]
    results = list(model.graph.output)
    if len(sources) != inputs or len(results) != 1:
        raise SecateurError(
            f"the model has {len(sources)} inputs and {len(results)} outputs, the array takes one "
            f"tensor and returns one; export one network with one of each"
        )
    readers: dict[str, int] = {}
    for name in (*(name for node in nodes for name in node.input), *(v.name for v in results)):
        readers[name] = readers.get(name, 0) + 1
    shapes = _shapes(model)
    for value in sources:
        kind = value.type.tensor_type.elem_type
        if value.name not in shapes or kind not in _FLOATS:
            raise SecateurError(
                f"input '{quoted(value.name)}' is not a tensor of floats of a known rank; export "
                f"the model with one"
            )
    _check_order(nodes, {*known, *(value.name for value in sources)}, results[0].name)
    own = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    return Context(
        nodes, tuple(value.name for value in sources), results[0].name, known, budget, shapes,
        readers, max(own, default=13), keep,
    )  # fmt: skip


def _shapes(model: Any) -> dict[str, list[int]]:
    """Shapes by tensor name, as far as they can be inferred, 0 for a size that is not fixed."""
    import onnx

    with guarded("the shapes of its tensors cannot be inferred"):
        graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: [max(int(dim.dim_value), 0) for dim in value.type.tensor_type.shape.dim]
        for value in [*graph.input, *graph.value_info, *graph.output]
        if value.type.tensor_type.HasField("shape")
    }


def _check_order(nodes: list[OnnxNode], defined: set[str], result: str) -> None:
    """Refuse a tensor that is read before a node makes it, or made twice."""
    for node in nodes:
        for name in node.input:
            if name and name not in defined:
                raise refuse(
                    node, f"reads '{quoted(name)}', which nothing before it makes",
                    "export the model again",
                )  # fmt: skip
        for name in node.output:
            if name and name in defined:
                what = f"makes '{quoted(name)}', which is already defined"
                raise refuse(node, what, "export the model again")
            defined.add(name)
    if result not in defined:
        raise SecateurError(f"output '{quoted(result)}' is not made; export the model again")


def tensor(values: Array) -> Tensor:
    """A copy in float32."""
    with np.errstate(over="ignore"):  # infinite values are refused at the end
        return torch.from_numpy(np.array(values, dtype=np.float32))


def by_channel(node: OnnxNode, values: Array, rank: int, channels: int) -> Tensor:
    """A constant that is added to a tensor, or multiplied by it, as one value per channel.

    Parameters
    ----------
    node : for messages
    values : the constant
    rank : dimensions of the tensor, (N, channels, ...)
    channels : of the tensor, 0 if unknown

    Returns
    -------
    values : (channels,), or (1,): one for all

    Raises
    ------
    SecateurError : the constant has another shape
    """
    shape = (1,) * (rank - values.ndim) + values.shape
    others = [size for axis, size in enumerate(shape) if axis != 1]
    if rank < 2 or len(shape) != rank or any(size != 1 for size in others):
        raise refuse(
            node,
            f"a constant of shape {values.shape} with a tensor of {rank} dimensions",
            "give one value, or one per channel (the second dimension)",
        )
    if channels and values.size not in (1, channels):
        raise refuse(
            node, f"{values.size} values for {channels} channels", "give one value per channel"
        )
    return tensor(values).flatten()

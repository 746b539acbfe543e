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

#: Takes the inputs of a node that are not constant, returns its output, or a tuple of several.
Run = Callable[..., Any]
#: Whole numbers, of these inputs.
Row = Callable[[tuple[Any, ...]], list[int]]
Product = nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.Linear
#: Types of an input: FLOAT, FLOAT16, DOUBLE, BFLOAT16, and one that the file does not say.
_FLOATS = (1, 10, 11, 16, 0)
#: INT32, INT64, and one that the file does not say.
_INTEGERS = (6, 7, 0)


@dataclass
class Context:
    """What is known of a graph while it is converted.

    Attributes
    ----------
    nodes : in order
    sources, results : names of the inputs and of the outputs
    known : constants by tensor name
    budget : counts the constants
    shapes : by tensor name, 0 where a size is unknown
    readers : how often a tensor is read
    version : version of ONNX's own operators that the model imports
    batch : samples that the file fixes, 0 for any number
    keep : whether scales of activations are kept
    products : modules by the tensor that they make
    notes : messages for the user
    scales : (exponent, signed) of tensors that hold codes
    sizes : tensors that hold sizes, in numbers of Python
    zeros : tensors of a shape that is computed, which are zero: states to begin with
    measured : tensors of which ``shapes`` holds the shape for two samples or more
    written : shapes as the file has them, before any number of samples is allowed
    indices : inputs that are rows to look up in tables
    """

    nodes: list[OnnxNode]
    sources: tuple[str, ...]
    results: tuple[str, ...]
    known: dict[str, Array]
    budget: Budget
    shapes: dict[str, list[int]]
    readers: dict[str, int]
    version: int
    batch: int = 0
    keep: bool = False
    products: dict[str, Product] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    scales: dict[str, tuple[int, bool]] = field(default_factory=dict)
    sizes: set[str] = field(default_factory=set)
    zeros: set[str] = field(default_factory=set)
    measured: set[str] = field(default_factory=set)
    written: dict[str, list[int]] = field(default_factory=dict)
    indices: set[str] = field(default_factory=set)

    def note(self, text: str) -> None:
        """Keep a message for the user, once."""
        if text not in self.notes:
            self.notes.append(text)

    def dynamic(self, node: OnnxNode) -> tuple[str, ...]:
        """The inputs that are not constant."""
        return tuple(name for name in node.input if name and name not in self.known)

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

    def row(self, node: OnnxNode, index: int, name: str = "") -> Row | None:
        """Whole numbers that are constant, or computed of sizes.

        Parameters
        ----------
        node : the node
        index : of the input
        name : of an attribute that holds them if there is no input

        Returns
        -------
        row : a function of the inputs that are not constant; None if there are no numbers

        Raises
        ------
        SecateurError : they depend on values of the input
        """
        given = index < len(node.input) and node.input[index]
        if given and node.input[index] in self.sizes:
            place = self.dynamic(node).index(node.input[index])
            return lambda inputs: list(inputs[place].flat)
        found = self.integers(node, index)
        if found is None and node.has(name):
            found = node.integers(name)
        return None if found is None else lambda inputs: list(found)

    def axes(self, node: OnnxNode, index: int, rank: int) -> list[int] | None:
        """The axes that an input or the attribute ``axes`` gives.

        Parameters
        ----------
        node : the node
        index : of the input
        rank : dimensions of the tensor that they belong to

        Returns
        -------
        axes : as given, counted from 0; None if neither is there

        Raises
        ------
        SecateurError : an axis is out of range, or given twice
        """
        found = self.integers(node, index)
        if found is None and node.has("axes"):
            found = node.integers("axes")
        if found is None:
            return None
        places = [axis % rank if -rank <= axis < rank else -1 for axis in found]
        if -1 in places or len(set(places)) != len(places):
            raise refuse(node, f"axes {found} of {rank} dimensions", "export the model again")
        return places

    def shape(self, node: OnnxNode, *ranks: int) -> list[int]:
        """Shape of the first input; refused if its rank is unknown or none of ``ranks``."""
        shape = self.shapes.get(node.input[0])
        if shape is None or (ranks and len(shape) not in ranks):
            found = "unknown" if shape is None else len(shape)
            wanted = " or ".join(map(str, ranks)) or "a fixed one"
            raise refuse(node, f"input of rank {found}, expected {wanted}", "use layers of maps, "
                         "signals or vectors: (N, C, H, W), (N, C, L), (N, C)")  # fmt: skip
        return shape

    def rank(self, node: OnnxNode) -> int:
        """Dimensions of the first input."""
        return len(self.shape(node))

    def only_reader(self, name: str) -> bool:
        """Whether the tensor is read once."""
        return self.readers.get(name, 0) == 1


def context_of(
    model: Any, constants: dict[str, Array], budget: Budget, inputs: int | None, keep: bool
) -> Context:
    """What an ``onnx.ModelProto`` contains.

    Parameters
    ----------
    model : the message
    constants : binds inputs of the graph
    budget : counts the constants
    inputs : how many other inputs the graph must have; any number if None
    keep : whether scales of activations are kept

    Raises
    ------
    SecateurError : the model is not valid, or has another number of inputs
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
    results = tuple(value.name for value in model.graph.output)
    if len(sources) != (inputs or max(len(sources), 1)) or not results:
        raise SecateurError(
            f"the model has {len(sources)} inputs and {len(results)} outputs; export a network "
            f"with one or more of each"
        )
    readers: dict[str, int] = {}
    for name in (*(name for node in nodes for name in node.input), *results):
        readers[name] = readers.get(name, 0) + 1
    shapes = _shapes(model)
    indices = {value.name for value in sources if _indexes(nodes, value.name)}
    for value in sources:
        kind = value.type.tensor_type.elem_type
        integers = value.name in indices
        if value.name not in shapes or kind not in (_INTEGERS if integers else _FLOATS):
            kinds = "integers, which Gather looks up," if integers else "floats"
            raise SecateurError(
                f"input '{quoted(value.name)}' is not a tensor of {kinds} of a known rank; export "
                f"the model with one"
            )
    _check_order(nodes, {*known, *(value.name for value in sources)}, results)
    own = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    names = tuple(value.name for value in sources)
    batch = next((shapes[name][0] for name in names if shapes[name]), 0)
    return Context(
        nodes, names, results, known, budget, shapes, readers, max(own, default=13), batch, keep,
        written=dict(shapes), indices=indices,
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


def _indexes(nodes: list[OnnxNode], name: str) -> bool:
    """Whether an input is nothing but rows to look up."""
    readers = [node for node in nodes if name in node.input]
    return bool(readers) and all(
        (node.op_type == "Gather" and node.input[1:] == (name,))
        or (node.op_type == "Cast" and _indexes(nodes, node.output[0]))
        for node in readers
    )


def _check_order(nodes: list[OnnxNode], defined: set[str], results: tuple[str, ...]) -> None:
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
    for name in results:
        if name not in defined:
            raise SecateurError(f"output '{quoted(name)}' is not made; export the model again")


def tensor(values: Array) -> Tensor:
    """A copy in float32."""
    with np.errstate(over="ignore"):  # infinite values are refused at the end
        return torch.from_numpy(np.array(values, dtype=np.float32))

"""Sizes that an ONNX graph computes with: whole numbers that Python knows while it runs.

Exporters write ``x.view(x.size(0), -1)`` as Shape, Gather, Unsqueeze, Concat and Reshape. None of
these is an operation on activations. They run on arrays of Python's own numbers, in which the
number of samples may be one that torch.export leaves open.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from secateur.capture.onnx.node import OnnxNode, refuse
from secateur.capture.onnx.values import check_type

#: Of int, float, torch.SymInt and torch.SymFloat.
Sizes = npt.NDArray[np.object_]
#: More numbers than a shape has.
MOST = 256
_FEW = "compute sizes of shapes only"
_FLOATS = (1, 10, 11, 16)


def sizes_of(value: Any) -> Sizes:
    """A number, a row of numbers or an array as an array of objects."""
    if isinstance(value, np.ndarray):
        return value.astype(object)
    found = np.empty((len(value),) if isinstance(value, tuple | list) else (), object)
    for index in np.ndindex(found.shape):
        found[index] = value[index[0]] if index else value
    return found


def shape(node: OnnxNode) -> Callable[..., Sizes]:
    """Shape and Size."""
    if node.op_type == "Size":
        return lambda x: sizes_of(math.prod(x.shape))
    start, end = node.integer("start", 0), node.integer("end", MOST)
    return lambda x: sizes_of(tuple(x.shape)[start:end])


def computed(node: OnnxNode) -> Callable[..., Sizes]:
    """A node of ``OPERATORS``; takes all its inputs, None for those that are omitted.

    Raises
    ------
    SecateurError : when it runs: it makes more numbers than a shape has
    """
    function = OPERATORS[node.op_type]

    def run(*values: Sizes | None) -> Sizes:
        if any(value is not None and value.size > MOST for value in values):
            raise refuse(node, f"sizes computed with more than {MOST} numbers", _FEW)
        return sizes_of(function(node, *values))

    return run


def _integers(node: OnnxNode, name: str, given: Sizes | None) -> list[int]:
    """Whole numbers of an input, or of an attribute."""
    return node.integers(name) if given is None else [int(n) for n in given.flat]


def _each(function: Callable[..., Any], _: OnnxNode, *values: Sizes) -> Any:
    """A function of numbers, with broadcasting."""
    return np.frompyfunc(function, len(values), 1)(*values)


def _of_all(function: Callable[[Any, Any], Any], _: OnnxNode, *values: Sizes) -> Any:
    """A function of two numbers, over any count of inputs."""
    found = values[0]
    for value in values[1:]:
        found = np.frompyfunc(function, 2, 1)(found, value)
    return found


def _divided(a: Any, b: Any) -> Any:
    """Sizes are divided without a rest that counts; numbers below 0 do not occur."""
    return a / b if isinstance(a, float | torch.SymFloat) else a // b


def _cast(node: OnnxNode, value: Sizes) -> Any:
    kind = node.integer("to")
    check_type(kind, "a size")
    if kind == 9:
        return _each(bool, node, value)
    return _each(torch.sym_float if kind in _FLOATS else torch.sym_int, node, value)


def _gather(node: OnnxNode, value: Sizes, indices: Sizes) -> Any:
    return np.take(value, indices.astype(np.int64), node.integer("axis", 0))


def _slice(node: OnnxNode, value: Sizes, *given: Sizes | None) -> Any:
    starts, ends, axes, steps = (*given, None, None, None, None)[:4]
    first, last = _integers(node, "starts", starts), _integers(node, "ends", ends)
    step = [1] * len(first) if steps is None else _integers(node, "", steps)
    if len(first) != 1 or value.ndim != 1 or len(last) != 1 or (axes is not None and axes.size > 1):
        raise refuse(node, "a slice of sizes that are not a row", _FEW)
    return value[first[0] : last[0] : step[0]]


def _squeeze(node: OnnxNode, value: Sizes, axes: Sizes | None = None) -> Any:
    given = axes is not None or node.has("axes")
    return np.squeeze(value, tuple(_integers(node, "axes", axes)) if given else None)


def _unsqueeze(node: OnnxNode, value: Sizes, axes: Sizes | None = None) -> Any:
    return np.expand_dims(value, tuple(_integers(node, "axes", axes)))


def _filled(node: OnnxNode, value: Any, shape: Sizes) -> Any:
    dimensions = [int(n) for n in shape.flat]
    if min(dimensions, default=0) < 0 or math.prod(dimensions) > MOST:
        raise refuse(node, f"sizes of shape {dimensions}", _FEW)
    return np.broadcast_to(value, np.broadcast_shapes(np.shape(value), tuple(dimensions)))


def _constant_of_shape(node: OnnxNode, shape: Sizes) -> Any:
    value = 0.0
    if node.has("value"):
        from onnx import numpy_helper

        value = numpy_helper.to_array(node.attributes["value"].t).reshape(-1)[:1].tolist()[0]
    return _filled(node, sizes_of(value), shape)


def _range(node: OnnxNode, *ends: Sizes) -> Any:
    found = range(*(int(end.item()) for end in ends))
    if len(found) > MOST:
        raise refuse(node, f"a range of {len(found)} sizes", _FEW)
    return list(found)


def _product(node: OnnxNode, value: Sizes, *axes: Sizes | None) -> Any:
    found = math.prod(value.reshape(-1).tolist())
    return [found] if node.integer("keepdims", 1) else found


def _least(a: Any, b: Any) -> Any:
    return torch.sym_min(a, b)


def _most(a: Any, b: Any) -> Any:
    return torch.sym_max(a, b)


#: Operators on sizes: (node, inputs) -> numbers.
OPERATORS: dict[str, Callable[..., Any]] = {
    "Abs": partial(_each, abs),
    "Add": partial(_each, operator.add),
    "Cast": _cast,
    "Ceil": partial(_each, math.ceil),
    "Concat": lambda node, *values: np.concatenate(values, node.integer("axis")),
    "ConstantOfShape": _constant_of_shape,
    "Div": partial(_each, _divided),
    "Equal": partial(_each, operator.eq),
    "Expand": _filled,
    "Flatten": lambda node, value: value.reshape(1, -1),
    "Floor": partial(_each, math.floor),
    "Gather": _gather,
    "Greater": partial(_each, operator.gt),
    "Identity": lambda node, value: value,
    "Less": partial(_each, operator.lt),
    "Max": partial(_of_all, _most),
    "Min": partial(_of_all, _least),
    "Mod": partial(_each, operator.mod),
    "Mul": partial(_each, operator.mul),
    "Neg": partial(_each, operator.neg),
    "Not": partial(_each, operator.not_),
    "Range": _range,
    "ReduceProd": _product,
    "Reshape": lambda node, value, shape: value.reshape([int(n) for n in shape.flat]),
    "Slice": _slice,
    "Sqrt": partial(_each, math.sqrt),
    "Squeeze": _squeeze,
    "Sub": partial(_each, operator.sub),
    "Unsqueeze": _unsqueeze,
    "Where": partial(_each, lambda condition, a, b: a if condition else b),
}

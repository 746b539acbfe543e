"""Constants of an ONNX graph that a few operators compute, each of a size known before."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from secateur.capture.onnx.node import OnnxNode, guarded, refuse, shown
from secateur.capture.onnx.values import SIMPLIFY, Array, Budget, check_type, values_of
from secateur.text import name as quoted


def fold(node: OnnxNode, inputs: list[Array | None], version: int, budget: Budget) -> list[Array]:
    """The outputs of a node whose inputs are constant.

    Parameters
    ----------
    node : the node
    inputs : values of its inputs, None for those that are omitted
    version : version of ONNX's own operators
    budget : counts the numbers that the node makes

    Raises
    ------
    SecateurError : an operator that is not computed, or one that would make too much
    """
    what = f"{shown(node)}: a constant cannot be computed"
    with guarded(what, SIMPLIFY):
        if node.op_type == "Constant" and not node.domain:
            return [_constant(node, budget)]
        bound = _BOUNDS.get(node.op_type)
        if bound is None or node.domain:
            raise refuse(
                node, "makes a constant by an operator that is not computed here", SIMPLIFY
            )
        budget.make(bound(node, inputs), shown(node))
        if node.op_type == "DequantizeLinear":  # onnx evaluates its later versions only
            return [dequantised(node, inputs)]
        with np.errstate(all="ignore"):
            found = _evaluate(node, inputs, version)
        if len(found) != len(node.output):
            raise refuse(node, f"{len(found)} results, {len(node.output)} outputs", SIMPLIFY)
        return found


def _evaluate(node: OnnxNode, inputs: list[Array | None], version: int) -> list[Array]:
    """By onnx's own evaluator, in a graph of names of ours."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    names = ["" if value is None else f"in{index}" for index, value in enumerate(inputs)]
    outputs = [f"out{index}" for index in range(len(node.output))]
    made = helper.make_node(node.op_type, names, outputs)
    made.attribute.extend(node.attributes.values())
    kind = helper.make_tensor_type_proto(0, None)
    given = {n: v for n, v in zip(names, inputs, strict=True) if v is not None}
    graph = helper.make_graph(
        [made], "constant",
        [helper.make_value_info(name, kind) for name in given],
        [helper.make_value_info(name, kind) for name in outputs],
    )  # fmt: skip
    if node.op_type == "QuantizeLinear":  # the same
        version = max(version, 19)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, given)]


def _constant(node: OnnxNode, budget: Budget) -> Array:
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64,
             "value_ints": np.int64}  # fmt: skip
    for name, item in node.attributes.items():
        if name == "value":
            return values_of(item.t, shown(node), budget)
        if name in kinds:
            held = {"value_float": item.f, "value_floats": item.floats, "value_int": item.i,
                    "value_ints": item.ints}[name]  # fmt: skip
            budget.hold(len(held) if name.endswith("s") else 1, shown(node))
            return np.array(held, kinds[name])
    raise refuse(node, "a constant that is not a number or a tensor", SIMPLIFY)


def dequantised(node: OnnxNode, inputs: list[Array | None]) -> npt.NDArray[np.float32]:
    """Constant DequantizeLinear, per tensor or along an axis: codes, scale and zero point."""
    _check_scales(node, inputs)
    codes, scale, zero = given(node, inputs, 0), given(node, inputs, 1), (*inputs, None)[2]
    shape = [1] * codes.ndim
    if scale.size > 1:
        shape[node.integer("axis", 1)] = scale.size
    offset = np.zeros(1) if zero is None else zero
    shift = offset.astype(np.float32).reshape(shape if offset.size > 1 else [1] * codes.ndim)
    shifted = codes.astype(np.float32) - shift
    found: npt.NDArray[np.float32] = shifted * scale.astype(np.float32).reshape(shape)
    return found


def _check_scales(node: OnnxNode, inputs: list[Array | None]) -> None:
    """Refuse scales that are not one, or one for each channel along the axis."""
    if node.integer("block_size", 0):
        raise refuse(node, "blocked scales", "use one scale per channel")
    values, axis = given(node, inputs, 0), node.integer("axis", 1)
    channels = values.shape[axis] if -values.ndim <= axis < values.ndim else 1
    for index in range(1, len(inputs)):
        part = inputs[index]
        if part is not None and part.size != 1 and part.shape != (channels,):
            raise refuse(
                node, f"scales of shape {part.shape} for {channels} channels",
                "use one scale, or one per channel",
            )  # fmt: skip


def given(node: OnnxNode, inputs: list[Array | None], index: int) -> Array:
    """An input that must be given.

    Parameters
    ----------
    node : the node
    inputs : values of its inputs, None for those that are omitted
    index : which input

    Raises
    ------
    SecateurError : the input is omitted
    """
    found = inputs[index] if index < len(inputs) else None
    if found is None:
        raise refuse(node, f"has no input {index}", "export the model again")
    return found


def _first(node: OnnxNode, inputs: list[Array | None]) -> int:
    return int(given(node, inputs, 0).size)


def _broadcast(node: OnnxNode, inputs: list[Array | None]) -> int:
    return math.prod(np.broadcast_shapes(*(value.shape for value in inputs if value is not None)))


def _joined(node: OnnxNode, inputs: list[Array | None]) -> int:
    return sum(value.size for value in inputs if value is not None)


def _cast(node: OnnxNode, inputs: list[Array | None]) -> int:
    check_type(node.integer("to"), shown(node))
    return _first(node, inputs)


def _quantised(node: OnnxNode, inputs: list[Array | None]) -> int:
    _check_scales(node, inputs)
    return _first(node, inputs)


def _gathered(node: OnnxNode, inputs: list[Array | None]) -> int:
    data, indices = given(node, inputs, 0), given(node, inputs, 1)
    return int(data.size // max(data.shape[node.integer("axis", 0)], 1) * indices.size)


def _shaped(node: OnnxNode, inputs: list[Array | None]) -> int:
    return math.prod(_dimensions(node, given(node, inputs, 0)))


def _expanded(node: OnnxNode, inputs: list[Array | None]) -> int:
    shape = _dimensions(node, given(node, inputs, 1))
    return math.prod(np.broadcast_shapes(given(node, inputs, 0).shape, shape))


def _dimensions(node: OnnxNode, shape: Array) -> tuple[int, ...]:
    if shape.size > np.iinfo(np.int8).max or shape.dtype.kind != "i" or (shape < 0).any():
        raise refuse(node, f"makes a tensor of shape {quoted(shape.tolist())}", SIMPLIFY)
    return tuple(int(size) for size in shape.flat)


#: Operators that are computed, and how many numbers each makes at most. Exporters leave them
#: between a weight and its layer, and where they compute a shape.
_BOUNDS: dict[str, Callable[[OnnxNode, list[Array | None]], int]] = {
    **dict.fromkeys(
        ("Abs", "Ceil", "Cos", "CumSum", "Erf", "Exp", "Flatten", "Floor", "Identity", "Log", "Neg",
         "Not", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp",
         "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
         "Relu", "Reshape", "Round", "Shape", "Sigmoid", "Sign", "Sin", "Size", "Slice", "Softplus",
         "Sqrt", "Squeeze", "Tanh", "Transpose", "Trilu", "Unsqueeze"),
        _first,
    ),
    **dict.fromkeys(
        ("Add", "And", "Clip", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
         "Max", "Min", "Mod", "Mul", "Or", "Pow", "Sub", "Sum", "Where"),
        _broadcast,
    ),
    "Cast": _cast,
    "Concat": _joined,
    "ConstantOfShape": _shaped,
    "DequantizeLinear": _quantised,
    "Expand": _expanded,
    "Gather": _gathered,
    "QuantizeLinear": _quantised,
}  # fmt: skip

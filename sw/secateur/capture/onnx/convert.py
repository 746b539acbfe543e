"""ONNX files as PyTorch modules: each node as the PyTorch operation of the same meaning.

Convolutions, dense layers and batch norms become modules of their own, so that they can be pruned
and trained like any others. What the array can run of it is decided behind, as for a model of
PyTorch. Names of the file are labels: no module is called by them, since torch.export writes the
names of modules into code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from secateur.capture.onnx import sizes
from secateur.capture.onnx.context import Context, context_of
from secateur.capture.onnx.file import read_onnx
from secateur.capture.onnx.fold import fold
from secateur.capture.onnx.model import OnnxModel, model_for
from secateur.capture.onnx.node import OnnxNode, guarded, refuse, shown
from secateur.capture.onnx.operators.quantised import MOVES, moved
from secateur.capture.onnx.operators.recurrent import LAYERS as RECURRENT
from secateur.capture.onnx.operators.table import LAYERS, REFUSED
from secateur.capture.onnx.values import Array, Budget, values_of
from secateur.disk.limits import DEFAULT, Limits
from secateur.errors import SecateurError
from secateur.text import name as quoted

#: Operators of which several outputs may be read.
_SEVERAL = ("Split", *RECURRENT)

__all__ = ["OnnxModel", "convert_onnx", "load_onnx", "read_onnx"]


def load_onnx(path: Path | str, *, limits: Limits = DEFAULT) -> OnnxModel:
    """Read an ONNX file as a module in float.

    Parameters
    ----------
    path : the file
    limits : bounds of the file, of its constants and of its tensors

    Raises
    ------
    SecateurError : the file is not an ONNX model, the package onnx is missing, or an operator, or
        a form of one, is not supported
    """
    model = read_onnx(path, limits=limits)
    try:
        return convert_onnx(model, limits=limits)
    except SecateurError as error:
        raise SecateurError(f"{path}: {error}") from None


def convert_onnx(
    model: Any,
    constants: dict[str, Array] | None = None,
    *,
    keep: bool = False,
    inputs: int | None = None,
    limits: Limits = DEFAULT,
) -> OnnxModel:
    """An ``onnx.ModelProto`` as a module.

    Parameters
    ----------
    model : the model
    constants : binds further inputs of the graph
    keep : quantise activations where the model does; by default it is left to calibration
    inputs : how many the module takes; as many as the graph has if None
    limits : of nodes, of constants and of tensors

    Raises
    ------
    SecateurError : as `load_onnx`; with ``keep``, a scale is not a power of two
    """
    context = context_of(model, constants or {}, Budget(limits), inputs, keep)
    result = model_for(context)
    for node in context.nodes:
        with guarded(shown(node)):
            _convert(node, context, result)
    result.finish(context)
    return result.eval()


def _convert(node: OnnxNode, context: Context, result: OnnxModel) -> None:
    dynamic = context.dynamic(node)
    if not dynamic:
        inputs = [context.known.get(name) for name in node.input]
        made = fold(node, inputs, context.version, context.budget)
        context.known |= zip(node.output, made, strict=True)
        return
    if not node.domain and _is_zero(node, dynamic, context):
        context.zeros.add(node.output[0])
        return
    if not node.domain and _is_of_sizes(node, dynamic, context):
        result.add(node, _sizes(node, context), dynamic, context)
        context.sizes.add(node.output[0])
        return
    if node.op_type == "CastLike" and dynamic == tuple(node.input[1:]):
        context.known[node.output[0]] = context.known[node.input[0]]
        return
    convert = None if node.domain else (LAYERS | REFUSED).get(node.op_type)
    if convert is None:
        raise refuse(node, "is not supported", f"supported are {', '.join(sorted(LAYERS))}")
    for name in node.output[1:]:
        if node.op_type in LAYERS and node.op_type not in _SEVERAL and name in context.readers:
            what = f"has a second output, '{quoted(name)}', that is read"
            raise refuse(node, what, "export without it")
    run = convert(node, context)
    moved(node, context)
    result.add(node, run, dynamic[:1] if node.op_type in RECURRENT else dynamic, context)


def _is_zero(node: OnnxNode, dynamic: tuple[str, ...], context: Context) -> bool:
    """Whether a node makes zeros of a shape that is computed, or moves such zeros."""
    if dynamic[0] in context.zeros:
        return node.op_type in MOVES
    if not context.sizes.issuperset(dynamic):
        return False
    if node.op_type == "ConstantOfShape":
        item = node.attributes["value"].t if node.has("value") else None
        value = np.zeros(1, np.float32) if item is None else values_of(item, "", context.budget)
    elif node.op_type == "Expand" and node.input[0] in context.known:
        value = context.known[node.input[0]]
    else:
        return False
    return value.dtype.kind == "f" and not value.any()


def _is_of_sizes(node: OnnxNode, dynamic: tuple[str, ...], context: Context) -> bool:
    """Whether a node computes with sizes of tensors, and not with their values."""
    if node.op_type in ("Shape", "Size"):
        return True
    fixed = [context.known[name] for name in node.input if name in context.known]
    few = all(value.size <= sizes.MOST for value in fixed)
    if node.op_type == "Expand" and any(value.dtype.kind == "f" for value in fixed):
        return False
    return few and node.op_type in sizes.OPERATORS and context.sizes.issuperset(dynamic)


def _sizes(node: OnnxNode, context: Context) -> Any:
    if node.op_type in ("Shape", "Size"):
        return sizes.shape(node)
    run, known = sizes.computed(node), context.known
    given = [sizes.sizes_of(known[name]) if name in known else None for name in node.input]
    dynamic = [bool(name) and name not in known for name in node.input]

    def all_inputs(*inputs: Any) -> Any:
        left = iter(inputs)
        return run(*(next(left) if late else value
                     for late, value in zip(dynamic, given, strict=True)))  # fmt: skip

    return all_inputs

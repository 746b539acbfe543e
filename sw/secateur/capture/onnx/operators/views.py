"""ONNX operators that give a tensor another shape, for any number of samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from secateur.capture.onnx.context import Context, Run
from secateur.capture.onnx.node import OnnxNode, refuse
from secateur.capture.onnx.operators.call import Call, tensor

_BATCH = "keep samples in the first dimension"


def flatten(node: OnnxNode, context: Context) -> Run:
    """Flatten to a matrix."""
    rank = context.rank(node)
    axis = node.integer("axis", 1)
    if not -rank <= axis <= rank:
        raise refuse(node, f"axis {axis} of {rank} dimensions", "export the model again")
    axis = axis + rank if axis < 0 else axis
    if axis == 1:
        return nn.Flatten()
    if axis == 0:
        return lambda x: x.reshape(1, -1)
    return lambda x: x.reshape(-1, math.prod(x.shape[axis:]))


def reshape(node: OnnxNode, context: Context) -> Run:
    """Reshape; the size of a batch that the file fixes stands for any."""
    target = context.row(node, 1, "shape")
    if target is None:
        raise refuse(node, "has no shape", "export the model again")
    as_is, batch = bool(node.integer("allowzero", 0)), context.batch
    written = context.written.get(node.input[0], [])
    # Where onnx cannot tell a size, the number of samples comes first.
    written = [written[0] if any(written[:1]) else batch, *written[1:]]

    def run(*inputs: Any) -> Tensor:
        x, wanted = inputs[0], target(inputs)
        if not as_is:
            wanted = [x.shape[i] if is_size(n, 0) else n for i, n in enumerate(wanted)]
        rest, fixed = wanted[1:], not any(is_size(n, -1) for n in wanted)
        if rest and fixed and math.prod(rest) == math.prod(x.shape[1:]):
            wanted = [x.shape[0], *rest]
        return x.reshape(_resized(wanted, x, written))  # type: ignore[no-any-return]

    if target is not None and node.input[0] in context.known:
        return Call(lambda x, shape: x.reshape(shape.tolist()), node, context, whole=True)
    return run


def _resized(wanted: list[Any], x: Tensor, written: list[int]) -> list[Any]:
    """The shape that a file asks for, of a tensor whose shape is not the one in the file.

    The number of samples differs, or that of steps: sizes of the file stand for those of the
    tensor, in the same place.

    Parameters
    ----------
    wanted : the shape
    x : the tensor
    written : its shape in the file, 0 where it is not fixed
    """
    found = list(wanted)
    for axis, (has, size) in enumerate(zip(x.shape, written, strict=False)):
        if size == 0 or has == size:
            continue
        before, count = math.prod(written[:axis]), 1
        for place, n in enumerate(wanted):
            if count == before and is_size(n, size):
                found[place] = has
                break
            if not isinstance(n, int) or n < 1:
                break
            count *= n
    return found


def is_size(size: Any, value: int) -> bool:
    """Whether a size is a number of Python, and this one."""
    return isinstance(size, int) and size == value


def squeeze(node: OnnxNode, context: Context) -> Run:
    """Squeeze; samples stay, even if there is one."""
    shape = context.shape(node)
    chosen = context.axes(node, 1, len(shape))
    if chosen is None:
        chosen = [axis for axis, size in enumerate(shape) if size == 1 and axis > 0]
    fixed = node.input[0] in context.measured  # one, for more samples than one
    if any(shape[axis] not in (0, 1) for axis in chosen) or (0 in chosen and not fixed):
        raise refuse(node, f"squeezes the axes {chosen} of {shape}", _BATCH)
    return lambda x: x.squeeze(chosen)


def unsqueeze(node: OnnxNode, context: Context) -> Run:
    """Unsqueeze."""
    rank = context.rank(node)
    given = context.integers(node, 1)
    given = node.integers("axes") if given is None else given
    chosen = context.axes(node, 1, rank + len(given)) or []

    def run(x: Tensor) -> Tensor:
        for axis in sorted(chosen):
            x = x.unsqueeze(axis)
        return x

    return run


def expand(node: OnnxNode, context: Context) -> Run:
    """Expand by broadcasting both ways."""
    target, batch = context.row(node, 1), context.batch
    if target is None:
        raise refuse(node, "has no shape", "export the model again")

    def wide(x: Tensor, shape: list[Any]) -> Tensor:
        shape = [1] * (x.dim() - len(shape)) + list(shape)
        x = x[(None,) * (len(shape) - x.dim())]
        if batch and is_size(shape[0], batch):
            shape[0] = -1
        return x.expand([-1 if is_size(n, 1) else n for n in shape])

    if node.input[0] in context.known:
        return _Wide(tensor(context.weight(node, 0)), lambda *inputs: target(inputs), wide)
    return lambda *inputs: wide(inputs[0], target(inputs))


class _Wide(nn.Module):
    """A constant in a shape that is computed."""

    def __init__(self, value: Tensor, shape: Run, wide: Callable[..., Tensor]) -> None:
        super().__init__()
        self.shape, self.wide = shape, wide
        self.register_buffer("value", value)

    def forward(self, *inputs: Any) -> Tensor:
        return self.wide(self.value, self.shape(*inputs))

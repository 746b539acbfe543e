"""ONNX operators that move values, as the PyTorch operation of the same meaning."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.capture.onnx.context import Context, Run
from secateur.capture.onnx.node import MOST, OnnxNode, refuse
from secateur.capture.onnx.operators.call import Call, tensor
from secateur.capture.onnx.operators.views import is_size


def through(node: OnnxNode, context: Context) -> Run:
    """Identity."""
    return nn.Identity()


def dropout(node: OnnxNode, context: Context) -> Run:
    """Dropout, in inference."""
    if context.scalar(node, 2):
        raise refuse(node, "training_mode", "export the model in evaluation mode")
    return nn.Identity()


def transpose(node: OnnxNode, context: Context) -> Run:
    """Transpose of any axes."""
    rank = context.rank(node)
    perm = node.integers("perm") if node.has("perm") else list(range(rank))[::-1]
    if sorted(perm) != list(range(rank)):
        raise refuse(node, f"permutes {rank} axes by {perm}", "export the model again")
    return lambda x: x.permute(perm)


def concat(node: OnnxNode, context: Context) -> Run:
    """Concat along any axis; constants are those of every sample."""
    axis = node.integer("axis", 1)

    def run(*parts: Tensor) -> Tensor:
        count = max((part.shape[0] for part in parts), key=lambda n: not is_size(n, 1))
        whole = [
            part.expand(count, *part.shape[1:]) if is_size(part.shape[0], 1) and axis else part
            for part in parts
        ]
        return torch.cat(whole, axis)

    if len(context.dynamic(node)) == len(node.input):
        if axis == 0 and all(_is_one(context.shapes.get(name)) for name in node.input):
            return lambda *parts: torch.stack([part.squeeze(0) for part in parts])
        return lambda *parts: torch.cat(parts, axis)
    return Call(run, node, context, whole=True)


def _is_one(shape: list[int] | None) -> bool:
    """Whether a tensor's first dimension has one entry: it is not a batch."""
    return shape is not None and shape[:1] == [1]


def split(node: OnnxNode, context: Context) -> Run:
    """Split into parts of given sizes, or of the same."""
    shape, axis = context.shape(node), node.integer("axis", 0)
    sizes = context.integers(node, 1)
    if sizes is None and node.has("split"):
        sizes = node.integers("split")
    count = node.integer("num_outputs", len(node.output))
    if not -len(shape) <= axis < len(shape) or count != len(node.output):
        raise refuse(node, f"{count} parts along axis {axis} of {shape}", "export the model again")
    if sizes is not None and (len(sizes) != count or min(sizes) < 0):
        raise refuse(node, f"splits by {sizes}", "give one size per output")

    def run(x: Tensor) -> tuple[Tensor, ...]:
        if sizes is not None:
            return torch.split(x, sizes, axis)
        return torch.split(x, -(-x.shape[axis] // count), axis)

    return run


def cut(node: OnnxNode, context: Context) -> Run:
    """Slice: any axes, any steps."""
    rank = context.rank(node)
    starts, ends = context.row(node, 1, "starts"), context.row(node, 2, "ends")
    axes, steps = context.row(node, 3, "axes"), context.integers(node, 4)
    if starts is None or ends is None:
        raise refuse(node, "has no starts or ends", "export the model again")

    def run(*inputs: Any) -> Tensor:
        x, first, last = inputs[0], starts(inputs), ends(inputs)
        places = axes(inputs) if axes is not None else list(range(len(first)))
        by = steps or [1] * len(first)
        if not len(first) == len(last) == len(places) == len(by) or 0 in by:
            raise ValueError(f"{len(first)} starts, {len(last)} ends, {len(places)} axes")
        for start, end, axis, step in zip(first, last, places, by, strict=True):
            if not -rank <= axis < rank:
                raise ValueError(f"axis {axis} of {rank} dimensions")
            x = _part(x, axis % rank, slice(start, end, step))
        return x  # type: ignore[no-any-return]

    return run


def _part(x: Tensor, axis: int, part: slice) -> Tensor:
    """A slice along an axis, with a step of either sign."""
    before = (slice(None),) * axis
    if part.step > 0:
        if (
            is_size(part.start, 0)
            and part.step == 1
            and isinstance(part.stop, int)
            and part.stop >= MOST
        ):
            return x
        return x[(*before, part)]
    found = range(*part.indices(x.shape[axis]))
    if not found:
        return x[(*before, slice(0, 0))]
    return x[(*before, slice(found[-1], found[0] + 1, -part.step))].flip(axis)


def tile(node: OnnxNode, context: Context) -> Run:
    """Tile: copies along axes."""
    repeats, rank = context.row(node, 1), context.rank(node)
    if repeats is None or len(node.input) != 2:
        raise refuse(node, "is not given one number for each axis", "export opset 6 or later")

    def run(*inputs: Any) -> Tensor:
        times = repeats(inputs)
        if len(times) != rank:
            raise ValueError(f"{len(times)} repeats of {rank} dimensions")
        return inputs[0].repeat(times)  # type: ignore[no-any-return]

    return run


def gather(node: OnnxNode, context: Context) -> Run:
    """Gather by constant indices, or by those of the input from a table."""
    if node.input[0] in context.known:
        return _embedding(node, context)
    rank, axis = context.rank(node), node.integer("axis", 0)
    if not -rank <= axis < rank:
        raise refuse(node, f"axis {axis} of {rank} dimensions", "export the model again")
    axis %= rank
    if len(node.input) > 1 and node.input[1] in context.sizes:
        place = context.row(node, 1)
        return lambda *inputs: inputs[0].select(axis, place(inputs)[0])  # type: ignore[misc]
    indices = context.weight(node, 1)
    if indices.dtype.kind not in "iu":
        raise refuse(node, f"indices of {indices.dtype}", "give whole numbers")
    if indices.ndim == 0:
        index = int(indices)
        return lambda x: x.select(axis, index)
    return _Taken(axis, indices)


def _embedding(node: OnnxNode, context: Context) -> Run:
    """Rows of a table, (V, D), by integers of the input."""
    table, axis = context.weight(node, 0), node.integer("axis", 0)
    if table.ndim != 2 or axis not in (0, -2) or table.dtype.kind != "f":
        what = f"looks up along axis {axis} of {table.dtype} values of shape {table.shape}"
        raise refuse(node, what, "look up rows of a table of floats, as nn.Embedding does")
    return cast(Run, nn.Embedding.from_pretrained(tensor(table)))


class _Taken(nn.Module):
    """Values along an axis, by indices of any shape."""

    def __init__(self, axis: int, indices: np.ndarray[Any, Any]) -> None:
        super().__init__()
        self.axis, self.shape, self.from_end = axis, indices.shape, bool((indices < 0).any())
        self.register_buffer("indices", tensor(indices.reshape(-1)))

    def forward(self, x: Tensor) -> Tensor:
        indices: Any = self.indices
        if self.from_end:
            indices = torch.where(indices < 0, indices + x.shape[self.axis], indices)
        found = x.index_select(self.axis, indices)
        return found if len(self.shape) == 1 else found.unflatten(self.axis, self.shape)


def _blocks(node: OnnxNode, context: Context) -> tuple[int, str]:
    """Height and width of the blocks of pixels, and the order of their channels."""
    block, mode = node.integer("blocksize"), node.choice("mode", "DCR", "CRD")
    context.shape(node, 4)
    if not 1 <= block <= MOST:
        raise refuse(node, f"blocks of {block}", "export the model again")
    return block, mode


def depth_to_space(node: OnnxNode, context: Context) -> Run:
    """DepthToSpace: PixelShuffle, or its order of channels by blocks."""
    block, mode = _blocks(node, context)
    if mode == "CRD":
        return nn.PixelShuffle(block)

    def run(x: Tensor) -> Tensor:
        _, c, h, w = x.shape
        parts = x.reshape(-1, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return parts.reshape(-1, c // block**2, h * block, w * block)

    return run


def space_to_depth(node: OnnxNode, context: Context) -> Run:
    """SpaceToDepth: PixelUnshuffle, or its order of channels by blocks."""
    block, mode = _blocks(node, context)
    if mode == "CRD":
        return nn.PixelUnshuffle(block)

    def run(x: Tensor) -> Tensor:
        _, c, h, w = x.shape
        parts = x.reshape(-1, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
        return parts.reshape(-1, c * block**2, h // block, w // block)

    return run


def pad(node: OnnxNode, context: Context) -> Run:
    """Pad with a constant, or with values of the tensor; amounts below 0 cut."""
    rank = context.rank(node)
    value, axes = context.scalar(node, 2), context.axes(node, 3, rank)
    pads = context.row(node, 1, "pads" if node.has("pads") else "paddings")
    number = node.real("value", 0.0) if value is None else value
    mode = node.choice("mode", "constant", "reflect", "edge", "wrap")
    if pads is None:
        raise refuse(node, "has no pads", "export the model again")
    places = list(range(rank)) if axes is None else axes

    def run(*inputs: Any) -> Tensor:
        x, given = inputs[0], pads(inputs)
        if len(given) != 2 * len(places):
            raise ValueError(f"{len(given)} pads for {len(places)} dimensions, two for each")
        if not all(isinstance(n, int) and abs(n) <= MOST for n in given):
            raise ValueError(f"pads by {given}")
        before, after = [0] * rank, [0] * rank
        for axis, first, last in zip(places, given, given[len(places) :], strict=False):
            before[axis], after[axis] = first, last
        if mode == "constant":
            while before and not (before[0] or after[0]):
                before, after = before[1:], after[1:]
            amounts = [n for pair in zip(before[::-1], after[::-1], strict=True) for n in pair]
            return F.pad(x, amounts, value=number) if amounts else x
        for axis in range(rank):
            if before[axis] or after[axis]:
                x = _repeated(x, axis, (before[axis], after[axis]), mode)
        return x  # type: ignore[no-any-return]

    return run


def _repeated(x: Tensor, axis: int, amounts: tuple[int, int], mode: Any) -> Tensor:
    """Padding along an axis with values of the tensor."""
    more = tuple(max(n, 0) for n in amounts)
    taken = np.pad(np.arange(int(x.shape[axis])), more, mode)
    first, last = (max(-n, 0) for n in amounts)
    kept = taken[first : len(taken) - last]
    return x.index_select(axis, torch.tensor(kept.tolist(), device=x.device))

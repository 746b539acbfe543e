"""ONNX Resize and Upsample: where values are copied, a move, else interpolation, or a matrix.

Each is linear, and works along one axis after the other. So it is known by a matrix for each axis.

References
----------
The operator Resize in the specification of ONNX; R. G. Keys, "Cubic Convolution Interpolation for
Digital Image Processing", IEEE Transactions on Acoustics, Speech, and Signal Processing, 1981.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from secateur.capture.onnx.context import Context, Row, Run
from secateur.capture.onnx.node import MOST, OnnxNode, refuse

Matrix = npt.NDArray[np.float64]
_COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
    "tf_crop_and_resize",
)  # fmt: skip


@dataclass(frozen=True)
class Way:
    """How values between others are made.

    Attributes
    ----------
    mode : nearest, linear or cubic
    coordinates : the name of ONNX for where the values of the output lie in the input
    nearest : how a place between two is rounded
    cubic : the coefficient of cubic interpolation
    inside : whether places outside of the input have no weight
    smooth : whether a smaller output is filtered
    """

    mode: str
    coordinates: str
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    inside: bool = False
    smooth: bool = False

    def places(self, size: int, out: int, scale: float) -> Matrix:
        """Where the values of the output lie in the input, along an axis.

        Parameters
        ----------
        size : of the input
        out : of the output
        scale : of the output, by the input
        """
        at = np.arange(out, dtype=np.float64)
        if self.coordinates == "asymmetric":
            return at / scale
        if self.coordinates == "align_corners":
            last = size * scale - 1
            return at * (size - 1) / last if last > 0 else at * 0
        if self.coordinates == "pytorch_half_pixel" and out == 1:
            return np.full(1, -0.5)
        half = (at + 0.5) / scale - 0.5
        if self.coordinates == "half_pixel_symmetric":
            return size / 2 * (1 - out / (scale * size)) + half
        return half

    def matrix(self, size: int, out: int, scale: float) -> Matrix:
        """The weights of the input's values in the output's, (out, size).

        Parameters
        ----------
        size : of the input
        out : of the output
        scale : of the output, by the input
        """
        found = np.zeros((out, size))
        places, rows = self.places(size, out, scale), np.arange(out)
        if self.mode == "nearest":
            found[rows, np.clip(_ROUNDED[self.nearest](places), 0, size - 1).astype(int)] = 1
            return found
        shrink = min(scale, 1.0) if self.smooth else 1.0
        reach = math.ceil((1 if self.mode == "linear" else 2) / shrink)
        weights, columns = [], []
        for step in range(-reach + 1, reach + 1):
            column = np.floor(places) + step
            weight = self._weight(np.abs(column - places) * shrink)
            columns.append(column)
            weights.append(np.where((column < 0) | (column >= size), 0, weight)
                           if self.inside else weight)  # fmt: skip
        whole = np.sum(weights, 0) if self.inside or self.smooth else np.ones(out)
        for column, weight in zip(columns, weights, strict=True):
            np.add.at(found, (rows, np.clip(column, 0, size - 1).astype(int)), weight / whole)
        return found

    def _weight(self, distance: Matrix) -> Matrix:
        """Of a value at a distance, in values of the input."""
        if self.mode == "linear":
            return np.maximum(1 - distance, 0)
        a, d = self.cubic, distance
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0))


_ROUNDED: dict[str, Callable[[Matrix], Matrix]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def resize(node: OnnxNode, context: Context) -> Run:
    """Resize of any axes, and Upsample."""
    old = node.op_type == "Upsample" or len(node.input) < 3
    rank = context.rank(node)
    axes = context.axes(node, len(node.input), rank) if node.has("axes") else None
    places = list(range(rank)) if axes is None else axes
    scales, sizes = _wanted(node, context, old)
    way = _way(node, old)
    policy = node.choice("keep_aspect_ratio_policy", "stretch", "not_larger", "not_smaller")

    def run(*inputs: Any) -> Tensor:
        x: Tensor = inputs[0]
        given = [x.shape[axis] for axis in places]
        outs = sizes(inputs) if sizes is not None else None
        by = scales(inputs) if scales is not None else None
        if len(outs or by or ()) != len(places):
            raise ValueError(f"{len(outs or by or ())} sizes for {len(places)} dimensions")
        if outs is not None and policy != "stretch":
            choose = min if policy == "not_larger" else max
            one = choose(out / size for out, size in zip(outs, given, strict=True))
            outs, by = [math.floor(one * size + 0.5) for size in given], [one] * len(given)
        made = {}
        for place, (axis, size) in enumerate(zip(places, given, strict=True)):
            if outs is None and by is not None and by[place] != 1:
                made[axis] = _checked(size, math.floor(int(size) * by[place]), by[place])
            elif outs is not None and not _kept(axis, outs[place], size, context.batch):
                scale = by[place] if by is not None else int(outs[place]) / int(size)
                made[axis] = _checked(size, int(outs[place]), scale)
        return _resized(x, made, way)

    return run


def _checked(size: Any, out: int, scale: Any) -> tuple[int, float]:
    """A size and a scale that do not take much memory."""
    if not 0 < out <= MOST or int(size) * out > MOST << 4 or not scale > 0:
        raise ValueError(f"resizes {size} to {out}")
    return out, float(scale)


def _kept(axis: int, out: Any, size: Any, batch: int) -> bool:
    """Whether an axis stays: the batch does, whatever the file fixes it to."""
    return (axis == 0 and isinstance(out, int) and out in (1, batch)) or bool(out == size)


def _wanted(
    node: OnnxNode, context: Context, old: bool
) -> tuple[Callable[..., Any] | None, Row | None]:
    """Scales and sizes as functions of the inputs."""
    index = 1 if old else 2
    sizes = None if old else context.row(node, 3)
    if len(node.input) <= index or not node.input[index]:
        if node.has("scales"):
            fixed = [float(n) for n in node.attributes["scales"].floats]
            return lambda inputs: fixed, None
        if sizes is None:
            raise refuse(node, "has neither scales nor sizes", "export the model again")
        return None, sizes
    if node.input[index] in context.sizes:
        place = context.dynamic(node).index(node.input[index])
        return lambda inputs: [float(n) for n in inputs[place].flat], None
    values = context.weight(node, index)
    if values.size == 0 and sizes is not None:
        return None, sizes
    found = [float(n) for n in values.flat]
    return lambda inputs: found, None


def _way(node: OnnxNode, old: bool) -> Way:
    mode = (
        node.choice("mode", "nearest", "linear", "cubic")
        if not (old and node.has("mode") and node.attributes["mode"].s == b"bilinear")
        else "linear"
    )
    if old:
        return Way(mode, "asymmetric", "floor")
    coordinates = node.choice("coordinate_transformation_mode", *_COORDINATES)
    if coordinates == "tf_crop_and_resize":
        raise refuse(node, "crops while it resizes", "use Slice, then Resize with half_pixel")
    return Way(
        mode, coordinates, node.choice("nearest_mode", *_ROUNDED),
        node.real("cubic_coeff_a", -0.75), bool(node.integer("exclude_outside", 0)),
        bool(node.integer("antialias", 0)),
    )  # fmt: skip


def _resized(x: Tensor, made: dict[int, tuple[int, float]], way: Way) -> Tensor:
    """The tensor in other sizes.

    Parameters
    ----------
    x : of any shape
    made : by axis, the size and the scale
    way : how values between others are made
    """
    if set(made) == {2, 3} and x.dim() == 4 and way.mode == "linear":
        smooth = _as_torch(x, made, way)
        if smooth is not None:
            return smooth
    for axis, (out, scale) in made.items():
        matrix = way.matrix(int(x.shape[axis]), out, scale)
        if way.mode == "nearest":
            taken = matrix.argmax(1).tolist()
            x = x.index_select(axis, torch.tensor(taken, device=x.device))
        else:
            weight = torch.tensor(matrix.tolist(), dtype=x.dtype, device=x.device)
            x = F.linear(x.movedim(axis, -1), weight).movedim(-1, axis)
    return x


def _as_torch(x: Tensor, made: dict[int, tuple[int, float]], way: Way) -> Tensor | None:
    """PyTorch's bilinear interpolation by whole factors, for which the array has convolutions."""
    half = way.coordinates in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")
    if way.inside or not half or any(scale != int(scale) for _, scale in made.values()):
        return None
    size = [made[axis][0] for axis in (2, 3)]
    return F.interpolate(x, size, mode="bilinear", align_corners=False)

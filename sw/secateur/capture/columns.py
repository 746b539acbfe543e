"""Values with a time axis, a column at a time: what convolutions, pooling and crops do along it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import Node

from secateur.fx.functions import elementwise
from secateur.fx.graph import CONV, argument, aten, conv_window, is_call, pool_window

RESHAPE = cast(Callable[..., Any], aten.reshape.default)
VIEWS = (
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.view.default,
    aten.flatten.using_ints,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.unflatten.int,
)


@dataclass(frozen=True)
class Column:
    """The newest column of a value with a time axis.

    Column i of the whole value is known with frame ``i + offset``.

    Attributes
    ----------
    node : of the column; its size along ``axis`` is 1
    axis : of time
    length : of the whole value
    offset : frames; negative in front of a convolution that is padded on the left
    """

    node: Node
    axis: int
    length: int
    offset: int

    @property
    def ends(self) -> int:
        """The frame that is needed last."""
        return self.length - 1 + self.offset


@dataclass(frozen=True)
class Reach:
    """What a convolution or pooling takes together along time, and its padding there."""

    span: int
    before: int
    after: int
    padding_at: int


def reach(node: Node, column: Column) -> Reach | None:
    """None if it has a stride over time."""
    if column.axis not in (2, 3):
        return None
    at = column.axis - 2
    if is_call(node, CONV):
        kernel = cast(Node, node.args[1]).meta["val"].shape[2:]
        window, padding_at = conv_window(node, (int(kernel[0]), int(kernel[1]))), 4
    else:
        size = [int(n) for n in sizes_of(cast(Node, node.args[0]))[2:]]
        window, padding_at = pool_window(node, (size[0], size[1])), 3
    span = (window.kernel[at] - 1) * window.dilation[at] + 1
    if window.stride[at] != 1:
        return None
    return Reach(span, window.padding[at], window.padding[at + 2], padding_at)


def is_cropped(node: Node, axis: int, count: int) -> bool:
    """Whether the last columns are cut off again before anything but single values are computed.

    Parameters
    ----------
    node : the whole value
    axis : of time
    count : of columns
    """
    users = list(node.users)
    length = int(node.meta["val"].shape[axis])
    for user in users:
        rank = user.meta["val"].dim() if isinstance(user.meta.get("val"), Tensor) else 0
        if is_call(user, aten.slice.Tensor) and rank:
            source = sizes_of(node)
            dim = int(argument(user, 1, 0)) % rank
            end = int(argument(user, 3, 1 << 60))
            end = end + int(source[dim]) if end < 0 else end
            if dim == axis and end <= length - count:
                continue
            single = dim != axis
        else:
            single = elementwise(user.target) or is_call(user, *VIEWS)
        if not single or not is_cropped(user, _axis_behind(node, user, axis), count):
            return False
    return bool(users)


def _axis_behind(node: Node, user: Node, axis: int) -> int:
    """The time axis behind a view: as far from the end."""
    return axis - len(sizes_of(node)) + len(sizes_of(user))


def counts(numbers: Tensor, axis: int) -> bool:
    """Whether numbers count along an axis, and stay along all others."""
    line = numbers.movedim(axis, -1)
    first = line.reshape(-1, line.shape[-1])[0]
    steps = torch.arange(len(first)) + first[0]
    return bool((line == steps).all())


def size_from_end(constant: Node, like: Node, axis: int) -> int:
    """Size of a constant where a value that it is combined with has its time axis.

    Parameters
    ----------
    constant : of as many dimensions as the value, or fewer
    like : the value
    axis : of time in it
    """
    shape, rank = constant.meta["val"].shape, like.meta["val"].dim()
    at = axis - rank + len(shape)
    return int(shape[at]) if at >= 0 else 1


def sizes_of(node: Node) -> tuple[int, ...]:
    """Shape, the batch included."""
    return tuple(node.meta["val"].shape)

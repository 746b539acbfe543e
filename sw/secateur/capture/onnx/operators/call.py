"""A PyTorch function of a node's inputs, some of which are constants of the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.capture.onnx.context import Context
from secateur.capture.onnx.node import OnnxNode
from secateur.capture.onnx.values import Array


class _Given:
    """In the place of an input that is not constant; a copy of a model has the same class."""


def tensor(values: Array) -> Tensor:
    """A copy, floats in float32."""
    if values.dtype.kind in "biu":
        return torch.from_numpy(values.astype(bool if values.dtype.kind == "b" else np.int64))
    with np.errstate(over="ignore"):  # infinite values are refused at the end
        return torch.from_numpy(np.array(values, dtype=np.float32))


def number(values: Array, rank: int) -> float | int | bool | None:
    """A constant as one number, if it is one and adds no dimension to a tensor of ``rank``."""
    if values.size != 1 or values.ndim > rank:
        return None
    with np.errstate(over="ignore"):
        value = values.astype(np.float32) if values.dtype.kind not in "biu" else values
    return value.item() if np.isfinite(value).all() else None


class Call(nn.Module):
    """A function of all inputs of a node; constants are numbers, or buffers.

    Parameters
    ----------
    function : takes the inputs in order
    node : of which the inputs are given
    context : knows the constants
    whole : constants of one value are tensors, too
    """

    def __init__(
        self,
        function: Callable[..., Any],
        node: OnnxNode,
        context: Context,
        *,
        whole: bool = False,
    ) -> None:
        super().__init__()
        self.function = function
        self.arguments: list[Any] = []
        ranks = [len(context.shapes.get(name, ())) for name in context.dynamic(node)]
        for index, name in enumerate(node.input):
            if not name:
                self.arguments.append(None)
            elif name not in context.known:
                self.arguments.append(_Given)
            else:
                value = context.known[name]
                one = None if whole else number(value, max(ranks, default=0))
                if one is None:
                    self.register_buffer(f"constant_{index}", tensor(value))
                self.arguments.append(f"constant_{index}" if one is None else one)

    def forward(self, *inputs: Any) -> Any:
        """The function's result; ``inputs`` are those that are not constant."""
        left = iter(inputs)
        return self.function(*(self._argument(part, left) for part in self.arguments))

    def _argument(self, part: Any, left: Any) -> Any:
        if isinstance(part, str):
            return getattr(self, part)
        value = next(left) if part is _Given else part
        if isinstance(value, np.ndarray):  # a size of a shape
            return value.item() if value.size == 1 else torch.tensor(value.tolist())
        return value

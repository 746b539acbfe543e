"""Layers before the places of their tensors are known."""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import Node

from secateur.fx.graph import CONV, Window, is_call
from secateur.ir import Ints, Mode, Region, Table
from secateur.lowering.store import Store, Value
from secateur.quantisation.match import Match, Operand

PLAIN = Window((1, 1), (1, 1), (0, 0, 0, 0), (1, 1))


@dataclass(eq=False)
class DraftSource:
    """An ir.Source before its tensor's place is known."""

    store: Store
    mode: Mode
    weight: Ints
    window: Window
    wshift: bool = False


@dataclass(eq=False)
class DraftLayer:
    """An ir.Layer before its tensors' places are known."""

    kind: str
    sources: list[DraftSource]
    output: Store
    bias: Ints
    shift: Ints
    low: int
    high: int
    nodes: list[Node]
    table: Table | None = None
    region: Region | None = None


def is_linear(operand: Operand) -> bool:
    """Whether the operand is the product of a linear node."""
    return operand.product is not None and not is_call(operand.product, CONV)


def output_shape(source: DraftSource) -> tuple[int, int, int]:
    """(channels, height, width) of the sum to which a source contributes."""
    window, store = source.window, source.store
    top, left, bottom, right = window.padding
    size = []
    for extent, k, s, d in (
        (store.height + top + bottom, window.kernel[0], window.stride[0], window.dilation[0]),
        (store.width + left + right, window.kernel[1], window.stride[1], window.dilation[1]),
    ):
        size.append((extent - d * (k - 1) - 1) // s + 1)
    return int(source.weight.shape[0]), size[0], size[1]


def result_shape(match: Match, operands: dict[Node, Value], output: Store) -> tuple[int, ...]:
    """Shape of a layer's result, without samples.

    Parameters
    ----------
    match : the layer
    operands : what it reads
    output : of the layer
    """
    last = match.operands[-1 if match.multiplies else 0]
    if last.product is None:
        return output.size if any(last.padding) else operands[last.value].shape
    return (output.channels,) if is_linear(last) else output.size

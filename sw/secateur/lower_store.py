"""Activation tensors while the graph is lowered: concatenation may still enclose them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch.fx import Node

from secateur.graph import argument, refuse
from secateur.ir import Part, Tensor

REQUANTISE = "requantise with secateur.quantize"


@dataclass(frozen=True)
class Scale:
    """Code range of a tensor: a real value is code * 2**exponent, low <= code <= high."""

    exponent: int
    signed: bool
    low: int
    high: int


@dataclass(eq=False)
class Store:
    """A tensor (channels, height, width); ``parent`` is the concatenation that holds it."""

    name: str
    channels: int
    height: int
    width: int
    scale: Scale
    parent: Store | None = None
    parts: list[Store] = field(default_factory=list)
    fixed: bool = False  # written by the host: nothing can lie beside it

    def root(self) -> Store:
        return self if self.parent is None else self.parent.root()

    def first(self) -> int:
        """First channel in the root."""
        if self.parent is None:
            return 0
        before = self.parent.parts[: self.parent.parts.index(self)]
        return self.parent.first() + sum(p.channels for p in before)

    def leaves(self) -> list[Store]:
        return [leaf for p in self.parts for leaf in p.leaves()] if self.parts else [self]


@dataclass(frozen=True, eq=False)
class Value:
    """What a graph node holds: a store, seen as (N, C, H, W) or, ``flat``, as (N, C * H * W)."""

    store: Store
    flat: bool


class Stores:
    """Makes ir.Tensor of stores, one for each root, once all concatenations are known."""

    def __init__(self) -> None:
        self._tensors: dict[Store, Tensor] = {}

    def tensor(self, store: Store) -> Tensor:
        root = store.root()
        if root not in self._tensors:
            self._tensors[root] = Tensor(
                root.name,
                root.channels,
                root.height,
                root.width,
                root.scale.exponent,
                root.scale.signed,
                [leaf.channels for leaf in root.leaves()],
            )
        return self._tensors[root]

    def part(self, store: Store) -> Part:
        """Where a store lies."""
        return Part(self.tensor(store), store.first(), store.channels)


def scale_of(node: Node) -> Scale:
    """Scale of a ``quantize_per_tensor`` or ``dequantize_per_tensor`` node.

    Raises SecateurError unless it is a power of two, symmetric and 8 bits.
    """
    scale, zero = node.args[1], node.args[2]
    low, high = argument(node, 3, 0), argument(node, 4, 0)
    if not isinstance(scale, float | int) or not isinstance(zero, int):
        raise refuse(node, "a scale that is not a constant", REQUANTISE)
    if zero != 0:
        raise refuse(node, f"zero point {zero} instead of 0", REQUANTISE)
    signed = low < 0
    if not (-128 <= low <= 0 < high <= 127 if signed else low == 0 < high <= 255):
        raise refuse(node, f"codes {low}..{high} do not fit a byte", REQUANTISE)
    return Scale(exponent_of(node, float(scale)), signed, int(low), int(high))


def exponent_of(node: Node, scale: float) -> int:
    """log2 of a scale; raises SecateurError if it is not an integer that float32 has."""
    mantissa, exponent = math.frexp(scale)
    if mantissa != 0.5 or not -125 <= exponent <= 128:
        raise refuse(node, f"scale {scale:g} is not a power of two", REQUANTISE)
    return exponent - 1


def concatenate(node: Node, values: list[Value], copied: Callable[[Store, Node], Store]) -> Value:
    """A store whose parts are those of ``values``; no data moves but that of parts which have their
    place elsewhere: these are ``copied``.

    Raises SecateurError if the parts cannot be placed beside each other.
    """
    stores = [v.store for v in values]
    head = stores[0]
    if any(v.flat and (v.store.height, v.store.width) != (1, 1) for v in values):
        raise refuse(node, "concatenates flattened maps", "concatenate the maps before flatten")
    if any((s.height, s.width) != (head.height, head.width) for s in stores):
        raise refuse(node, "concatenates maps of different sizes", "use maps of one size")
    if any(s.scale.exponent != head.scale.exponent for s in stores) or any(
        s.scale.signed != head.scale.signed for s in stores
    ):
        raise refuse(node, "concatenates tensors of different scales", REQUANTISE)
    # A concatenation that continues an earlier one (DenseNet) encloses it.
    outer = head.parent
    if outer is not None and outer.parent is None and stores[: len(outer.parts)] == outer.parts:
        if len(stores) == len(outer.parts):
            return Value(outer, values[0].flat)
        stores = [outer, *stores[len(outer.parts) :]]
    for index, store in enumerate(stores):
        if store.fixed or store.parent is not None or store in stores[:index]:
            stores[index] = copied(store, node)
    channels = sum(s.channels for s in stores)
    low, high = min(s.scale.low for s in stores), max(s.scale.high for s in stores)
    scale = Scale(head.scale.exponent, head.scale.signed, low, high)
    whole = Store(node.name, channels, head.height, head.width, scale, parts=stores)
    for store in stores:
        store.parent = whole
    return Value(whole, values[0].flat)

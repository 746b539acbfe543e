"""Activation tensors while the graph is lowered: concatenation may still enclose them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch.fx import Node

from secateur.fx.graph import refuse
from secateur.ir import Part, Tensor
from secateur.quantisation.scales import REQUANTISE, Scale


@dataclass(eq=False)
class Store:
    """A tensor (channels, height, width).

    Attributes
    ----------
    name : unique
    channels, height, width : sizes
    scale : of its codes
    parent : the concatenation that holds it
    parts : of a concatenation
    fixed : written by the host, so that it cannot be a part of another tensor
    """

    name: str
    channels: int
    height: int
    width: int
    scale: Scale
    parent: Store | None = None
    parts: list[Store] = field(default_factory=list)
    fixed: bool = False

    def root(self) -> Store:
        """The outermost concatenation that holds the store."""
        return self if self.parent is None else self.parent.root()

    def first(self) -> int:
        """First channel in the root."""
        if self.parent is None:
            return 0
        before = self.parent.parts[: self.parent.parts.index(self)]
        return self.parent.first() + sum(p.channels for p in before)

    def leaves(self) -> list[Store]:
        """The parts that layers write, in order."""
        return [leaf for p in self.parts for leaf in p.leaves()] if self.parts else [self]


@dataclass(frozen=True, eq=False)
class Value:
    """The value of a graph node.

    Attributes
    ----------
    store : the tensor
    flat : seen as (N, C * H * W), not as (N, C, H, W)
    """

    store: Store
    flat: bool


class Stores:
    """Makes ir.Tensor of stores, one for each root, once all concatenations are known."""

    def __init__(self) -> None:
        self._tensors: dict[Store, Tensor] = {}

    def tensor(self, store: Store) -> Tensor:
        """The tensor of the store's root."""
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


def concatenate(node: Node, values: list[Value], copied: Callable[[Store, Node], Store]) -> Value:
    """A store whose parts are ``values``, without moving data where that is possible.

    Parameters
    ----------
    node : the concatenation
    values : its parts, in order
    copied : makes a copy of a store for a reader: of parts that have their place elsewhere already

    Raises
    ------
    SecateurError : the parts have different sizes or scales, or are flattened maps
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

"""Activation tensors while the graph is lowered: concatenation may still enclose them."""

from __future__ import annotations

from dataclasses import dataclass, field

from secateur.fx.moves import Moved
from secateur.ir import Ints, Part, Tensor
from secateur.quantisation.scales import Scale

Size = tuple[int, int, int]


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
    fixed : written or read by the host, so that it cannot be a part of another tensor
    """

    name: str
    channels: int
    height: int
    width: int
    scale: Scale
    parent: Store | None = None
    parts: list[Store] = field(default_factory=list)
    fixed: bool = False

    @property
    def size(self) -> Size:
        return self.channels, self.height, self.width

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


@dataclass(frozen=True)
class Grid:
    """Values of one store, a concatenation perhaps, that a product can read where they are.

    A map's value (c, i, j) is at channel ``channels[c]``, row ``rows[c] + i * steps[0]``, column
    ``columns[c] + j * steps[1]``; of a map all ``rows`` are alike, and all ``columns``. A vector
    has a place of its own for every value, and no steps.
    """

    store: Store
    channels: Ints
    rows: Ints
    columns: Ints
    steps: tuple[int, int] = (1, 1)

    def takes(self, padding: list[int], shape: tuple[int, ...]) -> bool:
        """Whether a window of a map of this shape finds zeros where it is padded (top, left,
        bottom, right): only beyond the store.
        """
        top, left, bottom, right = padding
        first = (int(self.rows[0]), int(self.columns[0]))
        edges = []
        for at, step, count, size in zip(
            first, self.steps, shape[-2:], (self.store.height, self.store.width), strict=True
        ):
            edges.append((at == 0 and step == 1, at + step * (count - 1) == size - 1 and step == 1))
        sides = zip((top, bottom, left, right), (*edges[0], *edges[1]), strict=True)
        return all(amount == 0 or at_edge for amount, at_edge in sides)


@dataclass(frozen=True, eq=False)
class Value:
    """What a graph node holds, without samples: ``moved`` has its shape. ``store`` is the one whose
    codes these are, all and in their order; None behind other moves. ``grid`` is where a product
    reads them, if it need not be a store.
    """

    moved: Moved
    scale: Scale
    store: Store | None = None
    grid: Grid | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.moved.numbers.shape)

    @property
    def flat(self) -> bool:
        """Whether it is a vector."""
        return len(self.shape) == 1

    @property
    def whole(self) -> Store:
        """The store; only of a value that is one."""
        assert self.store is not None
        return self.store


class Stores:
    """Makes ir.Tensor of stores, one for each root, once all concatenations are known.

    Names of tensors are unique: images know them by name.
    """

    def __init__(self) -> None:
        self._tensors: dict[Store, Tensor] = {}
        self._names: set[str] = set()

    def tensor(self, store: Store) -> Tensor:
        """The tensor of the store's root."""
        root = store.root()
        if root not in self._tensors:
            name, count = root.name, 1
            while name in self._names:
                count += 1
                name = f"{root.name}#{count}"
            self._names.add(name)
            self._tensors[root] = Tensor(
                name,
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


def concatenate(name: str, stores: list[Store]) -> Store:
    """A store whose parts these are, side by side along the channels; no data moves.

    None of them has its place elsewhere; a concatenation may be a part (DenseNet).
    """
    head = stores[0]
    channels = sum(s.channels for s in stores)
    low, high = min(s.scale.low for s in stores), max(s.scale.high for s in stores)
    scale = Scale(head.scale.exponent, head.scale.signed, low, high)
    whole = Store(name, channels, head.height, head.width, scale, parts=stores)
    for store in stores:
        store.parent = whole
    return whole

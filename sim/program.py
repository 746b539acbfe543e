"""A decoded image: the steps of an inference, and the words of the map that they write."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from secateur.errors import SecateurError
from secateur.hw import spec
from secateur.hw.spec import Error, Geometry, Reg

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


class ImageError(SecateurError):
    """An image that the array refuses, or on which it stops; ``code`` as in ``status.error``."""

    def __init__(self, code: Error, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes
    ----------
    start : word of the image at which the body begins
    count : words of the body
    bias, shift : (N,), one per channel
    step : words of the image from one word of the body to the next
    table : 256 entries for its codes, or None
    """

    start: int
    count: int
    bias: Ints
    shift: Ints
    step: int = 1
    table: Bytes | None = None


@dataclass(frozen=True)
class Load:
    """A LOAD.

    Attributes
    ----------
    reg : registers
    words : input words; they go to map words 0, 1, ...
    """

    reg: tuple[int, ...]
    words: int


@dataclass(frozen=True)
class Layer:
    """A layer.

    Attributes
    ----------
    index : of the layer
    reg : registers at its START
    rows : all rows
    side : rows that are computed side by side, a row group: S with filter lanes, else 1
    cycles : from the word behind the last one of the layer before, or the first, to its own;
        to the end of the inference if it is the last
    """

    index: int
    reg: tuple[int, ...]
    rows: tuple[Row, ...]
    side: int
    cycles: int

    def flag(self, bit: int) -> bool:
        return bool(self.reg[Reg.FLAGS] >> bit & 1)

    def mode(self, bit: int) -> int:
        return int(self.reg[Reg.FLAGS] >> bit & 3)

    @property
    def result(self) -> bool:
        return self.flag(spec.FLAG_RESULT)

    @property
    def row_groups(self) -> int:
        return -(-len(self.rows) // self.side)

    @property
    def ends(self) -> bool:
        """Whether the inference ends with this layer."""
        return self.result and not self.reg[Reg.FLAGS2] >> spec.FLAG2_MORE & 1


Step = Load | Layer


@dataclass(frozen=True)
class Program:
    """A decoded image.

    The first inference and later ones differ if the program reads registers that it has not written
    before. They take as many input words and drain the same map words.

    Attributes
    ----------
    geometry : that the image is for
    bank_words : of the header
    limit : cycles of the header
    words : uint8 (words, N + 1)
    first : steps of the first inference after reset
    later : steps of all other inferences
    cycles : of an inference
    """

    geometry: Geometry
    bank_words: int
    limit: int
    words: Bytes = field(repr=False)
    first: tuple[Step, ...] = field(repr=False)
    later: tuple[Step, ...] = field(repr=False)
    cycles: int

    @property
    def input_words(self) -> int:
        """Input words of N bytes that an inference takes."""
        return sum(step.words for step in self.first if isinstance(step, Load))

    @property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(step for step in self.first if isinstance(step, Layer))


def walk(layer: Layer, group: int) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Map words (groups * lanes,) of a row group, modulo 2**16, and which pixels exist."""
    m, exists = _walk(layer)
    if layer.side > 1:
        rows = len(layer.rows) - group * layer.side
        exists = np.arange(len(m)) % layer.side < rows
    return m + group * layer.side & 0xFFFF, exists


def _walk(layer: Layer) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """As ``walk`` for row 0 of pixel lanes, not yet modulo 2**16."""
    reg = layer.reg
    gx, gy = np.arange(reg[Reg.GX]), np.arange(reg[Reg.GY])
    clast, rlast = reg[Reg.CLAST], reg[Reg.RLAST]
    if layer.flag(spec.FLAG_LINEAR):
        i = np.arange(reg[Reg.GX] * reg[Reg.LANES])
        pc, pr = i % reg[Reg.PC], i // reg[Reg.PC]
        return (
            reg[Reg.OUT_BASE] + pr * reg[Reg.D_PR] + pc * reg[Reg.D_PC],
            (pc < clast) & (pr < reg[Reg.PR]),
        )
    gy, gx, pr, pc = np.meshgrid(
        gy, gx, np.arange(reg[Reg.PR]), np.arange(reg[Reg.PC]), indexing="ij"
    )
    m = reg[Reg.OUT_BASE] + gy * reg[Reg.D_GY] + gx * reg[Reg.D_GX]
    m = m + pr * reg[Reg.D_PR] + pc * reg[Reg.D_PC]
    missing = (pc == reg[Reg.PC] - 1) & (gx >= clast) | (pr == reg[Reg.PR] - 1) & (gy >= rlast)
    return m.ravel(), ~missing.ravel()


def drained(layer: Layer) -> Ints:
    """Map words that the layer drains, in order."""
    walks = (walk(layer, group) for group in range(layer.row_groups))
    return np.concatenate([m[exists] for m, exists in walks])

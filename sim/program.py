"""A decoded image: the steps of an inference, and the words of the map that they write."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from secateur.errors import SecateurError
from secateur.hw import spec
from secateur.hw.ahead import clears_open, opening_cycles, takes_ahead
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
    due : cycle in which it has issued, from the end of the inference before on; of a further LOAD
        from the last word of the LOAD before
    """

    reg: tuple[int, ...]
    words: int
    due: int


@dataclass(frozen=True)
class Layer:
    """A layer.

    Attributes
    ----------
    index : of the layer
    reg : registers at its START
    rows : all rows
    side : rows that are computed side by side, a row group: S with filter lanes, else 1
    begin : cycle of its first header word
    opens : from this layer on, words of the next input are taken
    cycles : from the word behind the last one of the layer before, or the first, to its own;
        to the end of the inference if it is the last
    """

    index: int
    reg: tuple[int, ...]
    rows: tuple[Row, ...]
    side: int
    begin: int
    opens: bool
    cycles: int

    def flag(self, bit: int) -> bool:
        return bool(self.reg[Reg.FLAGS] >> bit & 1)

    def mode(self, bit: int) -> int:
        return int(self.reg[Reg.FLAGS] >> bit & 3)

    @property
    def result(self) -> bool:
        return self.flag(spec.FLAG_RESULT)

    @property
    def clears(self) -> int:
        """Words that it clears first."""
        return self.reg[Reg.OUT_S] if self.flag(spec.FLAG_CLEAR) else 0

    @property
    def steps(self) -> int:
        """Steps of the drain walk, of pixels that exist or not."""
        return self.row_groups * self.reg[Reg.GY] * self.reg[Reg.GX] * self.reg[Reg.LANES]

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
    interval : cycles from one inference to the next, if every input word is there in time
    """

    geometry: Geometry
    bank_words: int
    limit: int
    words: Bytes = field(repr=False)
    first: tuple[Step, ...] = field(repr=False)
    later: tuple[Step, ...] = field(repr=False)
    cycles: int
    interval: int

    @property
    def input_words(self) -> int:
        """Input words of N bytes that an inference takes."""
        return sum(step.words for step in self.first if isinstance(step, Load))

    @property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(step for step in self.first if isinstance(step, Layer))


def between(steps: tuple[Step, ...], cycles: int, p: int) -> int:
    """Cycles from one inference to the next whose words are there in time.

    Parameters
    ----------
    steps : of the next inference
    cycles : of an inference
    p : lanes
    """
    loads = [step for step in steps if isinstance(step, Load)]
    layers = [step for step in steps if isinstance(step, Layer)]
    first = next((k for k, layer in enumerate(layers) if layer.opens), len(layers))
    if first == len(layers) or not takes_ahead(p):
        waits = [load.due + spec.setup_cycles(p) + p + load.words - 1 for load in loads]
        return cycles + sum(waits)
    load, clears = loads[0], [layer.clears for layer in layers]
    opened = layers[first].begin + opening_cycles(p, clears[first])
    taken = clears_open(clears[first]) + sum(clears[first + 1 :])
    taken += sum(layer.steps for layer in layers[first:])
    free = cycles + load.due - opened - taken
    return cycles + load.due + spec.setup_cycles(p) - 1 + max(0, load.words - free)


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

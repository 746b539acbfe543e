"""The words of a program in the order in which they issue, without their values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from secateur.hw import spec
from secateur.hw.spec import Reg
from secateur.sim.program import Layer, Program


class Kind(Enum):
    """Kinds of words, by what they do to the issue stage."""

    CONFIG = 0
    ENTRIES = 1
    LOAD = 2
    START = 3
    FIRST = 4  # header word A of a row
    SECOND = 5  # header word B
    BODY = 6


@dataclass
class Word:
    """A word on its way from the ring to the issue stage.

    Attributes
    ----------
    kind : of the word
    at : its number in the image
    layer : index of its layer
    of : that layer, of words behind a START
    again : it has been read before
    last_pass : the pass is the last over its row
    pass_ends, group_ends, layer_ends : it is the last of a pass, a group of pixels, a layer
    reg : registers that the word completes, of LOAD and START
    read : cycle of its read
    done : it need not stay in the ring
    slot : where it was, counted from the first pass on
    """

    kind: Kind
    at: int
    layer: int = 0
    of: Layer | None = None
    again: bool = False
    last_pass: bool = False
    pass_ends: bool = False
    group_ends: bool = False
    layer_ends: bool = False
    reg: tuple[int, ...] = ()
    read: int = -1
    done: bool = False
    slot: int = 0

    @property
    def side(self) -> int:
        """Words of the image that are read at once."""
        return self.of.side if self.of is not None and self.kind in ROW else 1


ROW = (Kind.FIRST, Kind.SECOND, Kind.BODY)


def loop_mark(program: Program) -> int:
    """Number of the word at which later inferences begin."""
    begin = program.geometry.header_words
    for at in range(begin, len(program.words)):
        common = int(program.words[at, -1])
        if common & (spec.COMMON_LOAD | spec.COMMON_START):
            break
        if common == spec.INDEX_LOOP:
            begin = at + 1
    return begin


def inference(program: Program, first: bool) -> Iterator[Word]:
    """The words of an inference in the order of their issue."""
    at = program.geometry.header_words if first else loop_mark(program)
    for step in program.first if first else program.later:
        layer = step.index if isinstance(step, Layer) else 0
        while True:
            common = int(program.words[at, -1])
            kind = Kind.ENTRIES if common == spec.INDEX_TABLE else Kind.CONFIG
            kind = Kind.LOAD if common & spec.COMMON_LOAD else kind
            kind = Kind.START if common & spec.COMMON_START else kind
            of = step if isinstance(step, Layer) and kind == Kind.START else None
            yield Word(kind, at, layer, of, reg=step.reg)
            at += 1
            if kind in (Kind.LOAD, Kind.START):
                break
        if isinstance(step, Layer):
            for group in range(step.row_groups):
                yield from _row_group(step, group)
            row = step.rows[-1]
            at = step.rows[(step.row_groups - 1) * step.side].start + row.count * step.side


def _row_group(layer: Layer, group: int) -> Iterator[Word]:
    reg, side = layer.reg, layer.side
    row, ends = layer.rows[group * side], group == layer.row_groups - 1
    passes = reg[Reg.GX] * reg[Reg.GY] * reg[Reg.GZ]
    for kind, back in ((Kind.FIRST, 2), (Kind.SECOND, 1)):
        yield Word(kind, row.start - back * side, layer.index, layer)
    for number in range(passes):
        last = number == passes - 1
        group_ends = number % reg[Reg.GZ] == reg[Reg.GZ] - 1
        for place in range(row.count):
            end = place == row.count - 1
            yield Word(
                Kind.BODY,
                row.start + place * side,
                layer.index,
                layer,
                again=number > 0,
                last_pass=last,
                pass_ends=end,
                group_ends=end and group_ends,
                layer_ends=end and last and ends,
            )

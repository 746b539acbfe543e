"""Words of the weight memory that a network takes, and the density at which it would fit."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from secateur.compiler.body import Body
from secateur.errors import TargetTooSmall
from secateur.hw import spec
from secateur.hw.spec import Geometry
from secateur.ir import Layer


def check_weights(bodies: dict[Layer, Body], geometry: Geometry) -> None:
    """Refuse rows that do not fit the weight memory, before a plan of them is made.

    Raises
    ------
    TargetTooSmall : rows and configuration words are more than the memory has, at the least
    """
    words = geometry.header_words + 1 + len(bodies)
    for layer, body in bodies.items():
        one = body.uniform and layer.pixels.height == layer.pixels.width == 1
        words += sum(2 + len(row.common) for row in (body.rows[:1] if one else body.rows))
    # A layer may write all registers.
    configuration = len(bodies) * (spec.REGISTERS // (geometry.n // 2) - 1)
    if words > geometry.weight_words:
        raise crowded(bodies, geometry, words, configuration)


def crowded(
    bodies: dict[Layer, Body], geometry: Geometry, words: int, more: int = 0
) -> TargetTooSmall:
    """The refusal of an image that has more words than the weight memory.

    Parameters
    ----------
    bodies : rows of every layer
    geometry : of the array
    words : of the image
    more : words that it may have besides
    """
    rows = [row for layer, body in bodies.items() for row in _Rows.of(layer, body)]
    kept, total = (sum(getattr(row, what) for row in rows) for what in ("kept", "blocks"))
    fixed = words + more - sum(row.words for row in rows)
    fitting = [
        density
        for density in range(1, 100 * kept // max(total, 1))
        if fixed + sum(row.at(density / 100) for row in rows) <= geometry.weight_words
    ]
    least = "at least " if more else ""
    return TargetTooSmall(
        f"the image takes {least}{words} words, the target's weight memory has "
        f"{geometry.weight_words}",
        f"prune to a density of {fitting[-1] / 100:.2f} (it is {kept / total:.2f})"
        if fitting
        else "",
    )


@dataclass(frozen=True)
class _Rows:
    """Rows of a layer that can be pruned: words of each besides its blocks, blocks, kernel rows."""

    count: int
    words: int
    kept: int
    blocks: int
    others: int
    turns: int

    @staticmethod
    def of(layer: Layer, body: Body) -> list[_Rows]:
        """None if the layer's channels are all computed alike, lane by lane."""
        blocks = others = turns = 0
        for source in layer.sources:
            height, width = source.kernel
            if source.mode == "broadcast":
                blocks, turns = blocks + source.count * height * width, turns + height
            else:
                others += height * width
        count = len(body.rows)
        if not blocks:
            return []
        words = sum(len(row.common) for row in body.rows)
        kept = max(0, body.blocks - count * others)
        return [_Rows(count, words, kept, count * blocks, others, turns)]

    def at(self, density: float) -> int:
        """Words at a density: also those that only move the address over what is left out."""
        each = self.blocks // self.count
        moves = self.turns + each // spec.STEP_ADD_LIMIT
        row = ceil(density * each) + self.others + moves
        return self.count * max(row, spec.MIN_ROW_WORDS)

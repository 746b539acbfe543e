"""The order in which blocks go at a rising price: rows of the stream as a knapsack.

A row of k words costs, beyond a floor, a word's bytes and ``groups`` cycles per word. Below the
floor a block is free: a body shorter than MIN_ROW_WORDS is padded, and a group shorter than its
drain waits for it. So the cost of a row is convex in its blocks, and the saliency kept is concave
(the best blocks stay). At a price (Lagrange multiplier) the blocks go whose saliency is below price
times cost; that is the optimum for the cost that it reaches.

References
----------
Everett, "Generalized Lagrange multiplier method for solving problems of optimum allocation of
resources", Operations Research 11, 1963.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secateur.hw import spec

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CYCLES, BYTES, BLOCKS, TIME = range(4)


@dataclass(frozen=True)
class RowCost:
    """What the words of one row cost.

    Attributes
    ----------
    groups : groups of pixels, each takes a pass over the row
    lanes : pixels drained per group
    passes : passes of one group over the body
    fixed : words of the row that are not blocks to choose: address moves, residual adds
    first : whether it is its layer's first row, whose first group waits for no drain
    side : rows that take their passes at the same time: S with filter lanes, else 1
    """

    groups: int
    lanes: int
    passes: int
    fixed: int
    first: bool
    side: int = 1

    def word_cost(self, word: int) -> tuple[float, int]:
        """Cycles and words of the stream that the ``word``-th word (from 1) adds to the row.

        Rows side by side take as long as the longest, and are pruned to similar lengths: each
        counts for its share.
        """
        if word <= spec.MIN_ROW_WORDS:
            return 0, 0

        def beyond(floor: int) -> int:
            return min(self.passes, max(0, word * self.passes - floor))

        # Two header words hide behind the drain of the row before.
        first_group = self.passes if self.first else beyond(self.lanes - 2)
        cycles = first_group + (self.groups - 1) * beyond(self.lanes)
        return cycles / self.side, 1


def ranks(scores: Floats, row: Ints) -> Ints:
    """(blocks,) place of each block in its row by falling score, from 0; ties in given order."""
    order = np.lexsort((np.arange(len(scores)), -scores, row))
    begin = np.flatnonzero(np.r_[True, np.diff(row[order]) != 0])
    starts = np.repeat(begin, np.diff(np.r_[begin, len(order)]))
    rank = np.empty(len(scores), dtype=np.int64)
    rank[order] = np.arange(len(order)) - starts
    return rank


def block_costs(
    rank: Ints, row: Ints, rows: list[list[RowCost]], *, word_bytes: int, interval: int = 0
) -> Floats:
    """(blocks, 4): what each block saves, after the worse ones of its row.

    Cycles, bytes, blocks, and time: a word takes its cycles or as long as its bytes come, whichever
    is more.

    Parameters
    ----------
    rank : (blocks,) place of each block in its row, from `ranks`
    row : (blocks,) its row
    rows : costs of every row, of each strip if its layer is in strips
    word_bytes : of the weight stream
    interval : cycles per byte of the source; 0: all words are on chip
    """
    costs = np.ones((len(rank), 4))
    for index, strips in enumerate(rows):
        members = np.flatnonzero(row == index)
        for member in members:
            found = [cost.word_cost(int(rank[member]) + 1 + cost.fixed) for cost in strips]
            costs[member, CYCLES] = sum(cycles for cycles, _ in found)
            costs[member, BYTES] = sum(words for _, words in found) * word_bytes
    costs[:, TIME] = np.maximum(costs[:, CYCLES], costs[:, BYTES] * interval)
    return costs


def removal_order(scores: Floats, costs: Floats, rank: Ints) -> Ints:
    """Blocks in the order in which they go at a rising price: least score per cost first.

    Blocks of cost 0 never go, and are omitted.

    Parameters
    ----------
    scores : (blocks,) saliency
    costs : (blocks,) one number per block
    rank : (blocks,) place of each block in its row, from `ranks`
    """
    candidates = np.flatnonzero(costs > 0)
    ratio = scores[candidates] / costs[candidates]
    # Within a row the ratio falls with the rank; where it is equal, the later block goes first.
    return candidates[np.lexsort((candidates, -rank[candidates], ratio))]

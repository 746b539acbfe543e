"""The blocks of all layers as one flat list, with the rows of the stream that they lie in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from secateur.compiler.choose import LayerPlan
from secateur.compiler.schedule import Plan
from secateur.hw import spec
from secateur.pruning.budget.costing import CostModel
from secateur.pruning.budget.rows import RowCost, block_costs, ranks

Masks = dict[str, npt.NDArray[np.bool_]]


class Problem:
    """Blocks that may go, flat. The best block of every module always stays: it has no cost.

    Parameters
    ----------
    costs : of the network
    scores : saliency by module, (channel groups, positions)

    Attributes
    ----------
    all : masks of all blocks that are alive
    scores : (blocks,) saliency
    rank : (blocks,) place in the row by falling saliency
    row : (blocks,) row, counted over all layers
    """

    def __init__(self, costs: CostModel, scores: dict[str, npt.NDArray[np.float64]]) -> None:
        self.costs = costs
        self.all: Masks = {name: costs.alive[name].copy() for name in scores}
        self._scores = scores
        starts = np.cumsum([0, *(score.size for score in scores.values())])
        flat, values, keys, best = [], [], [], []
        for start, (name, score) in zip(starts, scores.items(), strict=False):
            alive = np.flatnonzero(costs.alive[name])
            top = alive[np.argmax(score.flat[alive])] if len(alive) else -1
            place = costs.sources[name][0]
            flat.append(start + alive)
            values.append(score.flat[alive])
            keys += [
                (place.layer, place.first + int(block) // score.shape[1] * costs.n)
                for block in alive
            ]
            best.append(alive == top)
        self._flat = np.concatenate(flat)
        self._starts = starts
        self.scores = np.concatenate(values)
        #: (layer, first of N channels) of each row with blocks in the list.
        self.keys = sorted(set(keys))
        numbers = {key: number for number, key in enumerate(self.keys)}
        self.row = np.array([numbers[key] for key in keys], dtype=np.int64)
        self.best = np.concatenate(best)
        self.rank = ranks(self.scores, self.row)

    def _joined(self, masks: Masks) -> npt.NDArray[np.bool_]:
        return np.concatenate([mask.ravel() for mask in masks.values()])

    def without(self, removed: npt.NDArray[np.int64]) -> Masks:
        """Masks with these blocks (indices) removed."""
        joined = self._joined(self.all)
        joined[self._flat[removed[~self.best[removed]]]] = False
        parts = np.split(joined, self._starts[1:-1])
        pairs = zip(self.all.items(), parts, strict=True)
        return {name: part.reshape(mask.shape) for (name, mask), part in pairs}

    def removed(self, masks: Masks) -> npt.NDArray[np.int64]:
        """Indices of the blocks that the masks lack."""
        return np.flatnonzero(~self._joined(masks)[self._flat])

    def value(self, masks: Masks) -> float:
        """Saliency kept."""
        return sum(float(self._scores[name][mask].sum()) for name, mask in masks.items())

    def block_costs(self, planned: Plan) -> npt.NDArray[np.float64]:
        """(blocks, 4): ``rows.block_costs`` with the lane mapping and address moves of a plan."""
        layers, plans = self.costs.network.layers, dict[str, list[LayerPlan]]()
        for each in planned.layers:
            name = each.layer.name if each.layer.strip is None else each.layer.strip.layer
            plans.setdefault(name, []).append(each)
        rows = [
            [self._row_cost(each, at, channel) for each in plans[layers[at].name]]
            for at, channel in self.keys
        ]
        source, width = self.costs.target.source, planned.geometry.word_bytes
        interval = 0 if source is None else source.interval
        costs = block_costs(self.rank, self.row, rows, word_bytes=width, interval=interval)
        costs[self.best] = 0.0
        return costs

    def _row_cost(self, layer_plan: LayerPlan, at: int, channel: int) -> RowCost:
        body, lane_map = layer_plan.body, layer_plan.lane_map
        # Channels may be permuted; then the row of the group's first channel stands for it.
        where = np.argwhere(body.lanes == channel)
        number = int(where[0, 0])
        row = body.rows[number]
        channels = body.lanes[number][body.lanes[number] >= 0]
        chosen = 0
        for name in self.all:
            place = self.costs.sources[name][0]
            of_module = range(place.first, place.first + self.costs.shapes[name][0])
            if place.layer == at and channel in of_module:
                weight = layer_plan.layer.sources[place.source].weight
                chosen += int(weight[channels].any(axis=0).sum())
        padding = 0
        if len(row.common) == spec.MIN_ROW_WORDS:
            empty = ~row.weights.any(axis=1) & (row.common == 0)
            padding = int(np.argmin(empty)) if not empty.all() else len(empty)
        return RowCost(
            groups=lane_map.groups,
            side=layer_plan.side,
            lanes=lane_map.lanes,
            passes=body.passes,
            fixed=len(row.common) - padding - chosen,
            first=number < layer_plan.side,
        )

"""The search for the masks that meet all budgets.

Saliency per cycle saved, over the rows of all layers (``rows``), with multipliers found by
bisection. Every step plans and encodes the masked network, so its cost includes drain-bound rows,
padding, address moves and a better lane mapping.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from secateur.errors import SecateurError
from secateur.progress import Progress
from secateur.pruning.budget import rows as knapsack
from secateur.pruning.budget.costing import Cost, CostModel, Kept
from secateur.pruning.budget.problem import Masks, Problem

#: How far below its budget a result may be before single blocks are put back, and how many.
SLACK, REFILLS = 0.005, 12
#: Layers that an error names.
NAMED = 4


@dataclass(frozen=True)
class Budgets:
    """Upper limits; None: unlimited.

    Attributes
    ----------
    cycles : per inference
    rom_bytes : of the image
    blocks : of the layers with saliency
    time : cycles per inference, those of waiting for the source of a ring included
    """

    cycles: int | None = None
    rom_bytes: int | None = None
    blocks: int | None = None
    time: int | None = None

    def limits(self) -> npt.NDArray[np.float64]:
        """(4,) limits in the order of ``rows.block_costs``, infinite where there is none."""
        limits = (self.cycles, self.rom_bytes, self.blocks, self.time)
        return np.array([np.inf if limit is None else float(limit) for limit in limits])

    def spent(self, cost: Cost, kept: Kept) -> npt.NDArray[np.float64]:
        """(4,) what an image takes of them; of an unlimited time 0, so that no waits are predicted.

        Parameters
        ----------
        cost : of the image
        kept : its blocks
        """
        blocks = sum(int(mask.sum()) for mask in kept.values())
        time = 0 if self.time is None else cost.time
        return np.array([cost.cycles, cost.rom_bytes, blocks, time], dtype=np.float64)


class Search:
    """The bisection; counts and remembers the networks that were planned.

    Parameters
    ----------
    costs : of the network
    scores : saliency by module, (channel groups, positions)
    budgets : limits
    progress : called after every network that was planned; the total is not known
    """

    def __init__(
        self,
        costs: CostModel,
        scores: dict[str, npt.NDArray[np.float64]],
        budgets: Budgets,
        progress: Progress,
    ) -> None:
        self.costs, self.budgets, self.progress = costs, budgets, progress
        self.problem = Problem(costs, scores)
        self.limits = budgets.limits()
        self.known: dict[bytes, Cost] = {}
        self.dense = self.cost(self.problem.all)

    def cost(self, kept: Kept) -> Cost:
        """Exact cost of the network with these blocks."""
        key = b"".join(np.packbits(mask).tobytes() for mask in kept.values())
        if key not in self.known:
            self.known[key] = self.costs.cost(kept)
            self.progress("plan", len(self.known), 0, "")
        return self.known[key]

    def spent(self, kept: Kept) -> npt.NDArray[np.float64]:
        """(4,) what they take of each budget, as in `Budgets.limits`."""
        return self.budgets.spent(self.cost(kept), kept)

    def fits(self, kept: Kept) -> bool:
        """Whether the network with these blocks meets all budgets."""
        return bool((self.spent(kept) <= self.limits).all())

    def solve(self) -> Masks:
        """The masks with the most saliency found that meet all budgets.

        Raises
        ------
        SecateurError : none were found
        """
        everything = self.problem.all
        if self.fits(everything):
            return everything
        over = np.flatnonzero(self.spent(everything) > self.limits)
        best: tuple[float, Masks] | None = None
        rows, tried = self.dense, 0
        while tried < 2 or (best is None and tried < 4):
            block_costs = self.problem.block_costs(rows.plan)
            for weights in _weightings(over):
                # Costs in units of what must be saved, so that all budgets weigh alike.
                excess = np.maximum(self.spent(everything) - self.limits, 1.0)
                price = sum(block_costs[:, b] * weights[b] / excess[b] for b in range(len(excess)))
                kept = self._bisect(np.asarray(price))
                rows = self.cost(kept)
                if self.fits(kept):
                    kept = self._refill(kept, block_costs)
                    value = self.problem.value(kept)
                    if best is None or value > best[0]:
                        best, rows = (value, kept), self.cost(kept)
            tried += 1
        if best is not None:
            return best[1]
        for index in over:
            kept, _ = self._least(int(index))
            if self.fits(kept):
                return kept
        raise self._unreachable()

    def _bisect(self, price: npt.NDArray[np.float64]) -> Masks:
        """The fewest removals at this price that fit; all of them if none do."""
        order = knapsack.removal_order(self.problem.scores, price, self.problem.rank)
        low, high = 0, len(order)
        while low < high:
            middle = (low + high) // 2
            if self.fits(self.problem.without(order[:middle])):
                high = middle
            else:
                low = middle + 1
        return self.problem.without(order[:high])

    def _refill(self, kept: Masks, block_costs: npt.NDArray[np.float64]) -> Masks:
        """Put back the best blocks that fit: the last one removed may have been large."""
        gone = self.problem.removed(kept)
        gone = gone[np.argsort(-self.problem.scores[gone], kind="stable")]
        barred = np.zeros(len(self.problem.scores), dtype=bool)
        for _ in range(REFILLS):
            room = self.limits - self.spent(kept)
            limited = np.isfinite(self.limits)
            if (room[limited] / self.limits[limited]).min() <= SLACK:
                break
            fitting = gone[(block_costs[gone] <= room).all(axis=1) & ~barred[gone]]
            if len(fitting) == 0:
                break
            again = self.problem.without(gone[gone != fitting[0]])
            if self.fits(again):
                kept = again
                gone = gone[gone != fitting[0]]
            else:
                barred[fitting[0]] = True
        return kept

    def _unreachable(self) -> SecateurError:
        parts = []
        names = ("cycles", "bytes of ROM", "blocks", "cycles with waits for the source")
        for index in np.flatnonzero(np.isfinite(self.limits)):
            kept, least = self._least(int(index))
            if least <= self.limits[index]:
                continue
            cost = self.cost(kept)
            blocks = {name: int(mask.sum()) for name, mask in kept.items()}
            shares = (cost.layer_cycles, cost.layer_bytes, blocks, cost.layer_bytes)[index]
            if index == knapsack.TIME and cost.waits < cost.cycles:
                shares = cost.layer_cycles
            layers = sorted(shares.items(), key=lambda item: -item[1])
            held = ", ".join(f"{name} ({took:,})" for name, took in layers[:NAMED])
            parts.append(
                f"{int(self.limits[index]):,} {names[index]} cannot be reached: {least:,.0f} is "
                f"the least; what is left is mostly in {held}"
            )
        reason = "; ".join(parts) or "these budgets cannot be met together"
        return SecateurError(f"budget: {reason}; use a larger budget or target, or a smaller model")

    def _least(self, index: int) -> tuple[Masks, float]:
        """The masks with the least of one figure, and that figure."""
        best = self.problem.all
        for _ in range(4):
            costs = self.problem.block_costs(self.cost(best).plan)[:, index]
            kept = self.problem.without(np.flatnonzero(costs > 0))
            if self.spent(kept)[index] >= self.spent(best)[index]:
                break
            best = kept
        return best, float(self.spent(best)[index])


def _weightings(over: npt.NDArray[np.int64]) -> list[npt.NDArray[np.float64]]:
    """(4,) weights of the budgets in the price: one budget alone, or the mixtures to try."""
    parts = {1: 1, 2: 4, 3: 3, 4: 2}[len(over)]
    weightings = []
    for shares in product(range(parts + 1), repeat=len(over)):
        if sum(shares) == parts:
            weights = np.zeros(4)
            weights[over] = np.array(shares) / parts
            weightings.append(weights)
    return weightings

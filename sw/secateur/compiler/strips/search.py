"""Which layers of a network are computed in strips, and in how many, if its maps do not fit.

Lanes divide the rows of a map, and the window of each holds whole rows. So strips of columns leave
the windows of the maps around them as small as they are. Strips of rows do that on one lane only.

The choice looks at maps and at dense layers, never at weights: it is the same for a network before
and after pruning, so that the pruner finds it once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from heapq import heappop, heappush
from itertools import count

import numpy as np

from secateur.compiler.body import Bodies, make_bodies
from secateur.compiler.choose import Chooser
from secateur.compiler.cost import Clock
from secateur.compiler.encode import Encoded, plan_and_encode
from secateur.compiler.schedule import (
    BanksTooSmall,
    Plan,
    Strips,
    least_room,
    lives,
    plan,
)
from secateur.compiler.strips.cut import Way, cut, needs, read, runs, size_of
from secateur.errors import TargetTooSmall
from secateur.hw.spec import Geometry, setup_cycles
from secateur.ir import Ints, Network, Tensor
from secateur.text import printable

#: Ways that fit, at the most, of which the fastest is taken.
_COMPARED = 6


class Search:
    """The ways to compute a network in strips on an array that is too small for it.

    Parameters
    ----------
    network : with the copies that the array needs
    geometry : of the array
    """

    def __init__(self, network: Network, geometry: Geometry) -> None:
        self._network, self._geometry = network, geometry
        self._bodies = make_bodies(network, geometry.n, dense=True)
        self._windows, self._taken = least_room(network, geometry, self._bodies)
        self._lives = lives(network)
        chooser = Chooser(network, geometry, self._bodies.layers, self._bodies.placements)
        self._least = {layer: found[0][0] for layer, found in chooser.maps.items()}
        self._pitch = {
            tensor: layout.pitch
            for tensor in network.tensors
            if (layout := chooser.layout(tensor, None)) is not None
        }
        self._closest: int | None = None

    def ways(self) -> Iterator[Way]:
        """Those that fit the banks, each run in as few strips as fit; the fastest first, of as
        many as are compared."""
        known: list[tuple[int, int, Way]] = []
        for number, (bound, way) in enumerate(self._candidates()):
            while known and (known[0][0] <= bound or len(known) >= _COMPARED):
                yield heappop(known)[2]
            found = self._fewest(way)
            if found is not None:
                heappush(known, (found[0], number, found[1]))
        while known:
            yield heappop(known)[2]

    @property
    def why(self) -> str:
        """If there is no way, how far the closest is from it."""
        steps = self._crowded
        if not steps[0]:
            return f"the input alone takes {self._taken[0]}"
        if self._closest is not None and self._closest <= self._geometry.bank_words:
            return "in strips there is room for the words, but no order of them was found that fits"
        if self._closest is not None:
            return f"in strips it takes {self._closest} or more"
        names = dict.fromkeys(self._network.layers[step - 1].name for step in steps[[0, -1]])
        return f"{printable(' to '.join(map(repr, names)), 200)} cannot be computed in strips"

    @property
    def _crowded(self) -> Ints:
        """Steps at which there is no room; step 0 is the input."""
        steps = np.flatnonzero(self._taken > self._geometry.bank_words)
        # There may be room for the words, but no order of them was found.
        return steps if len(steps) else np.array([self._taken.argmax()])

    def _candidates(self) -> list[tuple[float, Way]]:
        """Runs in the fewest strips that may fit, and cycles that the network takes at the least;
        the shortest run first of those that take as many."""
        steps, found = self._crowded, []
        if not steps[0]:
            return []
        for run in runs(self._network, range(int(steps[0]) - 1, int(steps[-1]))):
            for axis in (0, 1):
                ways = (Way(run, axis, n) for n in range(2, size_of(run.last, axis) + 1))
                way = next((way for way in ways if self._may_fit(way)), None)
                if way is not None:
                    found.append((self._cycles_at_least(way), way))
        found.sort(key=lambda each: (each[0], each[1].count, each[1].run.end - each[1].run.first))
        return found

    def _cycles_at_least(self, way: Way) -> float:
        """A part of a layer takes its share of the cycles, or more."""
        layers = self._network.layers[way.run.first : way.run.end]
        cycles: float = sum(self._least.values()) - sum(self._least[layer] for layer in layers)
        for span in way.spans:
            held = needs(self._network, way, span)
            for layer in layers:
                share = held[layer.output][1] - held[layer.output][0]
                cycles += self._least[layer] * share / size_of(layer.output, way.axis)
        return cycles + way.count * len(layers) * setup_cycles(self._geometry.p)

    def _fewest(self, way: Way) -> tuple[int, Way] | None:
        """The fewest strips that fit, from these on, and the cycles.

        More strips need less: twice as many are tried each time, then halves of what is between.
        """
        run, axis, low = way.run, way.axis, way.count
        most, high, best = size_of(run.last, axis), way.count, None
        while best is None and high <= most:
            best = self._tried(Way(run, axis, high))
            if best is None:
                low, high = high + 1, min(2 * high, max(high + 1, most))
        while best is not None and low < best[1].count:
            middle = (low + best[1].count) // 2
            found = self._tried(Way(run, axis, middle))
            low, best = (low, found) if found is not None else (middle + 1, best)
        return best

    def _tried(self, way: Way) -> tuple[int, Way] | None:
        """The cycles of a way, if it fits."""
        found = cut(self._network, way)
        bodies = found.bodies(self._bodies)
        _, taken = least_room(found.network, self._geometry, bodies)
        if not self._fits(int(taken.max())):
            return None
        try:
            return _cycles(plan(found.network, self._geometry, dense=True, bodies=bodies)), way
        except BanksTooSmall:
            return None

    def _fits(self, words: int) -> bool:
        self._closest = words if self._closest is None else min(words, self._closest)
        return words <= self._geometry.bank_words

    def _may_fit(self, way: Way) -> bool:
        """Whether there may be room: a strip needs its share of a window, or more.

        Lane 0 reads some of all strips, so a window that holds rows for strips of rows ends with
        the first of the last strip.
        """
        first, end = way.run.first, way.run.end
        layers, spans = self._network.layers[first:end], way.spans
        made = {layer.output for layer in layers} - {way.run.last}
        held, last = (needs(self._network, way, spans[at]) for at in (way.count // 2, -1))
        taken: Ints = np.zeros(end + 1, np.int64)
        for tensor, (begin, until) in self._lives.items():
            if tensor in made:
                share = held[tensor][1] - held[tensor][0]
                words = self._windows[tensor] * share // size_of(tensor, way.axis)
                taken[begin : until + 1] += words
            elif tensor in self._windows and begin <= end and until > first:
                reads = [(s, x) for x in layers for s in x.sources if s.tensor is tensor]
                rows = max((read(s, last[x.output], way.axis)[0] for s, x in reads), default=0)
                rows = 0 if way.axis else min(rows, tensor.height)
                words = max(self._windows[tensor], rows * self._pitch[tensor] // self._geometry.n)
                taken[first + 1 :] += words
        return self._fits(int(taken.max()))


def _cycles(planned: Plan) -> int:
    """Cycles without those of configuration words, which depend on more than maps."""
    clock, written = Clock(planned.geometry.p), set[Tensor]()
    for each in planned.layers:
        layout = planned.layouts.get(each.layer.output)
        clear = layout is not None and layout.clear and each.layer.output not in written
        written.add(each.layer.output)
        each.timed(
            clock,
            configuration=0,
            filling=0,
            clear=layout.window if layout is not None and clear else 0,
            last=each is planned.layers[-1],
        )
    return clock.now


class Planner:
    """Plans networks on an array, some layers in strips if the maps do not fit the banks otherwise.

    Parameters
    ----------
    network : with the copies that the array needs
    geometry : of the array
    """

    def __init__(self, network: Network, geometry: Geometry) -> None:
        self.network, self.geometry = network, geometry
        self._known = list[Way]()

    @cached_property
    def _search(self) -> Search:
        return Search(self.network, self.geometry)

    @cached_property
    def _more(self) -> Iterator[Way]:
        return self._search.ways()

    def _ways(self) -> Iterator[Way]:
        """The ways to compute the network in strips, each found once."""
        for at in count():
            if at == len(self._known):
                found = next(self._more, None)
                if found is None:
                    return
                self._known.append(found)
            yield self._known[at]

    def plan(
        self, network: Network, bodies: Bodies | None = None, *, check_depth: bool = True
    ) -> tuple[Plan, Encoded]:
        """A plan and its image.

        Parameters
        ----------
        network : that of the planner, perhaps with other weights
        bodies : rows of the network, if there are any yet
        check_depth : refuse more words than the weight memory has

        Raises
        ------
        SecateurError : as ``plan_and_encode``
        """
        bodies = bodies or make_bodies(network, self.geometry.n)
        try:
            return plan_and_encode(network, self.geometry, bodies, check_depth=check_depth)
        except BanksTooSmall as error:
            whole = error
        refusal: TargetTooSmall | None = None
        for way in self._ways():
            found = cut(network, way)
            own = found.bodies(bodies)
            try:
                planned, encoded = plan_and_encode(
                    found.network, self.geometry, own, check_depth=check_depth
                )
            except TargetTooSmall as error:
                refusal = refusal or error
                continue
            first, last = (network.layers[at].name for at in (way.run.first, way.run.end - 1))
            strips = Strips(way.axis, way.count, first, last, whole.words)
            return replace(planned, strips=strips), encoded
        if refusal is None:
            raise TargetTooSmall(f"{whole}; {self._search.why}")
        raise TargetTooSmall(f"{whole}; in strips they do, but {refusal}", refusal.pruning)

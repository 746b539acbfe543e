"""Which lanes compute what: the lane mapping of every layer that takes the fewest cycles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from secateur.compiler.body import Body, Row
from secateur.compiler.cost import Clock, Parts, rows_cycles
from secateur.compiler.lanes import LaneMap, Split, lane_maps
from secateur.compiler.layout import MapLayout, make_layout, padding, row_pixels, unite
from secateur.compiler.place import Placement
from secateur.hw.spec import Geometry, filter_row_words, landing_cycles
from secateur.ir import Layer, Network, Source, Tensor

#: Words of a row that is read once, of which a ring may have to hold all: more than the fetcher
#: reads before it knows the row's length.
RING_KNOWN = 24


@dataclass(frozen=True)
class LayerPlan:
    """A layer, its row bodies and its lane mapping.

    Attributes
    ----------
    layer, body, lane_map : all three
    other : if the lanes may be both filters and pixels here, the fastest mapping of the other kind
    """

    layer: Layer
    body: Body
    lane_map: LaneMap
    other: LaneMap | None = None

    @property
    def filters(self) -> bool:
        """Whether the lanes are filters."""
        return self.lane_map.kind == "filters"

    @property
    def side(self) -> int:
        """Rows side by side in the stream, a row group."""
        return self.lane_map.lanes if self.filters else 1

    @property
    def rows(self) -> list[Row]:
        """The rows that are in the stream: one if the lanes divide up the channels."""
        if self.filters:
            return self.body.flat
        return self.body.rows[:1] if self.lane_map.kind == "blocks" else self.body.rows

    @property
    def counts(self) -> list[int]:
        """Words of each row group's bodies: as many as the longest has, and a least number."""
        counts, side = [len(row.common) for row in self.rows], self.side
        if not self.filters:
            return counts
        least = -(-filter_row_words(side) // (self.lane_map.groups * self.body.passes))
        return [max(least, *counts[at : at + side]) for at in range(0, len(counts), side)]

    def timed(self, clock: Clock, **beside: Any) -> Parts:
        """The cycles of the layer, which pass on a clock.

        Parameters
        ----------
        clock : of the inference
        **beside : what ``Clock.layer`` takes and the layer does not know
        """
        return clock.layer(
            counts=self.counts,
            groups=self.lane_map.groups,
            passes=self.body.passes,
            lanes=self.lane_map.lanes,
            filters=self.filters,
            **beside,
        )

    def ring_words(self, s: int) -> int:
        """Words that a ring of S banks must hold at once for this layer, at the most.

        A row that is read once frees its words as soon as the fetcher knows that.
        """
        once = self.lane_map.groups * self.body.passes == 1
        counts = [min(count, RING_KNOWN) if once else count for count in self.counts]
        return (2 + max(counts)) * self.side + s - 1

    @property
    def cycles(self) -> int:
        """Cycles of the rows, headers included."""
        passes = self.body.passes
        return rows_cycles(self.counts, self.lane_map.groups, passes, self.lane_map.lanes)


Consumers = dict[Tensor, list[tuple[Layer, Source]]]


def consumers(network: Network) -> Consumers:
    """The layers that read each tensor, in order, and the sources by which they do."""
    readers: Consumers = {tensor: [] for tensor in network.tensors}
    for layer in network.layers:
        for source in layer.sources:
            readers[source.tensor].append((layer, source))
    return readers


def in_place(network: Network) -> dict[Tensor, Tensor]:
    """Outputs of residual layers that may take the place of the tensor that they add.

    Word by word the layer reads the old tensor just before it writes the new one, if it reads it
    pixel by pixel, its channels in their order, writes in the same order, and no later layer reads
    it.

    Returns
    -------
    pairs : the old tensor by output
    """
    readers, pairs = consumers(network), {}
    states = {state.before.tensor for state in network.states}
    for layer in network.layers:
        output = layer.output
        if not (layer.whole and layer.straight) or output in network.results or output in states:
            continue
        for source in layer.sources:
            old = source.tensor
            same = (old.channels, old.height, old.width) == (
                output.channels,
                output.height,
                output.width,
            )
            pixelwise = source.mode == "lanewise" and source.kernel == (1, 1)
            plain = source.stride == (1, 1) and source.padding == (0, 0, 0, 0)
            last = readers[old][-1][0] is layer
            once = sum(reader is layer for reader, _ in readers[old]) == 1
            kept = old in network.given or old in states
            if same and pixelwise and plain and last and once and not kept:
                pairs[output] = old
                break
    return pairs


def components(network: Network) -> list[list[Layer]]:
    """Layers that must agree on lanes: those that read a common tensor, transitively."""
    components: list[tuple[set[Tensor], list[Layer]]] = []
    for layer in network.layers:
        tensors, layers = {source.tensor for source in layer.sources}, [layer]
        for component in [c for c in components if c[0] & tensors]:
            components.remove(component)
            tensors |= component[0]
            layers = component[1] + layers
        components.append((tensors, layers))
    return [layers for _, layers in components]


class Chooser:
    """Choice of a lane mapping for each layer: fewest cycles, with a price on bank memory.

    Parameters
    ----------
    network : the network
    geometry : of the array
    bodies : rows of each layer
    placements : of each tensor
    """

    def __init__(
        self,
        network: Network,
        geometry: Geometry,
        bodies: dict[Layer, Body],
        placements: dict[Tensor, Placement],
    ) -> None:
        self.geometry, self.bodies, self.placements = geometry, bodies, placements
        self.readers = consumers(network)
        self.pads = {tensor: padding(tensor, read) for tensor, read in self.readers.items()}
        for later, earlier in in_place(network).items():
            united = unite(self.pads[later], self.pads[earlier])
            if united is not None:
                self.pads[later] = self.pads[earlier] = united
        self.maps = {layer: self._maps(layer) for layer in network.layers}

    def _maps(self, layer: Layer) -> list[tuple[int, LaneMap]]:
        body, n = self.bodies[layer], self.geometry.n
        rasters = {row_pixels(s.tensor, self.pads[s.tensor]) for s in layer.sources}
        aligned = all(self.placements[s.tensor].pixel_bytes % n == 0 for s in layer.sources)
        unit = all(source.stride == (1, 1) for source in layer.sources)
        one = layer.pixels.height == layer.pixels.width == 1
        maps = lane_maps(
            layer,
            p=self.geometry.p,
            n=n,
            s=self.geometry.s,
            uniform_blocks=len(body.rows) if one and body.uniform else 0,
            raster=rasters.pop() if aligned and unit and len(rasters) == 1 else None,
        )
        plans = [LayerPlan(layer, body, lane_map) for lane_map in maps]
        ring, s = self.geometry.ring, self.geometry.s
        if ring:
            plans = [each for each in plans if each.ring_words(s) <= ring or not each.filters]
        later = landing_cycles(self.geometry.p, filters=True) - landing_cycles(self.geometry.p)
        costed = [(each.cycles + later * each.filters, each.lane_map) for each in plans]
        return sorted(costed, key=lambda item: item[0])

    def plan(self, layer: Layer, lane_map: LaneMap) -> LayerPlan:
        """The layer with a lane mapping, and with the fastest of the other kind."""
        kind = lane_map.kind == "filters"
        others = (other for _, other in self.maps[layer] if (other.kind == "filters") != kind)
        return LayerPlan(layer, self.bodies[layer], lane_map, next(others, None))

    def layout(self, tensor: Tensor, split: Split | None) -> MapLayout | None:
        """The tensor's map under a split, without its window."""
        return make_layout(
            tensor, self.placements[tensor], self.pads[tensor], split, self.geometry.n
        )

    def window(self, layout: MapLayout, chosen: dict[Layer, LaneMap]) -> int:
        """Words of bank memory for a tensor."""
        reads = self.readers[layout.tensor]
        return max((layout.reach(source, chosen[layer]) for layer, source in reads), default=0)

    def _agree(
        self, layer: Layer, lane_map: LaneMap, splits: dict[Tensor, Split]
    ) -> dict[Tensor, Split] | None:
        """The splits with this layer's demands added, None if they contradict."""
        merged = dict(splits)
        for source in layer.sources:
            pixel = self.placements[source.tensor].pixel_bytes
            split = lane_map.split(source, pixel, self.geometry.n)
            if split is None:
                continue
            if merged.setdefault(source.tensor, split) != split:
                return None
            if self.layout(source.tensor, split) is None:
                return None
        return merged

    def _complete(
        self, layers: list[Layer], first: LaneMap
    ) -> tuple[dict[Layer, LaneMap], dict[Tensor, Split]] | None:
        """Lane mappings of all layers, given that of the first: each the fastest that agrees.

        Returns
        -------
        chosen, splits : None if the demands of ``first`` contradict each other
        """
        splits = self._agree(layers[0], first, {})
        if splits is None:
            return None
        chosen = {layers[0]: first}
        for layer in layers[1:]:
            for _, lane_map in self.maps[layer]:
                merged = self._agree(layer, lane_map, splits)
                if merged is not None:
                    chosen[layer], splits = lane_map, merged
                    break
        return chosen, splits

    def choose(
        self, layers: list[Layer], price: float
    ) -> tuple[dict[Layer, LaneMap], dict[Tensor, Split]]:
        """The best lane mappings of a component, at ``price`` cycles per word of bank memory.

        The layers of a component read common tensors. A tensor has one split over the lanes, so a
        layer's mapping restricts those of the others, and all combinations are too many to try.
        Only the mappings of the slowest layer, the leader, are all tried; each other layer then
        takes its fastest mapping that agrees, the slower layers first. Example: a convolution of
        50,000 cycles and a sum of 600 read one tensor. A mapping that is a tenth slower costs the
        convolution 5,000 cycles and the sum 60, so the convolution goes first.
        """
        leaders = sorted(layers, key=lambda layer: -self.maps[layer][0][0])
        cycles = {(layer, m): cost for layer in layers for cost, m in self.maps[layer]}
        best: tuple[float, dict[Layer, LaneMap], dict[Tensor, Split]] | None = None
        tensors = {source.tensor for layer in layers for source in layer.sources}
        for least, first in self.maps[leaders[0]]:
            # Mappings are sorted: from here on the leader alone takes longer than the best of all.
            if best is not None and least >= best[0]:
                break
            completed = self._complete(leaders, first)
            if completed is None:
                continue
            chosen, splits = completed
            cost = float(sum(cycles[layer, lane_map] for layer, lane_map in chosen.items()))
            for tensor in tensors:
                layout = self.layout(tensor, splits.get(tensor))
                assert layout is not None
                cost += price * self.window(layout, chosen)
            if best is None or cost < best[0]:
                best = cost, chosen, splits
        assert best is not None  # a single lane makes no demands, so that mapping always agrees
        return best[1], best[2]

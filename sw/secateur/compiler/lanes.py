"""How the pixels of a layer are mapped to the pixel lanes, and what its inputs need for that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from secateur.ir import Layer, Source

MAX_LANES = 16


@dataclass(frozen=True)
class Split:
    """Offsets of the lanes' windows on a tensor's map.

    Lane p has ``p // pc`` times ``rows`` plus ``p % pc`` times ``column``.

    Attributes
    ----------
    pc : lanes side by side
    rows : map rows
    column : bytes
    """

    pc: int
    rows: int
    column: int


@dataclass(frozen=True)
class LaneMap:
    """Lane mapping of a layer's output pixels.

    Attributes
    ----------
    kind : "tile": lane (i, j) of pr x pc computes gy rows from ``i * gy`` and gx columns from
        ``j * gx``; strips are tiles with pc = 1. "linear": lane j of pc computes every pc-th
        position of the map's raster from j, its padding included. "blocks": of a single pixel, lane
        j computes gx blocks of N channels from ``j * gx`` (uniform layers only). "filters": lane j
        of pc computes row j of every pc rows, of one pixel after the other
    own_steps : filter lanes find their words of lane-wise sources by steps of their own, not by the
        offsets of their windows
    pr, pc : rows and columns of lanes
    gx, gy : groups along x and y
    columns, lines : extent of the pixels or blocks
    """

    kind: Literal["tile", "linear", "blocks", "filters"]
    pr: int
    pc: int
    gx: int
    gy: int
    columns: int
    lines: int
    own_steps: bool = False

    @property
    def lanes(self) -> int:
        """Lanes that are drained."""
        return self.pr * self.pc

    @property
    def groups(self) -> int:
        """Groups of a row."""
        return self.gx * self.gy

    def split(self, source: Source, pixel_bytes: int, n: int) -> Split | None:
        """The split of a tensor's windows that the lane mapping needs.

        Parameters
        ----------
        source : reads the tensor
        pixel_bytes : of the tensor
        n : bytes of a bank word

        Returns
        -------
        split : None if any will do
        """
        if self.lanes == 1:
            return None
        if self.kind == "filters":
            alike = source.mode == "broadcast" or self.own_steps
            return Split(MAX_LANES, 0, 0 if alike else n)
        if self.kind == "linear":
            return Split(MAX_LANES, 0, pixel_bytes)
        if self.kind == "blocks":
            return Split(MAX_LANES, 0, self.gx * n)
        rows = self.gy * source.stride[0] if self.pr > 1 else 0
        column = self.gx * source.stride[1] * pixel_bytes if self.pc > 1 else 0
        return Split(self.pc if self.pr > 1 else MAX_LANES, rows, column)


def _shares(extent: int, lanes: int, steps: tuple[int, ...]) -> set[int]:
    """Pixels for one lane if ``extent`` pixels go to up to ``lanes`` lanes, and roundings up."""
    least = {-(-extent // used) for used in range(1, lanes + 1)}
    rounded = {-(-share // step) * step for share in least for step in steps}
    return {share for share in least | rounded if share <= extent}


def _tiles(height: int, width: int, p: int, n: int) -> Iterator[LaneMap]:
    for gx in _shares(width, p, (2, 4, n)):
        pc = -(-width // gx)
        for gy in _shares(height, p // pc, (2, 3, 4)):
            yield LaneMap("tile", -(-height // gy), pc, gx, gy, width, height)


def lane_maps(
    layer: Layer, *, p: int, n: int, s: int, uniform_blocks: int, raster: int | None
) -> list[LaneMap]:
    """All lane mappings that are worth trying, in a fixed order.

    Parameters
    ----------
    layer : the layer
    p, n : lanes of the array
    s : lanes that may be filters
    uniform_blocks : blocks of N channels of a uniform layer with one output pixel, else 0
    raster : pixels from one map row to the next of all sources alike, if the strides are 1
    """
    height, width = layer.pixels.height, layer.pixels.width
    maps = sorted(set(_tiles(height, width, p, n)), key=lambda m: (m.groups, m.pc, m.gx, m.gy))
    if raster is not None and raster >= width and p > 1:
        positions = (height - 1) * raster + width
        maps.append(LaneMap("linear", 1, p, -(-positions // p), 1, width, height))
    if uniform_blocks:
        for gx in sorted(_shares(uniform_blocks, p, ())):
            pc = -(-uniform_blocks // gx)
            maps.append(LaneMap("blocks", 1, pc, gx, 1, uniform_blocks, 1))
    if s > 1 and {source.mode for source in layer.sources} <= {"broadcast", "lanewise"}:
        filters = LaneMap("filters", 1, s, width, height, width, height)
        maps.append(filters)
        lanewise = [source.kernel for source in layer.sources if source.mode == "lanewise"]
        if lanewise and set(lanewise) == {(1, 1)}:
            maps.append(replace(filters, own_steps=True))
    return maps

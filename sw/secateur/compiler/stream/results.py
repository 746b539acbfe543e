"""The order in which the pixels of results leave."""

from __future__ import annotations

import numpy as np

from secateur.compiler.choose import LayerPlan
from secateur.compiler.schedule import Plan
from secateur.ir import Ints


def result_walk(planned: Plan, layer_plan: LayerPlan) -> Ints:
    """(beats,) map word of every pixel of a layer with results."""
    layout = planned.results[layer_plan.layer.output]
    lane_map, n = layer_plan.lane_map, layout.n
    if lane_map.kind == "blocks":
        blocks = _tile_order(lane_map.gx, 1, lane_map.pc, 1, lane_map.columns, 1)[:, 1]
        return blocks + layout.origin // n
    if lane_map.kind == "linear":
        y, x = np.divmod(np.arange(lane_map.lines * lane_map.columns), lane_map.columns)
    else:
        lanes = (1, 1) if layer_plan.filters else (lane_map.pc, lane_map.pr)
        shape = (lane_map.gx, lane_map.gy, *lanes)
        y, x = _tile_order(*shape, lane_map.columns, lane_map.lines).T
    region = layer_plan.layer.pixels
    y, x = (
        first + y * down + x * right
        for first, down, right in zip(
            (region.top, region.left), region.down, region.right, strict=True
        )
    )
    pixels = (layout.origin + y * layout.pitch + x * layout.placement.pixel_bytes) // n
    rows, side = len(layer_plan.rows), layer_plan.side
    groups = [np.arange(at, min(at + side, rows)) for at in range(0, rows, side)]
    return np.concatenate([np.ravel(pixels[:, None] + group) for group in groups])


def _tile_order(gx: int, gy: int, pc: int, pr: int, columns: int, lines: int) -> Ints:
    """(pixels, 2): row and column of the pixels of tiles in drain order."""
    group_y, group_x, lane_y, lane_x = np.indices((gy, gx, pr, pc)).reshape(4, -1)
    y, x = lane_y * gy + group_y, lane_x * gx + group_x
    return np.stack([y, x], axis=1)[(y < lines) & (x < columns)]

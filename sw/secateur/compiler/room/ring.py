"""What a ring has to hold at once: the rows that are read more than once."""

from __future__ import annotations

from secateur.compiler.choose import LayerPlan
from secateur.compiler.schedule import Plan
from secateur.errors import TargetTooSmall
from secateur.hw.spec import Geometry


def check_ring(planned: Plan, geometry: Geometry) -> None:
    """Refuse rows that do not fit the ring.

    Parameters
    ----------
    planned : the plan, which may use fewer filter lanes than the array has
    geometry : of the array

    Raises
    ------
    TargetTooSmall : a row is longer than the ring
    """
    if not geometry.ring:
        return
    longest = max(planned.layers, key=lambda each: each.ring_words(geometry.s))
    words = longest.ring_words(geometry.s)
    if words > geometry.ring:
        what = "a row group" if longest.filters else "a row"
        raise TargetTooSmall(
            f"layer {longest.layer.name!r}: {what} that is read {_passes(longest)} times takes "
            f"{words} words of the ring, which has {geometry.ring}",
            f"prune the layer to {geometry.ring / words:.2f} of its words",
        )


def _passes(layer_plan: LayerPlan) -> int:
    return layer_plan.lane_map.groups * layer_plan.body.passes

"""When the next input may come while an inference runs: its window must be free for it."""

from __future__ import annotations

from dataclasses import replace

from secateur.compiler.encode import Encoded, encode
from secateur.compiler.schedule import Plan, freed, windows
from secateur.hw.ahead import takes_ahead
from secateur.hw.spec import Geometry


def take_ahead(planned: Plan, encoded: Encoded, geometry: Geometry) -> tuple[Plan, Encoded]:
    """The plan and its image that take words of the next input, if they can, as early as they can.

    An inference is as long as before, to the cycle: who counts its cycles need not know of it.

    Parameters
    ----------
    planned, encoded : a plan and its image
    geometry : of the array; the plan may use fewer filter lanes
    """
    if len(planned.network.given) > 1 or not takes_ahead(geometry.p):
        return planned, encoded
    (given,) = planned.network.given
    best = _opened(planned, encoded, geometry) or (planned, encoded)
    # The later it opens, the more room there is: the first step that does is found by halving.
    low, high = 1, len(planned.layers) if best[0].opens is None else best[0].opens
    while low < high:
        step = (low + high) // 2
        candidate = freed(planned, given, step)
        found = None if candidate is None else _opened(candidate, encoded, geometry)
        if found is None:
            low = step + 1
        else:
            high = step
            best = found if found[1].interval <= best[1].interval else best
    return best


def _opened(candidate: Plan, encoded: Encoded, geometry: Geometry) -> tuple[Plan, Encoded] | None:
    """The candidate that opens as early as it can; None: not at all, or in other cycles."""
    opens = opens_at(candidate)
    if opens is None:
        return None
    opened = replace(candidate, opens=opens)
    found = encode(opened, check_depth=False)
    # Waits for words of a ring are predicted only if the input has come by its LOAD.
    if found.cycles != encoded.cycles or (geometry.ring and found.late_words):
        return None
    return opened, found


def opens_at(planned: Plan) -> int | None:
    """The first layer from which on words of the next input may come, or None.

    It is the first behind all that read the input's window, or write to a word of it.
    """
    (given,) = planned.network.given
    window = planned.layouts[given]
    end = window.base + window.window
    last = max(
        request.end
        for request, base in windows(planned)
        if base < end and window.base < base + request.words
    )
    return last if last < len(planned.layers) else None


def interval(planned: Plan, encoded: Encoded) -> dict[str, int | str]:
    """How many cycles after one another inferences end whose inputs are there in time.

    ``cycles``: these; ``alone``: if no word of an input came before the inference before has ended;
    ``opens``: the layer from which on words do; or ``why`` they do not.
    """
    found = {"cycles": encoded.interval, "alone": encoded.alone}
    if planned.opens is not None:
        return found | {"opens": planned.layers[planned.opens].layer.name}
    return found | {"why": _why_not(planned)}


def _why_not(planned: Plan) -> str:
    if len(planned.network.given) > 1:
        return "the network has several inputs"
    if not takes_ahead(planned.geometry.p):
        return "the array has fewer than three lanes"
    return "its words of the banks are in use until the end"

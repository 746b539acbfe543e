"""The plan that is encoded and costed: lane mappings of all layers, windows of all tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from secateur.compiler.allocate import Bases, Request, alive, allocate, dirtied
from secateur.compiler.body import Bodies, make_bodies
from secateur.compiler.choose import Chooser, LayerPlan, components, in_place
from secateur.compiler.lanes import LaneMap, Split
from secateur.compiler.layout import MapLayout
from secateur.errors import TargetTooSmall
from secateur.hw.spec import Geometry, clear_cycles
from secateur.ir import Ints, Layer, Network, Tensor
from secateur.text import printable

#: Cycles that a word of bank memory may cost; the next is tried if the tensors do not fit.
PRICES = (0.0, 0.1, 1.0, 10.0, 1e3, 1e6)


@dataclass(frozen=True)
class Plan:
    """A network on a geometry.

    Attributes
    ----------
    network, geometry : both
    layers : in order
    layouts : of every tensor in the banks
    results : layouts of the outputs, which go to the result stream
    opens : number of the layer from which on words of the next input come, or None
    strips : why layers are in strips, if some are
    """

    network: Network
    geometry: Geometry
    layers: list[LayerPlan]
    layouts: dict[Tensor, MapLayout]
    results: dict[Tensor, MapLayout]
    opens: int | None = None
    strips: Strips | None = None


@dataclass(frozen=True)
class Strips:
    """Layers that are computed in strips.

    Attributes
    ----------
    axis : 0: strips of rows, 1: of columns
    count : strips
    first, last : names of the first and the last of these layers
    words : of the banks that the network needs at once without strips
    """

    axis: int
    count: int
    first: str
    last: str
    words: int


class BanksTooSmall(TargetTooSmall):
    """The tensors do not fit the banks.

    Parameters
    ----------
    message : with the layer at which most words are needed
    words : needed there at once
    """

    def __init__(self, message: str, words: int) -> None:
        super().__init__(message)
        self.words = words


def lives(network: Network) -> dict[Tensor, tuple[int, int]]:
    """Steps at which a tensor is first written and last read; step 0 are the host's inputs."""
    found = dict.fromkeys(network.given, (0, 0))
    for step, layer in enumerate(network.layers, start=1):
        begin, _ = found.get(layer.output, (step, step))
        found[layer.output] = (begin, step)
        for source in layer.sources:
            found[source.tensor] = (found.get(source.tensor, (0, 0))[0], step)
    always = (0, len(network.layers) + 1)
    return found | {state.before.tensor: always for state in network.states}


def plan(
    network: Network, geometry: Geometry, dense: bool = False, bodies: Bodies | None = None
) -> Plan:
    """Choose the lane mappings, lay out the tensors, allocate the banks.

    Parameters
    ----------
    network : with the copies that the array needs
    geometry : of the array
    dense : count every block as kept: the same network on the same geometry, unpruned
    bodies : rows of the network, if there are any yet

    Raises
    ------
    BanksTooSmall : the tensors do not fit the banks with any lane mapping that was tried
    """
    bodies = bodies or make_bodies(network, geometry.n, dense)
    chooser = Chooser(network, geometry, bodies.layers, bodies.placements)
    requests: list[Request] = []
    for price in PRICES:
        chosen, layouts = _mapped(network, chooser, price)
        results = {tensor: layouts.pop(tensor) for tensor in network.results}
        layouts, first = _shared(network, layouts)
        requests = _requests(network, layouts, first)
        bases = allocate(requests, geometry.bank_words)
        if bases is not None:
            planned = [chooser.plan(layer, chosen[layer]) for layer in network.layers]
            placed = _placed(layouts, first, requests, bases)
            return Plan(network, geometry, planned, placed, results)
    raise _crowded(network, requests, geometry.bank_words)


def _mapped(
    network: Network, chooser: Chooser, price: float
) -> tuple[dict[Layer, LaneMap], dict[Tensor, MapLayout]]:
    """Lane mappings of all layers, and maps of all tensors with their windows."""
    chosen: dict[Layer, LaneMap] = {}
    splits: dict[Tensor, Split] = {}
    for layers in components(network):
        maps, split = chooser.choose(layers, price)
        chosen |= maps
        splits |= split
    layouts = {}
    for tensor in network.tensors:
        layout = chooser.layout(tensor, splits.get(tensor))
        assert layout is not None  # choose takes no split that cannot be laid out
        layouts[tensor] = replace(layout, window=chooser.window(layout, chosen))
    return chosen, layouts


def least_room(
    network: Network, geometry: Geometry, bodies: Bodies
) -> tuple[dict[Tensor, int], Ints]:
    """Words of the window of every tensor, where these are chosen to be few; and words that are
    needed at every step, of which step 0 is the input.

    Parameters
    ----------
    network : with the copies that the array needs
    geometry : of the array
    bodies : rows of the network
    """
    chooser = Chooser(network, geometry, bodies.layers, bodies.placements)
    _, layouts = _mapped(network, chooser, PRICES[-1])
    layouts = {t: layout for t, layout in layouts.items() if t not in network.results}
    taken = alive(_requests(network, *_shared(network, layouts)))
    return {t: layout.window for t, layout in layouts.items()}, taken.sum(axis=1)


def windows(planned: Plan) -> list[tuple[Request, int]]:
    """The windows of a plan, with their bases."""
    network = planned.network
    requests = _requests(network, *_shared(network, planned.layouts))
    return [(request, planned.layouts[request.tensor].base) for request in requests]


def freed(planned: Plan, given: Tensor, step: int) -> Plan | None:
    """The plan with no other tensor in an input's window from a step on.

    Parameters
    ----------
    planned : a plan
    given : the input
    step : number of a layer, from 1 on

    Returns
    -------
    plan : with other windows; None: the banks have no room for them
    """
    network = planned.network
    layouts, first = _shared(network, planned.layouts)
    requests = _requests(network, layouts, first)
    home = next(each for each in requests if each.tensor is first[given])
    if home.end >= step:
        return None
    again = replace(home, begin=step, end=len(network.layers) + 1)
    bases = allocate([*requests, again], planned.geometry.bank_words)
    if bases is None:
        return None
    return replace(planned, layouts=_placed(layouts, first, requests, bases))


def _crowded(network: Network, requests: list[Request], depth: int) -> BanksTooSmall:
    """The refusal: where most words are alive, and what they are."""
    taken = alive(requests)
    step = int(taken.sum(axis=1).argmax())
    there = sorted(np.flatnonzero(taken[step]), key=lambda at: -taken[step, at])
    maps = [
        f"{taken[step, at]} for {t.name!r} ({t.channels} x {t.height} x {t.width})"
        for at, t in ((at, requests[at].tensor) for at in there[:3])
    ]
    more = f", and {len(there) - 3} more" if len(there) > 3 else ""
    where = f"layer {network.layers[step - 1].name!r}" if step else "the input"
    gaps = "" if taken[step].sum() > depth else ", and no order of them was found that fits"
    words = int(taken[step].sum())
    return BanksTooSmall(
        f"the activations do not fit the banks: {where} needs {words} words of each "
        f"at once ({printable(', '.join(maps), 300)}{more}), the target has {depth}{gaps}",
        words,
    )


def _shared(
    network: Network, layouts: dict[Tensor, MapLayout]
) -> tuple[dict[Tensor, MapLayout], dict[Tensor, Tensor]]:
    """Layouts with one window for a residual output and the tensor that it adds, if these fit.

    Returns
    -------
    layouts, first : layouts by tensor, and for every tensor the first tensor of its window
    """
    first = {tensor: tensor for tensor in layouts}
    for later, earlier in in_place(network).items():
        same = layouts[later].placement.position, layouts[earlier].placement.position
        if _shape(layouts[later]) == _shape(layouts[earlier]) and np.array_equal(*same):
            first[later] = first[earlier]
    windows = {
        home: max(layouts[tensor].window for tensor in layouts if first[tensor] is home)
        for home in first.values()
    }
    widened = {t: replace(layout, window=windows[first[t]]) for t, layout in layouts.items()}
    return widened, first


def _requests(
    network: Network, layouts: dict[Tensor, MapLayout], first: dict[Tensor, Tensor]
) -> list[Request]:
    """The windows that are needed, one for all tensors that share it."""
    alive_at, requests = lives(network), []
    for home in dict.fromkeys(first.values()):
        spans = [alive_at[tensor] for tensor in layouts if first[tensor] is home]
        life = (min(begin for begin, _ in spans), max(end for _, end in spans))
        # The host writes the padding of the inputs itself.
        padded = layouts[home].padding.any and home not in network.given
        clearing = clear_cycles(layouts[home].window) if padded else 0
        requests.append(Request(home, layouts[home].window, *life, clearing, _shape(layouts[home])))
    return requests


def _placed(
    layouts: dict[Tensor, MapLayout],
    first: dict[Tensor, Tensor],
    requests: list[Request],
    bases: Bases,
) -> dict[Tensor, MapLayout]:
    """Layouts with bases, and which of them are cleared."""
    dirty = {
        request.tensor
        for request in requests
        if request.clearing and layouts[request.tensor].padding.fill
    }
    dirty |= {r.tensor for r in requests if r.clearing} & dirtied(requests, bases)
    return {
        tensor: replace(layout, base=bases[first[tensor]], clear=tensor in dirty)
        for tensor, layout in layouts.items()
    }


def _shape(layout: MapLayout) -> tuple[object, ...]:
    """Tensors that agree in this write the same words of windows of the same size and base.

    Every word of a pixel is written, in whatever order its channels lie.
    """
    tensor = layout.tensor
    size = (tensor.height, tensor.width, layout.placement.pixel_bytes)
    return (size, layout.padding, layout.pitch, layout.split)

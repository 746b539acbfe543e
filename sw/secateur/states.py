"""States of a step: each keeps its place in the banks from one inference to the next.

In the model all states change at once, at the end of a step. Here layers write them one after the
other, so the order matters: whoever reads an old state must have read it before its place is
written. ``secateur.dataflow`` proves for every compiled network that this holds.
"""

from __future__ import annotations

from dataclasses import replace

from secateur.copying import copy_layer
from secateur.errors import SecateurError
from secateur.ir import Layer, Network, Part, State


def with_states_in_place(network: Network) -> Network:
    """The network with every state written where the next step reads it.

    The layer that makes the new state writes over the old one if nobody reads the old one in it
    or after it; otherwise a copy does, as soon as nobody does. A state that becomes another one's
    old value waits until that one has it; where states wait for each other, one is set aside.

    Raises
    ------
    SecateurError : a state that never changes, or has another scale than what it becomes
    """
    for state in network.states:
        _check(state)
    network, waiting = _output_apart(network), list(network.states)
    while waiting:
        free = [s for s in waiting if not _readers(s, waiting)]
        if free:
            waiting.remove(free[0])
            network = _moved(network, free[0])
        else:
            network, waiting = _set_aside(network, waiting)
    return network


def _check(state: State) -> None:
    before, after = state.before, state.after
    name = before.tensor.name
    if before == after:
        raise SecateurError(f"state {name!r} is never changed; remove it, or make it a constant")
    scales = {(part.tensor.exponent, part.tensor.signed) for part in (before, after)}
    if len(scales) > 1:
        raise SecateurError(
            f"state {name!r} and {after.tensor.name!r}, which it becomes, have different scales; "
            f"requantise with secateur.quantize"
        )


def _readers(state: State, waiting: list[State]) -> list[State]:
    """Other states that become what ``state`` still holds."""
    return [other for other in waiting if other is not state and other.after.meets(state.before)]


def _output_apart(network: Network) -> Network:
    """The network with an old state that is its output copied first: results come last."""
    output = network.output
    if not any(state.before.meets(output.all) for state in network.states):
        return network
    copy = copy_layer(output.all, f"{output.name}.before")
    return replace(network, output=copy.output, layers=[copy, *network.layers])


def _set_aside(network: Network, waiting: list[State]) -> tuple[Network, list[State]]:
    """A copy of an old state for one of those that wait for each other."""
    state = _readers(waiting[0], waiting)[0]
    copy = copy_layer(state.after, f"{state.before.tensor.name}.aside")
    layers = list(network.layers)
    layers.insert(_made(layers, state.after) + 1, copy)
    aside = State(state.before, copy.output.all)
    states = [aside if other is state else other for other in network.states]
    waiting = [aside if other is state else other for other in waiting]
    return replace(network, layers=layers, states=states), waiting


def _made(layers: list[Layer], part: Part) -> int:
    """Index of the last layer that writes some of the part, -1 if none does."""
    return max((i for i, layer in enumerate(layers) if layer.part.meets(part)), default=-1)


def _moved(network: Network, state: State) -> Network:
    layers, before, after = list(network.layers), state.before, state.after
    made = _made(layers, after)
    reads = ((i, source.part) for i, layer in enumerate(layers) for source in layer.sources)
    last = max((i for i, part in reads if part.meets(before)), default=-1)
    others = [other for other in network.states if other is not state]
    shared = any(part.meets(after) for other in others for part in (other.before, other.after))
    alone = after.whole and len(after.tensor.slices) == 1 and not shared
    output = network.output
    if made > last and alone and (output is not after.tensor or before.whole):
        layers = [_renamed(layer, after, before) for layer in layers]
        output = before.tensor if output is after.tensor else output
    else:
        copy = copy_layer(after, f"{before.tensor.name}.next", before)
        layers.insert(max(made, last) + 1, copy)
    states = [State(before, before) if other is state else other for other in network.states]
    return replace(network, layers=layers, output=output, states=states)


def _renamed(layer: Layer, old: Part, new: Part) -> Layer:
    """The layer with another place for what is all of a tensor."""
    sources = [
        replace(s, tensor=new.tensor, first=s.first + new.first) if s.tensor is old.tensor else s
        for s in layer.sources
    ]
    if layer.output is not old.tensor:
        return replace(layer, sources=sources)
    return replace(layer, sources=sources, output=new.tensor, first=layer.first + new.first)

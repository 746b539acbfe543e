"""States of a step: every one in a window of its own, from one inference to the next."""

from __future__ import annotations

from dataclasses import replace

from secateur.copying import copy_layer
from secateur.errors import SecateurError
from secateur.ir import Layer, Network, State, Tensor


def with_states_in_place(network: Network) -> Network:
    """The network with every state written where the next step reads it.

    The layer that makes the new state writes over the old one if nobody reads the old one in it
    or after it; otherwise a copy does, as soon as nobody does.
    """
    for state in network.states:
        before, after = state.before, state.after
        if before is after:
            raise SecateurError(
                f"state {before.name!r} is never changed; remove it, or make it a constant"
            )
        if (before.exponent, before.signed) != (after.exponent, after.signed):
            raise SecateurError(
                f"state {before.name!r} and {after.name!r}, which it becomes, have different "
                f"scales; requantise with secateur.quantize"
            )
        network = _moved(network, state)
    return network


def _moved(network: Network, state: State) -> Network:
    layers, before, after = list(network.layers), state.before, state.after
    made = max((i for i, layer in enumerate(layers) if layer.output is after), default=-1)
    reads = [i for i, layer in enumerate(layers) if any(s.tensor is before for s in layer.sources)]
    last = max(reads, default=-1)
    whole = len(after.slices) == 1 and after.channels == before.channels
    shared = sum(other.after is after or other.before is after for other in network.states) > 1
    output = network.output
    if last < made and whole and not shared:
        layers = [_with(layer, after, before) for layer in layers]
        output = before if output is after else output
    else:
        copy = copy_layer(after, f"{before.name}.next", before, state.first)
        layers.insert(max(made, last) + 1, copy)
    states = [State(before, before) if other is state else other for other in network.states]
    return replace(network, layers=layers, output=output, states=states)


def _with(layer: Layer, old: Tensor, new: Tensor) -> Layer:
    """The layer with one tensor in place of another."""
    sources = [replace(s, tensor=new) if s.tensor is old else s for s in layer.sources]
    return replace(layer, sources=sources, output=new if layer.output is old else layer.output)

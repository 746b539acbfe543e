"""What a network needs before it can be planned: copies, states written where they are read, and
gates that are one layer.

In the model all states of a step change at once, at its end. Here layers write them one after the
other, so the order matters: all readers of an old state must come before the layer that overwrites
it. ``secateur.compiler.dataflow`` proves for every compiled network that this holds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from secateur.compiler.layout import reads_outside
from secateur.errors import SecateurError
from secateur.hw import spec
from secateur.ir import Layer, Network, Part, Source, State, Tensor


def with_states_in_place(network: Network, lanes: int) -> Network:
    """The network with every state written where the next step reads it.

    The layer that computes the new state overwrites the old one if no later layer reads the old
    one, nor it itself but value by value; otherwise a copy overwrites it, behind the last reader. A
    state whose old value becomes another state waits until that one has it; where states wait for
    each other, one is copied first. A history moves in place, if the array reads it before it
    writes it.

    Parameters
    ----------
    network : its states change at the end of a step
    lanes : of the array

    Raises
    ------
    SecateurError : a state never changes, or its new value has another scale
    """
    for state in network.states:
        _check(state)
    network, waiting = _output_apart(network), list(network.states)
    while waiting:
        free = [s for s in waiting if not _readers(s, waiting)]
        if free:
            waiting.remove(free[0])
            network = _moved(network, free[0], lanes)
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
            f"state {name!r} and its next value {after.tensor.name!r} have different scales; "
            f"requantise with secateur.quantize"
        )


def _readers(state: State, waiting: list[State]) -> list[State]:
    """Other states whose next value is the old value of ``state``."""
    return [other for other in waiting if other is not state and other.after.meets(state.before)]


def _output_apart(network: Network) -> Network:
    """The network with old states that are its outputs copied first: results come last."""
    for output in network.results:
        if any(state.before.meets(output.all) for state in network.states):
            copy = copy_layer(output.all, f"{output.name}.before")
            network = _returning(network, output, copy.output, [copy, *network.layers])
    return network


def _returning(network: Network, old: Tensor, new: Tensor, layers: list[Layer]) -> Network:
    """The network with other layers, and one tensor as output in place of another."""
    outputs = [replace(p, tensor=new) if p.tensor is old else p for p in network.outputs]
    return replace(network, outputs=outputs, layers=layers)


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


def _overtakes(layer: Layer, state: State, lanes: int) -> bool:
    """Whether a layer that moves an old state would read, if it wrote in place, what it has
    written. One group of pixels is read before it is written; and one lane reads in order."""
    reads = any(source.part.meets(state.before) for source in layer.sources)
    if not (reads and layer.part.meets(state.after)):
        return False
    pixels = layer.pixels
    ahead = all(
        -source.padding[0] >= pixels.top and -source.padding[1] >= pixels.left
        for source in layer.sources
    )
    ahead = ahead and (pixels.down, pixels.right) == ((1, 0), (0, 1))
    return pixels.height * pixels.width > lanes if lanes > 1 else not ahead


def _value_by_value(layer: Layer, before: Part) -> bool:
    """Whether a layer reads each old value for the new one of the same place alone, one pixel."""
    return (
        layer.whole
        and all(
            source.mode == "lanewise" and source.kernel == (1, 1) and source.part == before
            for source in layer.sources
            if source.part.meets(before)
        )
        and (layer.output.height, layer.output.width) == (1, 1)
    )


def _moved(network: Network, state: State, lanes: int) -> Network:
    layers, before, after = list(network.layers), state.before, state.after
    made = _made(layers, after)
    reads = ((i, source.part) for i, layer in enumerate(layers) for source in layer.sources)
    last = max((i for i, part in reads if part.meets(before)), default=-1)
    others = [other for other in network.states if other is not state]
    shared = any(part.meets(after) for other in others for part in (other.before, other.after))
    alone = after.whole and len(after.tensor.slices) == 1 and not shared
    whole = after.tensor not in network.results or before.whole
    overtakes = any(_overtakes(layer, state, lanes) for layer in layers)
    free = made > last or (made == last >= 0 and _value_by_value(layers[made], before))
    if free and alone and not overtakes and whole:
        layers = [_renamed(layer, after, before) for layer in layers]
        network = _returning(network, after.tensor, before.tensor, layers)
    else:
        copy = copy_layer(after, f"{before.tensor.name}.next", before)
        layers.insert(max(made, last) + 1, copy)
    states = [State(before, before) if other is state else other for other in network.states]
    return replace(network, layers=layers, states=states)


def _renamed(layer: Layer, old: Part, new: Part) -> Layer:
    """The layer with ``new`` in place of ``old``, which is a whole tensor."""
    sources = [
        replace(s, tensor=new.tensor, first=s.first + new.first) if s.tensor is old.tensor else s
        for s in layer.sources
    ]
    if layer.output is not old.tensor:
        return replace(layer, sources=sources)
    return replace(layer, sources=sources, output=new.tensor, first=layer.first + new.first)


def copy_layer(part: Part, name: str, to: Part | None = None) -> Layer:
    """A layer that copies codes.

    Parameters
    ----------
    part : is read
    name : of the layer, and of its tensor if it has one of its own
    to : is written; None for a tensor of its own
    """
    tensor = part.tensor
    if to is None:
        to = replace(tensor, name=name, channels=part.channels, slices=[]).all
    none = np.zeros(part.channels, dtype=np.int64)
    ones = np.ones((part.channels, 1, 1), dtype=np.int64)
    low, high = (-128, 127) if tensor.signed else (0, 255)
    return Layer(
        name=name,
        kind="copy",
        sources=[Source(tensor, "lanewise", ones, first=part.first)],
        output=to.tensor,
        bias=none,
        shift=none.copy(),
        low=low,
        high=high,
        first=to.first,
    )


def with_result_layer(network: Network) -> Network:
    """The network with a copy of every output that no single layer can stream to the host.

    The pixels of a layer with results do not go to the banks, so it must write a whole output and
    no layer may read it. The last layer has results.
    """
    read = {source.tensor for layer in network.layers for source in layer.sources}
    streamed = []
    for output in network.results:
        writers = [layer for layer in network.layers if layer.output is output]
        if len(writers) == 1 and writers[0].whole and output not in read:
            streamed.append(output)
    if network.layers[-1].output not in streamed and len(streamed) == len(network.outputs):
        streamed.pop()
    for output in [tensor for tensor in network.results if tensor not in streamed]:
        copy = copy_layer(output.all, f"{output.name}.result")
        network = _returning(network, output, copy.output, [*network.layers, copy])
    return network


def with_own_padding(network: Network) -> Network:
    """The network with a copy of every tensor that needs two kinds of padding.

    Padded max pooling of signed codes needs -128 around the tensor, all other layers need 0: the
    pooling then reads the copy.
    """
    layers = list(network.layers)
    for tensor in network.tensors:
        reads = [(layer, s) for layer in layers for s in layer.sources if s.tensor is tensor]
        outside = [(layer, source, reads_outside(source, layer)) for layer, source in reads]
        if len({need.fill for _, _, need in outside if need.any}) < 2:
            continue
        copy = copy_layer(tensor.all, f"{tensor.name}.padded")
        readers = [(layer, source) for layer, source, need in outside if need.any and need.fill]
        layers.insert(layers.index(readers[0][0]), copy)
        for layer, source in readers:
            sources = [replace(s, tensor=copy.output) if s is source else s for s in layer.sources]
            layers[layers.index(layer)] = replace(layer, sources=sources)
    return replace(network, layers=layers)


def with_gates_joined(network: Network, tables: int) -> Network:
    """The network with gates that read the same as one layer, in which each row names its table.

    Gates are products of vectors behind a function, whose values are read one by one.

    Parameters
    ----------
    network : with its states in place
    tables : of the array; all functions must have one of their own
    """
    entries = {table.entries.tobytes() for layer in network.layers for table in layer.tables}
    if len(entries) > tables:
        return network
    alike: dict[tuple[object, ...], list[Layer]] = {}
    for layer in network.layers:
        if _is_gate(layer, network):
            reads = tuple(
                (source.part, source.kernel, source.padding, source.dilation, source.wshift)
                for source in layer.sources
            )
            alike.setdefault((reads, layer.low, layer.high, layer.signed), []).append(layer)
    for members in alike.values():
        shifts = np.concatenate([layer.shift for layer in members])
        if len(members) > 1 and np.ptp(shifts) <= spec.SHIFT_SPAN:
            network = _joined(network, members)
    return network


def _is_gate(layer: Layer, network: Network) -> bool:
    """Whether a layer may be a part of another one."""
    output, reads = layer.output, [s for each in network.layers for s in each.sources]
    kept = [*network.results, *(state.before.tensor for state in network.states)]
    return (
        layer.table is not None
        and all(source.mode == "broadcast" for source in layer.sources)
        # A word that moves the address stands for more than a word of the map.
        and sum(source.weight[0].size for source in layer.sources) < _MOST_INPUTS
        and (output.height, output.width) == (1, 1)
        and layer.whole
        and len(output.slices) == 1
        and output not in kept
        and all(s.mode != "broadcast" and s.kernel == (1, 1) for s in reads if s.tensor is output)
    )


#: Inputs of gates that are joined: their words are counted in fewer bits than others.
_MOST_INPUTS = 1 << spec.ROW_TABLE_COUNT_BITS - 1


def _joined(network: Network, members: list[Layer]) -> Network:
    """The network with one layer in place of some, which writes their tensors side by side."""
    outputs, head = [layer.output for layer in members], members[0]
    slices = [output.channels for output in outputs]
    whole = replace(
        head.output, name="+".join(output.name for output in outputs), channels=sum(slices),
        slices=slices, joined=outputs,
    )  # fmt: skip
    sources = [
        replace(source, weight=np.concatenate([layer.sources[at].weight for layer in members]))
        for at, source in enumerate(head.sources)
    ]
    measured = [layer.sqnr for layer in members if layer.sqnr is not None]
    layer = replace(
        head,
        name=f"{head.name}+{len(members) - 1}",
        sources=sources,
        output=whole,
        bias=np.concatenate([layer.bias for layer in members]),
        shift=np.concatenate([layer.shift for layer in members]),
        nodes=[node for layer in members for node in layer.nodes],
        table=None,
        label="",
        sqnr=min(measured, default=None),
        members=members,
    )
    layers = [layer if each is head else each for each in network.layers]
    layers = [each for each in layers if each not in members]
    for first, output in zip(np.cumsum([0, *slices]).tolist(), outputs, strict=False):
        part = Part(whole, first, output.channels)
        layers = [
            _renamed(each, output.all, part)
            if any(source.tensor is output for source in each.sources)
            else each
            for each in layers
        ]
    return replace(network, layers=layers)


def runnable(network: Network, geometry: spec.Geometry) -> Network:
    """The network with the copies that an array needs, and with its gates joined."""
    network = with_states_in_place(network, geometry.p)
    network = with_own_padding(with_result_layer(network))
    return with_gates_joined(network, geometry.tables)

"""A proof for every compiled network: each layer reads the same values as in the model.

Three things could break that: a state written while a later layer reads its old value, windows of
two tensors that share words while both are alive, and a copy at the wrong place. The network as it
was lowered names every code of a map once (nothing in it is written twice). Here the plan is run
on these names instead of numbers, over the words of the banks: a step begins with the old states
and nothing else, and must end with the new ones. So it holds for every step (recurrent.md,
"When a state changes").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.compiler.schedule import Plan
from secateur.errors import SecateurError
from secateur.ir import Ints, Layer, Network, Part, Region, Source, Strip, Tensor

_UNKNOWN, _PADDING = -1, -2


@dataclass
class _Names:
    """A number for every code of the maps of a lowered network."""

    first: dict[Tensor, int]

    @staticmethod
    def of(network: Network) -> _Names:
        tensors = [*network.tensors, *(state.before.tensor for state in network.states)]
        first, count = {}, 0
        for tensor in dict.fromkeys(tensors):
            first[tensor], count = count, count + tensor.channels * tensor.height * tensor.width
        return _Names(first)

    def __getitem__(self, part: Part) -> Ints:
        """(channels, height, width)"""
        pixels = part.tensor.height * part.tensor.width
        begin = self.first[part.tensor] + part.first * pixels
        numbers = np.arange(begin, begin + part.channels * pixels)
        return numbers.reshape(part.channels, part.tensor.height, part.tensor.width)


class _Banks:
    """The tensor that owns each bank word, and the names that the maps hold."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.owner = np.full(plan.geometry.bank_words, _UNKNOWN)
        self.number = {tensor: i for i, tensor in enumerate(plan.layouts)}
        self.held = {t: np.full((t.channels, t.height, t.width), _UNKNOWN) for t in plan.layouts}

    def _words(self, tensor: Tensor) -> Ints:
        layout = self.plan.layouts[tensor]
        return self.owner[layout.base : layout.base + layout.window]

    def write(self, part: Part, names: Ints, pixels: Region | None = None) -> None:
        """Write names; tensors that had some of these words lose theirs."""
        words, number = self._words(part.tensor), self.number[part.tensor]
        if (words != number).any():
            self.held[part.tensor][:] = _UNKNOWN
        words[:] = number
        held = self.held[part.tensor][part.first : part.first + part.channels]
        if pixels is None:
            held[:] = names
        else:
            held[:, *pixels.at] = names

    def read(self, part: Part) -> Ints:
        """The names, none where another tensor has been written."""
        held = self.held[part.tensor][part.first : part.first + part.channels]
        whole = (self._words(part.tensor) == self.number[part.tensor]).all()
        return held if whole else np.full_like(held, _UNKNOWN)


def check(network: Network, plan: Plan) -> None:
    """Refuse a plan that does not compute the network.

    Parameters
    ----------
    network : as lowered, its states not yet in place
    plan : of that network with the copies that the array needs

    Raises
    ------
    SecateurError : a layer, an output or a state would take another value than the model's
    """
    names, banks = _Names.of(network), _Banks(plan)
    wanted = {layer.name: layer for layer in network.layers}
    for placed, state in zip(plan.network.states, network.states, strict=True):
        banks.write(placed.before, names[state.before])
    for port, given in zip(plan.network.inputs, network.given, strict=True):
        banks.write(port.tensor.all, names[given.all])
    results = {
        placed: np.full_like(names[output.all], _UNKNOWN)
        for placed, output in zip(plan.network.results, network.results, strict=True)
    }
    for layer in plan.network.layers:
        found = [banks.read(source.part) for source in layer.sources]
        made = found[0]
        originals = [wanted[each.name] for each in layer.members or [layer] if each.name in wanted]
        for original in originals:
            _compare(layer, found, original, names)
        if originals:
            made = np.concatenate([names[each.part][:, *each.pixels.at] for each in originals])
        if layer.strip is not None:
            made = _strip(layer, layer.strip, found, wanted, names)
        if layer.output in results:
            results[layer.output][:, *layer.pixels.at] = made
        else:
            banks.write(layer.part, made, layer.pixels)
    for port, result in zip(network.outputs, results.values(), strict=True):
        if not np.array_equal(result, names[port.tensor.all]):
            raise _fault(f"output {port.name!r}", port.tensor)
    for placed, state in zip(plan.network.states, network.states, strict=True):
        if not np.array_equal(banks.read(placed.before), names[state.after]):
            raise _fault(f"state {state.before.tensor.name!r}", state.after.tensor)


def _compare(layer: Layer, found: list[Ints], original: Layer, names: _Names) -> None:
    for read, source in zip(found, original.sources, strict=True):
        rows, columns = _read(source)
        if not np.array_equal(read[:, rows, columns], names[source.part][:, rows, columns]):
            raise _fault(f"layer {layer.name!r}", source.tensor)


def _strip(
    layer: Layer, strip: Strip, found: list[Ints], wanted: dict[str, Layer], names: _Names
) -> Ints:
    """The names that a strip of a layer makes, if each window has those of the whole layer's."""
    size, first = (layer.pixels.height, layer.pixels.width), [0, 0]
    own = [
        _windows(read, source, (0, 0), size)
        for read, source in zip(found, layer.sources, strict=True)
    ]
    if strip.layer not in wanted:  # a copy
        return own[0][:, :, 0, :, 0]
    original = wanted[strip.layer]
    first[strip.axis] = strip.first
    for read, source in zip(own, original.sources, strict=True):
        whole = _windows(names[source.part], source, (first[0], first[1]), size)
        if not np.array_equal(read, whole):
            raise _fault(f"layer {layer.name!r}", source.tensor)
    rows, columns = (slice(at, at + n) for at, n in zip(first, size, strict=True))
    return names[original.part][:, rows, columns]


def _windows(held: Ints, source: Source, first: tuple[int, int], size: tuple[int, int]) -> Ints:
    """(channels, height, window's height, width, window's width) names, or padding."""
    taken = held
    for axis in (0, 1):
        at = (first[axis] + np.arange(size[axis])) * source.stride[axis] - source.padding[axis]
        taps = at[:, None] + np.arange(source.kernel[axis]) * source.dilation[axis]
        count = held.shape[1 + axis]
        inside = (taps >= 0) & (taps < count)
        taken = np.take(taken, np.clip(taps, 0, count - 1), axis=1 + 2 * axis)
        taken = np.where(inside if axis else inside[:, :, None], taken, _PADDING)
    return taken


def _read(source: Source) -> tuple[slice, slice]:
    """Rows and columns that a source reads."""
    top, left, bottom, right = (max(0, -amount) for amount in source.padding)
    height, width = source.tensor.height, source.tensor.width
    return slice(top, height - bottom), slice(left, width - right)


def _fault(what: str, tensor: Tensor) -> SecateurError:
    return SecateurError(
        f"{what} would not get {tensor.name!r}, which is overwritten before it is read: a fault of "
        f"Secateur; please report it with the model"
    )

"""An exponent for each channel of an input whose channels have ranges of their own.

Features of unlike units, such as cepstral coefficients, share 8 bits badly: one step that fits the
largest leaves the smallest a few codes. The host multiplies each channel by a power of two before
it rounds, and the layers that read the input have the inverse in their weights. This is exact.

A finer channel has smaller weights, so it costs bits of these where it saves bits of the input.
The exponents are those of the least sum of both errors behind the first layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from secateur.capture.export import batch_of
from secateur.capture.ports import inputs_of
from secateur.fx.graph import (
    MUL,
    PRODUCTS,
    Editor,
    constant,
    is_call,
    leaves,
    shape_of,
)
from secateur.fx.moves import (
    Moved,
    Numbers,
    is_move,
    is_size,
    moved,
    samples_of,
    sources_of,
    varying_nodes,
)
from secateur.ir import Ints
from secateur.quantisation.fake_quantise import (
    DEAD,
    ActivationFakeQuantize,
    PerChannelWeightFakeQuantize,
)

#: The error with one exponent, by that with several, from which on several are worth it.
_WORTH = 2.0
#: Rounds in which the exponents of input and weights follow each other.
_ROUNDS = 8
#: Bits by which channels must differ.
_APART = 2

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Reader:
    """A convolution or linear that reads an input, through moves.

    Attributes
    ----------
    node : of the graph
    weight : (O, I, taps) in float
    numbers : (I, positions) of the input's values in each channel, -1 for all else
    other : (I,) whether a channel has values that are neither of the input nor zero
    """

    node: Node
    weight: Tensor
    numbers: Numbers
    other: npt.NDArray[np.bool_]

    def places(self, axis: int, shape: tuple[int, ...]) -> Ints | None:
        """(I,) place along an axis of the input in each channel, -1 in none; None if a channel has
        several, or one and other values.
        """
        at = np.unravel_index(np.maximum(self.numbers, 0), shape)[axis]
        at = np.where(self.numbers < 0, -1, at)
        highest = at.max(1)
        several = ((at >= 0) & (at != highest[:, None])).any(1)
        mixed = several | (self.other & (highest >= 0))
        return None if mixed.any() else highest.astype(np.int64)

    def of_weights(self, values: Tensor) -> Tensor:
        """Values of input channels (I,) for the weights: of their shape, or 1 in dimensions."""
        outputs, per_group = self.weight.shape[:2]
        groups = len(values) // per_group
        rows = values.reshape(groups, 1, per_group).expand(-1, outputs // groups, -1)
        rows = rows.reshape(outputs, per_group) if groups > 1 else values[None]
        return rows.reshape(*rows.shape, *[1] * (self.weight.dim() - 2))


@dataclass(frozen=True)
class _Choice:
    """Exponents along an axis of an input.

    Attributes
    ----------
    finer : 0 at most, of as many dimensions as the input without samples
    readers : of the input, each with the place along the axis of its input channels, -1 for none
    saved : error behind the readers with one exponent, by that with these
    """

    finer: Ints
    readers: list[tuple[_Reader, Ints]]
    saved: float


def scale_inputs(gm: GraphModule, samples: Mapping[str, list[Tensor]]) -> None:
    """Give inputs an exponent per channel where that is worth it.

    Parameters
    ----------
    gm : canonical, is changed
    samples : batches of the inputs by name, (N, ...); or, of the input of a step, (N, T, F)
    """
    editor = Editor(gm)
    for name, x in inputs_of(gm).items():
        if name not in samples:
            continue
        shape, readers = shape_of(x), _readers(gm, x)
        if not readers or len(shape) > 3:  # the image knows exponents of channels, rows, columns
            continue
        values = torch.cat([batch.reshape(-1, *shape) for batch in samples[name]])
        found = [_finer(axis, shape, readers, values) for axis in range(len(shape))]
        choices = [choice for choice in found if choice is not None]
        best = max(choices, key=lambda choice: choice.saved, default=None)
        if best is not None and best.saved >= _WORTH:
            _scale(editor, x, best)


def _readers(gm: GraphModule, x: Node) -> list[_Reader]:
    """What reads an input; none if a node does that cannot take exponents into weights."""
    shape = shape_of(x)
    whole = np.arange(int(np.prod(shape))).reshape(shape)
    given = {x: Moved(whole, np.zeros(shape))}
    reached, readers = {x}, list[_Reader]()
    for node in gm.graph.nodes:
        if not any(source in reached for source in node.all_input_nodes) or is_size(node):
            continue
        if is_move(node):
            if not any(source in reached for source in sources_of(node)):
                continue  # it takes a shape, and no values
            reached.add(node)
            if isinstance(node.meta["val"], Tensor) and not samples_of(node):
                given[node] = _moved(gm, node, given)
        elif is_call(node, *PRODUCTS) and node.args[0] in given:
            weight = constant(gm, cast(Node, node.args[1]))
            read = given[cast(Node, node.args[0])]
            numbers = read.numbers.reshape(len(read.numbers), -1)
            other = ((numbers < 0) & (read.constants.reshape(numbers.shape) != 0)).any(1)
            readers.append(_Reader(node, weight, numbers, other))
        else:
            return []
    return readers


def _moved(gm: GraphModule, node: Node, given: dict[Node, Moved]) -> Moved:
    """The numbers of an input's values behind a move; those of other tensors count as ones."""
    parts = leaves(node, lambda n: sources_of(n) if n is node or samples_of(n) else [])
    known, varying = {}, varying_nodes(gm.graph)
    for part in parts:
        if part in varying:
            shape = shape_of(part)
            other = Moved(np.full(shape, -1, np.int64), np.ones(shape))
            known[part] = given.get(part, other)
    return moved(node, known, lambda n: constant(gm, n), batch_of(gm))


def _finer(
    axis: int, shape: tuple[int, ...], readers: list[_Reader], values: Tensor
) -> _Choice | None:
    """The exponents of least error along an axis.

    Parameters
    ----------
    axis : of the input without samples
    shape : of the input
    readers : all of them
    values : (samples, ...) of the input

    Returns
    -------
    choice : None if the readers cannot take such exponents, or the places along the axis are alike
    """
    places = [reader.places(axis, shape) for reader in readers]
    lines = values.movedim(axis + 1, 0).flatten(1)
    tops = lines.abs().amax(1)
    if any(place is None for place in places) or not bool(tops.any()):
        return None
    if float(tops[tops > 0].min()) > float(tops.max()) / 2**_APART:
        return None
    signed = bool(values.min() < 0)
    whole, own = _exponent(values, signed), np.array([_exponent(line, signed) for line in lines])
    least = np.where(own == DEAD, 0, np.minimum(own - whole, 0))
    power = lines.double().square().mean(1).numpy()
    options, finer = np.arange(least.min(), 1)[:, None], np.zeros(len(lines), np.int64)
    parts = [(reader, cast(Ints, place)) for reader, place in zip(readers, places, strict=True)]
    totals = list[float]()
    for _ in range(_ROUNDS):
        errors = [_errors(reader, place, finer, power) for reader, place in parts]
        of_input, of_weights = np.sum(errors, 0)
        each = of_input * 4.0 ** (whole + options) + of_weights * 4.0**-options
        totals.append(float(np.take_along_axis(each, finer[None] - options[0], 0).sum()))
        finer, last = options[np.where(options < least, np.inf, each).argmin(0), 0], finer
        if (finer == last).all():
            break
    finer = finer.reshape([-1 if dim == axis else 1 for dim in range(len(shape))])
    return _Choice(finer, parts, totals[0] / max(totals[-1], 1e-300))


def _errors(reader: _Reader, place: Ints, finer: Ints, power: Floats) -> Floats:
    """(2, places) errors behind a reader, by the power of its sums: that of the input for a step of
    1, and that of rounding weights for values of power 1, with both exponents 0.

    Parameters
    ----------
    reader : the reader
    place : (I,) along the axis of each input channel, -1 for none
    finer : (places,) exponents of the input, of which those of the weights follow
    power : (places,) mean square of the input's values
    """
    weight = reader.weight.double()
    at = reader.of_weights(torch.from_numpy(place)).expand_as(weight)
    factors = torch.from_numpy(np.ldexp(1.0, finer))[at.clamp(min=0)]
    scaled = torch.where(at < 0, weight, weight * factors)
    exponents = PerChannelWeightFakeQuantize().best(scaled)
    steps = torch.exp2(2.0 * exponents).reshape(-1, *[1] * (weight.dim() - 1))
    taken = (at >= 0) & (weight != 0)

    def by_place(values: Tensor) -> Floats:
        found = torch.bincount(at[taken], values.expand_as(weight)[taken], len(power))
        return cast(Floats, found.numpy())

    of_input, of_weights = by_place(weight.square()), by_place(steps) * power
    return np.stack([of_input, of_weights]) / 12 / max(float((of_input * power).sum()), 1e-300)


def _exponent(values: Tensor, signed: bool) -> int:
    """The exponent of least error of values, as calibration chooses it."""
    low, high = (-128, 127) if signed else (0, 255)
    quantiser = ActivationFakeQuantize(quant_min=low, quant_max=high)
    quantiser(values)
    return int(quantiser.exponent)


def _scale(editor: Editor, x: Node, choice: _Choice) -> None:
    """Multiply an input by 2**-finer, and the weights of its readers by the inverse.

    Parameters
    ----------
    editor : of the graph
    x : the input
    choice : of its exponents
    """
    graph = editor.gm.graph
    factors = torch.from_numpy(np.ldexp(1.0, -choice.finer))[None]
    with graph.inserting_after(graph.find_nodes(op="placeholder")[-1]):
        constants = editor.attach("_input", factors, trained=False)
    with graph.inserting_after(constants):
        scaled = editor.call(MUL, x, constants, like=x)
    x.replace_all_uses_with(scaled, lambda user: user is not scaled and not is_size(user))
    inverse = torch.from_numpy(np.ldexp(1.0, choice.finer)).flatten()
    for reader, place in choice.readers:
        at = torch.from_numpy(place)
        columns = reader.of_weights(torch.where(at < 0, 1.0, inverse[at.clamp(min=0)]))
        with graph.inserting_before(reader.node):
            weight = cast(Node, reader.node.args[1])
            inverses = editor.attach("_columns", columns, trained=False)
            product = editor.call(MUL, weight, inverses, like=reader.node)
        reader.node.replace_input_with(weight, product)

"""Layers in strips of rows or columns: one strip of all of them is computed before the next one.

Between the first layer and the last only one strip is alive. A window of K rows reads rows on both
sides of an edge, so layers before it compute these twice. A strip of a layer is a layer like any
other: it reads a part of a map by its padding, and the last ones write their parts into one map.

References
----------
Lin, Chen, Cai, Gan, Han, "MCUNetV2: Memory-Efficient Patch-based Inference for Tiny Deep Learning",
NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from secateur.compiler.body import Bodies
from secateur.ir import Layer, Network, Region, Source, Strip, Tensor

Span = tuple[int, int]  # first row or column, and behind the last


@dataclass(frozen=True)
class Run:
    """Layers that follow each other and leave one map behind.

    Attributes
    ----------
    first, end : number of the first layer, and behind the last
    last : the map that later layers read
    """

    first: int
    end: int
    last: Tensor


@dataclass(frozen=True)
class Way:
    """A run in strips.

    Attributes
    ----------
    run : the layers
    axis : 0: strips of rows, 1: of columns
    count : strips
    """

    run: Run
    axis: int
    count: int

    @property
    def spans(self) -> list[Span]:
        """Rows or columns of the last map in each strip."""
        size, count = size_of(self.run.last, self.axis), self.count
        return [(size * i // count, size * (i + 1) // count) for i in range(count)]


def size_of(tensor: Tensor, axis: int) -> int:
    """Rows of a map (axis 0), or its columns."""
    return tensor.width if axis else tensor.height


def runs(network: Network, needed: range) -> Iterator[Run]:
    """All runs that can be computed in strips.

    Parameters
    ----------
    network : with the copies that the array needs
    needed : numbers of layers that must be in the run
    """
    kept = {*network.results, *(state.before.tensor for state in network.states)}
    reads, writes = dict[Tensor, list[int]](), dict[Tensor, list[int]]()
    for at, layer in enumerate(network.layers):
        writes.setdefault(layer.output, []).append(at)
        for source in layer.sources:
            reads.setdefault(source.tensor, []).append(at)
    for first in range(needed.start + 1):
        made: set[Tensor] = set()
        for end, layer in enumerate(network.layers[first:], start=first + 1):
            if layer.region is not None or layer.members or layer.output in kept:
                break
            made.add(layer.output)
            inside = range(first, end)
            left = [t for t in made if any(at not in inside for at in reads.get(t, []))]
            alone = all(at in inside for t in made for at in writes[t])
            if end < needed.stop or len(left) != 1 or not alone:
                continue
            if not any(at in inside for at in reads[left[0]]):
                yield Run(first, end, left[0])


def read(source: Source, span: Span, axis: int) -> Span:
    """What a source takes of its tensor, padding included, for a strip of the output.

    Parameters
    ----------
    source : of a layer
    span : of the layer's output
    axis : 0: rows, 1: columns
    """
    stride, before = source.stride[axis], source.padding[axis]
    reach = (source.kernel[axis] - 1) * source.dilation[axis] + 1
    return span[0] * stride - before, (span[1] - 1) * stride - before + reach


def _held(source: Source, span: Span, axis: int) -> Span:
    """What the tensor has of that, one row or column at the least."""
    (first, end), size = read(source, span, axis), size_of(source.tensor, axis)
    begin = min(max(first, 0), size - 1)
    return begin, max(min(end, size), begin + 1)


def needs(network: Network, way: Way, span: Span) -> dict[Tensor, Span]:
    """What one strip needs of every map of a run.

    Parameters
    ----------
    network, way : a run of it
    span : of the last map
    """
    layers = network.layers[way.run.first : way.run.end]
    made, found = {layer.output for layer in layers}, {way.run.last: span}
    changed = True
    while changed:
        changed = False
        for layer in reversed(layers):
            for source in layer.sources:
                if source.tensor not in made or layer.output not in found:
                    continue
                begin, end = _held(source, found[layer.output], way.axis)
                before = found.get(source.tensor)
                if before is not None:
                    begin, end = min(begin, before[0]), max(end, before[1])
                found[source.tensor] = begin, end
                changed |= before != (begin, end)
    return found


@dataclass(frozen=True)
class Cut:
    """A network with a run in strips.

    Attributes
    ----------
    network : a copy of each layer of the run for each strip
    layers, tensors : that the copies stand for
    """

    network: Network
    layers: dict[Layer, Layer]
    tensors: dict[Tensor, Tensor]

    def bodies(self, whole: Bodies) -> Bodies:
        """The rows of the network in strips, given those of the whole one: the same."""
        placements = whole.placements | {t: whole.placements[w] for t, w in self.tensors.items()}
        layers = {at: whole.layers[self.layers.get(at, at)] for at in self.network.layers}
        return Bodies(whole.n, placements, layers)


def cut(network: Network, way: Way) -> Cut:
    """The network with a run in strips.

    Parameters
    ----------
    network, way : a run of it
    """
    run, axis = way.run, way.axis
    layers, origins, tensors = list[Layer](), dict[Layer, Layer](), dict[Tensor, Tensor]()
    names = {tensor.name for tensor in network.tensors} | {x.name for x in network.layers}
    for strip in way.spans:
        held, own = needs(network, way, strip), {run.last: run.last}
        for tensor, span in held.items():
            if tensor is not run.last:
                name = _named(tensor.name, span, axis, names)
                height, width = _size(tensor, span, axis)
                own[tensor] = replace(tensor, name=name, height=height, width=width)
                tensors[own[tensor]] = tensor
        for layer in network.layers[run.first : run.end]:
            span = held[layer.output]
            part = replace(
                layer,
                name=_named(layer.name, span, axis, names),
                sources=[_of_strip(source, span, axis, held, own) for source in layer.sources],
                output=own[layer.output],
                region=_region(run.last, span, axis) if layer.output is run.last else None,
                strip=Strip(layer.name, axis, span[0]),
            )
            layers.append(part)
            origins[part] = layer
    layers = [*network.layers[: run.first], *layers, *network.layers[run.end :]]
    return Cut(replace(network, layers=layers), origins, tensors)


def _size(tensor: Tensor, span: Span, axis: int) -> tuple[int, int]:
    """Height and width of some rows or columns of a map."""
    size = span[1] - span[0]
    return (tensor.height, size) if axis else (size, tensor.width)


def _region(tensor: Tensor, span: Span, axis: int) -> Region:
    """Some rows or columns of a map."""
    top, left = (0, span[0]) if axis else (span[0], 0)
    return Region(top, left, *_size(tensor, span, axis))


def _named(name: str, span: Span, axis: int, names: set[str]) -> str:
    """A name of its own for a part of what has a name."""
    what = "columns" if axis else "rows"
    base = found = f"{name} {what} {span[0]}-{span[1] - 1}"
    count = 1
    while found in names:
        count += 1
        found = f"{base}#{count}"
    names.add(found)
    return found


def _of_strip(
    source: Source, span: Span, axis: int, held: dict[Tensor, Span], own: dict[Tensor, Tensor]
) -> Source:
    """A source for a span of its output, from a map that is a strip perhaps."""
    first, end = read(source, span, axis)
    begin, behind = held.get(source.tensor, (0, size_of(source.tensor, axis)))
    padding = list(source.padding)
    padding[axis], padding[axis + 2] = begin - first, end - behind
    top, left, bottom, right = padding
    tensor = own.get(source.tensor, source.tensor)
    return replace(source, tensor=tensor, padding=(top, left, bottom, right))

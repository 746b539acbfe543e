"""Cost of a pruned model: the compiler's own plan and encoding, for any masks, without training.

The model is quantised and lowered once. Masks then remove blocks from the integer weights, and the
network is planned and encoded as ``compile`` does it: the cycles and bytes are those of an image.

Two or three configuration registers hold values that training changes (shifts, clipping). A layer
that needs the values of the layer before does not write them; the cost counts them as written.
Nor does it count on two functions having equal tables. So an image costs this much, or up to a few
words per layer and its equal tables less, whatever is trained in between.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from secateur.capture.steps import Sequence
from secateur.compiler.encode import Encoded
from secateur.compiler.prepare import runnable
from secateur.compiler.room.advice import advising
from secateur.compiler.room.ahead import take_ahead
from secateur.compiler.schedule import Plan
from secateur.compiler.stream.waits import predict
from secateur.compiler.strips.search import Planner
from secateur.errors import SecateurError
from secateur.fx.graph import PRODUCTS, is_call, path_of
from secateur.ir import Layer, Network, Table
from secateur.lowering.lower import lower
from secateur.pruning.units.blocks import nonzero_blocks, prunable_layers, to_mask, weight_of
from secateur.quantisation.calibration import Calibration
from secateur.quantisation.prepare import Graph, quantize
from secateur.target import Target

Kept = Mapping[str, npt.NDArray[np.bool_]]  # module name: (channel groups, positions)


@dataclass(frozen=True)
class Cost:
    """What an image costs.

    Attributes
    ----------
    cycles : per inference
    rom_bytes : of the image
    layer_cycles, layer_bytes : cycles and bytes by name of layer
    plan, encoded : the compiler's
    target : of the image
    """

    cycles: int
    rom_bytes: int
    layer_cycles: dict[str, int]
    layer_bytes: dict[str, int]
    plan: Plan
    encoded: Encoded
    target: Target

    @cached_property
    def waits(self) -> int:
        """Cycles besides, in which an inference waits for the source of the ring, when one follows
        the other at once; 0 without a ring. They take longer to predict than the cycles."""
        geometry, source = self.target.geometry, self.target.source
        if source is None:
            return 0
        return sum(predict(*take_ahead(self.plan, self.encoded, geometry), geometry, source)[-1])

    @property
    def time(self) -> int:
        """Cycles, those of waiting included."""
        return self.cycles + self.waits


class Place(NamedTuple):
    """What a module became.

    Attributes
    ----------
    layer : index of the layer in the network
    source : index of its source
    first : first channel of the layer that it computes
    """

    layer: int
    source: int
    first: int


def module_sources(graph: Graph, network: Network) -> dict[str, list[Place]]:
    """The places in ``network`` that each module of the model became.

    A module that is called twice has two entries. Products outside any module have none.

    Parameters
    ----------
    graph : the converted graph
    network : what ``lower`` made of it
    """
    inner = graph.graph if isinstance(graph, Sequence) else graph
    nodes = {node.name: node for node in inner.graph.nodes}
    found: dict[str, list[Place]] = {}
    for index, layer in enumerate(network.layers):
        first = 0
        for member in layer.members or [layer]:
            products = [nodes[name] for name in member.nodes if is_call(nodes[name], *PRODUCTS)]
            # A layer's nodes stand in reverse order of its sources.
            for number, node in enumerate(reversed(products)):
                name = re.sub(r"@\d+$", "", path_of(node))
                if name:
                    found.setdefault(name, []).append(Place(index, number, first))
            first += member.channels
    return found


def weight_at(network: Network, place: Place, like: torch.Size) -> npt.NDArray[np.int64]:
    """The weights at a place.

    Parameters
    ----------
    network : with the place
    place : of ``module_sources``
    like : shape of the module's weights
    """
    weight = network.layers[place.layer].sources[place.source].weight
    return weight[place.first : place.first + like[0]].reshape(tuple(like))


class CostModel:
    """Cycles and bytes of a model on a target as a function of the blocks that are kept.

    Parameters
    ----------
    model : float model, masks or none; it is quantised once, with ``example`` as calibration
    example : inputs in the model's units, as for `secateur.quantize`; their values do not change
        the cost
    target : geometry

    Attributes
    ----------
    alive : by module, bool (channel groups, positions): blocks with a weight that is not zero in
        the model nor in int8. Only these can be kept.

    Raises
    ------
    SecateurError : the model cannot run on the array
    """

    def __init__(self, model: nn.Module, example: Calibration, target: Target) -> None:
        self.target, self.n = target, target.geometry.n
        graph = quantize(model, example)
        network = runnable(lower(graph), target.geometry)
        self.sources = module_sources(graph, network)
        self.network = _unlike_neighbours(network)
        self._planner = Planner(self.network, target.geometry)
        self.shapes: dict[str, torch.Size] = {}
        self.alive: dict[str, npt.NDArray[np.bool_]] = {}
        for name, layer in prunable_layers(model).items():
            places = self.sources.get(name, [])
            if len(places) != 1:
                continue
            weight = weight_of(layer)
            codes = weight_at(self.network, places[0], weight.shape)
            whole = nonzero_blocks(torch.from_numpy(codes), self.n)
            self.shapes[name] = weight.shape
            self.alive[name] = (whole & nonzero_blocks(weight, self.n).cpu()).numpy()

    def restrict(self, model: nn.Module) -> None:
        """Count blocks that are masked in ``model`` by now as pruned."""
        layers = prunable_layers(model)
        for name, alive in self.alive.items():
            self.alive[name] = alive & nonzero_blocks(weight_of(layers[name]), self.n).cpu().numpy()

    def masked(self, kept: Kept) -> Network:
        """The network with only these blocks in the named modules; others are left as they are.

        Every weight of a kept block counts as nonzero: training may make it so.
        """
        layers = list(self.network.layers)
        for name, blocks in kept.items():
            place = self.sources[name][0]
            like = torch.empty(self.shapes[name])
            mask = to_mask(torch.from_numpy(blocks), like, self.n).numpy() != 0
            codes = weight_at(self.network, place, like.shape)
            codes = np.where(mask, np.where(codes == 0, 1, codes), 0)
            layers[place.layer] = _with_weight(layers[place.layer], place, codes)
        return replace(self.network, layers=layers)

    def cost(self, kept: Kept) -> Cost:
        """Plan and encode; exact."""
        masked = self.masked(kept)
        with advising(masked, self.target):
            planned, encoded = self._planner.plan(masked, check_depth=False)
        names = [layer_plan.layer.name for layer_plan in planned.layers]
        cycles = dict(zip(names, encoded.layer_cycles, strict=True))
        width = self.target.geometry.word_bytes
        stored = {
            name: words * width for name, words in zip(names, encoded.layer_words, strict=True)
        }
        size = encoded.words.size
        return Cost(encoded.cycles, size, cycles, stored, planned, encoded, self.target)

    def check_names(self, names: Mapping[str, object]) -> None:
        """Refuse names that are not a module of the network, or occur in it more than once.

        Raises
        ------
        SecateurError : such a name
        """
        for name in names:
            count = len(self.sources.get(name, []))
            if name not in self.alive or count != 1:
                reason = (
                    f"is called {count} times" if count > 1 else "is not a layer of the network"
                )
                raise SecateurError(
                    f"saliency: {name!r} {reason}, name it in skip; the network has "
                    f"{', '.join(map(repr, self.alive))}"
                )


def _unlike_neighbours(network: Network) -> Network:
    """The network with numbers that differ from layer to layer: never run, only costed."""
    layers = []
    for index, layer in enumerate(network.layers):
        odd = index % 2
        layers.append(
            replace(
                layer,
                sources=[replace(source, wshift=bool(odd)) for source in layer.sources],
                shift=np.full(layer.channels, odd, dtype=np.int64),
                high=layer.high - odd,
                low=layer.low + odd,
                table=None if layer.table is None else _table_of_its_own(layer.table, index),
                members=[_with_table(each, index, at) for at, each in enumerate(layer.members)],
            )
        )
    return replace(network, layers=layers)


def _table_of_its_own(table: Table, index: int, member: int = 0) -> Table:
    entries = np.zeros_like(table.entries)
    entries[:3] = *divmod(index, 256), member
    return replace(table, entries=entries)


def _with_table(member: Layer, index: int, number: int) -> Layer:
    assert member.table is not None  # members are gates
    return replace(member, table=_table_of_its_own(member.table, index, number))


def _with_weight(layer: Layer, place: Place, codes: npt.NDArray[np.int64]) -> Layer:
    sources, first = list(layer.sources), place.first
    weight = sources[place.source].weight.copy()
    weight[first : first + len(codes)] = codes.reshape(-1, *weight.shape[1:])
    sources[place.source] = replace(sources[place.source], weight=weight)
    return replace(layer, sources=sources)

"""The build check: masks = zeros in int8 = blocks that the stream omits, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from secateur.errors import SecateurError
from secateur.image.decode import WITHOUT_WEIGHTS, decode
from secateur.image.image import Image
from secateur.lowering.lower import lower
from secateur.pruning.budget.costing import module_sources, weight_at
from secateur.pruning.units.blocks import prunable_layers, weight_of
from secateur.pruning.units.mask import mask_of
from secateur.quantisation.prepare import Graph


@dataclass(frozen=True)
class MaskCheck:
    """How much was compared.

    Attributes
    ----------
    masked_weights : weights with a mask of 0
    stream_words : words of the stream with weights
    """

    masked_weights: int
    stream_words: int


def check_masks(image: Image, graph: Graph, model: nn.Module) -> MaskCheck:
    """Check that an image omits exactly the blocks that are masked.

    Every masked weight of ``model`` is 0 in the int8 ``graph``. All weights decoded from the stream
    are the graph's. Apart from padding and address moves no word of the stream is a block of zeros.

    Parameters
    ----------
    image : compiled from ``graph``
    graph : the converted graph
    model : the model with its masks (not yet removed)

    Raises
    ------
    SecateurError : one of these does not hold, naming the layer
    """
    network = lower(graph)
    places = module_sources(graph, network)
    masked = 0
    for name, layer in prunable_layers(model).items():
        mask = mask_of(layer)
        for place in places.get(name, []):
            codes = weight_at(network, place, weight_of(layer).shape)
            zero = (mask.mask == 0).cpu().numpy() if mask is not None else np.zeros(1, bool)
            if mask is not None and codes[zero].any():
                raise SecateurError(
                    f"layer {name!r}: {np.count_nonzero(codes[zero])} masked weights are not zero "
                    f"in int8; quantise the masked model again"
                )
            masked += int(zero.sum()) if mask is not None else 0
        if mask is not None and name not in places:
            raise SecateurError(f"layer {name!r} has a mask, but the graph has no such layer")
    return MaskCheck(masked, _check_stream(image, graph))


def _check_stream(image: Image, graph: Graph) -> int:
    decoded = decode(image)
    layers = image.metadata["layers"]
    of = dict[str, list[tuple[str, dict[str, Any]]]]()
    for meta in layers:
        for each in meta.get("members", [meta]):
            of.setdefault(each.get("strip", {}).get("layer", each["name"]), []).append(
                (each["name"], meta)
            )
    words, found_in = 0, dict[str, int]()
    every = ((layer, *each) for layer in lower(graph).layers for each in of[layer.name])
    for layer, name, meta in every:
        stored = 0
        own = iter([weights for weights in decoded if weights.layer == name])
        for source in layer.sources:
            if source.mode in WITHOUT_WEIGHTS:
                continue
            found = next(own)
            if not np.array_equal(found.dense(), source.weight):
                raise SecateurError(
                    f"layer {layer.name!r}: the image's weights are not the graph's; compile it "
                    f"again"
                )
            stored += len(found.matrix.indices)
        if any(source.mode in WITHOUT_WEIGHTS for source in layer.sources):
            continue
        found_in[meta["name"]] = found_in.get(meta["name"], 0) + stored
        words += stored
    for meta in (meta for meta in layers if meta["name"] in found_in):
        stored = found_in[meta["name"]]
        if meta["deal"] != "blocks" and stored != meta["blocks"] * meta["passes"]:
            raise SecateurError(
                f"layer {meta['name']!r}: the stream has {meta['blocks']} blocks, {stored} are not "
                f"zero; compile it again"
            )
    return words

"""The figures of an image that ``secateur inspect`` shows."""

from __future__ import annotations

import math
from typing import Any

from secateur.errors import SecateurError
from secateur.hw import spec
from secateur.image.image import Image


def summary(image: Image) -> dict[str, Any]:
    """Cycles, bound, sizes, layers, memory map and certificate of an image.

    Returns
    -------
    figures : among them ``cycles_dense``, of the same network on the same geometry with every block
        kept; ``bound_cycles``, multiplications by nonzero weights per multiplier; ``fill_cycles``,
        in which tables are filled; ``pixels_only``, with filter lanes the image would not have
        fitted the weight memory; ``strips``: the layers that are computed in strips, and the words
        of the banks that the maps need without, or None; ``states``, names of the tensors that stay
        from one inference, which is then a step, to the next; ``steps`` of the longest sequence in
        the calibration data, 0 if it is not known; ``stream_bits``, all bits that the hardware
        loads; ``dense_weights``, the weights of convolutions, depthwise and dense layers before
        pruning;
        ``interval``: cycles from one inference to the next, ``alone`` if no word of an input came
        before, the layer that ``opens`` the way for them, or ``why`` none does, or None; ``sqnr``,
        signal to quantisation noise of the worst result, if it was measured; ``ring``: its words,
        its source, and the cycles besides in which an inference waits for it, or None

    Raises
    ------
    SecateurError : the image carries no metadata
    """
    metadata = image.metadata
    if "layers" not in metadata:
        raise SecateurError("the image has no metadata to inspect; it was stripped of it")
    layers = metadata["layers"]
    of_model = {layer.get("strip", {}).get("layer", layer["name"]): layer for layer in layers}
    weights = sum(_weights(layer) for layer in of_model.values())
    bits = len(image.words) * 8 * (image.n + 1)
    return {
        "target": metadata["target"],
        "n": image.n,
        "p": image.p,
        "cycles": metadata["cycles"],
        "cycles_dense": metadata["cycles_dense"],
        "bound_cycles": metadata["bound_cycles"],
        "pixels_only": bool(metadata.get("pixels_only", False)),
        "strips": metadata.get("strips"),
        "fill_cycles": sum(layer.get("fill", 0) for layer in layers),
        "states": list(dict.fromkeys(metadata["states"])),
        "steps": metadata.get("steps", 0),
        "input_words": sum(port["words"] for port in metadata["inputs"]),
        "result_beats": sum(len(port["m"]) for port in metadata["outputs"]),
        "stream_bits": bits,
        "dense_weights": weights,
        "bits_per_dense_weight": bits / weights if weights else None,
        "interval": metadata.get("interval"),
        "ring": _ring(metadata),
        "words": len(image.words),
        "weight_words": metadata["weight_words"],
        "blocks": sum(layer["blocks"] for layer in layers),
        "blocks_total": sum(layer["blocks_total"] for layer in layers),
        "layers": layers,
        "memory": metadata["memory"],
        "bank_words": metadata["bank_words"],
        "sqnr": _of_results(metadata),
        "accumulator_limit": 1 << spec.ACC_BITS - 1,
        "source_hash": metadata["source_hash"],
    }


def dense_macs(metadata: dict[str, Any]) -> int:
    """Multiply-accumulates of the network before pruning, a product with a padding zero included.

    Residual adds, products of tensors and pooling are not counted.
    """
    tensors = {tensor["name"]: tensor for tensor in metadata["tensors"]}
    total, done = 0, dict[str, int]()
    for layer in metadata["layers"]:
        where = layer.get("region", tensors[layer["output"]])
        pixels = where["height"] * where["width"]
        if "strip" in layer:  # strips overlap
            name, first, size = (layer["strip"][key] for key in ("layer", "first", "size"))
            begin, end = max(first, done.get(name, 0)), first + size
            done[name] = max(begin, end)
            pixels = pixels // size * max(0, end - begin)
        total += _weights(layer) * pixels
    return total


def _ring(metadata: dict[str, Any]) -> dict[str, Any] | None:
    """The ring and its source, with the waits of an inference."""
    if "ring" not in metadata:
        return None
    waits = [layer["memory_wait"] for layer in metadata["layers"]]
    total = {key: sum(wait[key] for wait in waits) for key in ("full", "next")}
    return {**metadata["ring"], "memory_wait": total}


def _of_results(metadata: dict[str, Any]) -> dict[str, float] | None:
    results = {port["tensor"] for port in metadata["outputs"]}
    found = [x["sqnr"] for x in metadata["layers"] if x["output"] in results and "sqnr" in x]
    return min(found, key=lambda sqnr: sqnr["found"], default=None)


def _weights(layer: dict[str, Any]) -> int:
    """The model's weights in a layer; the lane-wise source of a residual add has none."""
    return sum(
        math.prod(source["shape"])
        for index, source in enumerate(layer["sources"])
        if source["mode"] == "broadcast" or (layer["kind"] == "depthwise" and index == 0)
    )

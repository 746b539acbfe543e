"""The schema of an image's metadata, ``image.md``; checked once, when a file is read."""

from __future__ import annotations

import base64
from math import prod
from typing import Any

import numpy as np

from secateur.hw import spec
from secateur.image.form import bad_form

#: ``range``: an integer in it; ``float``: a number from 0 to 2**63; ``"dB"``: a number of decibels;
#: ``tuple``: one of these;
#: ``dict``: an object with these keys or more; ``[kind]``: a list of any length,
#: ``[kind, range]``: a list whose length is in the range.
Kind = Any

_COUNT = range(1 << 63)
_SIZE = range(1, (1 << 20) + 1)
_MAP_WORD = range(1 << 16)
#: Dimensions of a shape: a product of more sizes could take for ever.
_DIMENSIONS = range(17)
#: Above every count, and far below what overflows.
_MOST = 1 << 63
#: Decibels between any two float64 numbers.
_LOUDEST = 20_000
_EXPONENT = range(-149, 150)  # of powers of two that are float32 numbers

_TENSOR = {
    "channels": _SIZE, "height": _SIZE, "width": _SIZE, "exponent": _EXPONENT, "signed": bool,
    "words": range(1, (1 << 16) + 1), "pitch": _SIZE, "pixel_bytes": _SIZE,
    "origin": range(1 << 20), "fill": range(256), "position": [range(1 << 20)],
}  # fmt: skip
_TRAFFIC = {"body_reads": _COUNT, "lane_words": _COUNT, "other_reads": _COUNT, "pixels": _COUNT}
_SOURCE = {
    "tensor": str, "mode": ("broadcast", "lanewise", "maximum", "gate"),
    "first": _COUNT, "start": _COUNT, "shape": [_SIZE, _DIMENSIONS],
    "dilation": [_SIZE, range(2, 3)],
}  # fmt: skip
_LAYER = {
    "name": str, "kind": str, "deal": str, "cycles": _COUNT, "cycles_dense": _COUNT,
    "traffic": _TRAFFIC, "traffic_dense": _TRAFFIC, "bound_cycles": float, "blocks": _COUNT,
    "blocks_total": _COUNT, "rows": _SIZE, "passes": _SIZE, "lanes_busy": float,
    "certificate": {"accumulator": _COUNT}, "output": str, "first": _COUNT, "channels": _SIZE,
    "lanes": [[range(-1, 1 << 20)]], "sources": [_SOURCE],
}  # fmt: skip
_SCALE = {"channels": _SIZE, "exponent": _EXPONENT, "signed": bool}
_MEMBER = {"name": str, "label": str, "first": _COUNT, "channels": _SIZE}
#: Of the cycles of a layer; the slots are those of all multipliers in the cycles of bodies.
_PARTS = {
    "tables": _COUNT, "setup": _COUNT, "clear": _COUNT, "headers": _COUNT, "body": _COUNT,
    "wait": _COUNT, "tail": _COUNT,
    "slots": {"nonzero": _COUNT, "zero": _COUNT, "move": _COUNT, "idle": _COUNT},
}  # fmt: skip
#: Of an image for a ring.
_CYCLES = range(1, (1 << 20) + 1)
_RING = {"words": range(64, (1 << 16) + 1), "interval": _CYCLES, "latency": range((1 << 20) + 1)}
_WAIT = {"full": _COUNT, "next": _COUNT}
_INTERVAL = {"cycles": range(1, 1 << 63), "alone": range(1, 1 << 63)}
_SQNR = {"found": "dB", "free": "dB"}
_SILENT = {"found": 0, "free": 0}
#: Layers that compute some pixels of their output only.
_STEP = range(-(1 << 16), 1 << 16)
_REGION = {
    "top": range(1 << 16), "left": range(1 << 16), "height": _SIZE, "width": _SIZE,
    "down": [_STEP, range(2, 3)], "right": [_STEP, range(2, 3)],
}  # fmt: skip
_STRIP = {"layer": str, "axis": range(2), "first": range(1 << 16), "size": _SIZE}
_WHOLE = {"layer": "", "axis": 0, "first": 0, "size": 1}
_STRIPS = {"axis": range(2), "count": _SIZE, "first": str, "last": str, "words": _COUNT}
_PORT = _TENSOR | {"name": str, "tensor": str, "shape": [_SIZE, _DIMENSIONS]}
_PORTS = range(1, 1 << 16)
_IMAGE = {
    "target": str, "source_hash": str, "cycles": _COUNT, "cycles_dense": _COUNT,
    "bound_cycles": float, "inputs": [_PORT, _PORTS],
    "outputs": [_PORT | {"m": [_MAP_WORD]}, _PORTS], "arguments": [str],
    "states": [str], "every_step": bool, "tensors": [_TENSOR | {"name": str}], "layers": [_LAYER],
    "memory": [{"tensor": str, "base": _MAP_WORD, "words": _COUNT, "clear": bool}],
    "bank_words": _COUNT, "tables": _COUNT, "weight_words": _COUNT, "s": range(1, spec.MAX_S + 1),
}  # fmt: skip


def problem(metadata: dict[str, Any], n: int, p: int, cycles: int) -> str | None:
    """The first error in the metadata of an image.

    Parameters
    ----------
    metadata : not empty
    n, p, cycles : fields of the image's header

    Returns
    -------
    problem : begins with the key; None if there is no error
    """
    found = _mismatch(metadata, _IMAGE, "")
    if found is not None:
        return found
    if metadata["cycles"] != cycles:
        return f"cycles is {metadata['cycles']}, the header has {cycles}"
    found = _bad_optional(metadata)
    if found is not None:
        return found
    places = {f"tensors[{i}]": tensor for i, tensor in enumerate(metadata["tensors"])}
    ports = {f"{key}[{i}]": p for key in ("inputs", "outputs") for i, p in enumerate(metadata[key])}
    for where, tensor in (places | ports).items():
        found = _bad_layout(tensor, n)
        if found is not None:
            return f"{where}: {found}"
        found = _mismatch(tensor.get("joined", []), [_SCALE], "joined")
        if found is not None:
            return f"{where}.{found}"
    for where, port in ports.items():
        found = _bad_port(port)
        if found is not None:
            return f"{where}.{found}"
    found = _bad_names(metadata)
    if found is not None:
        return found
    if not metadata["layers"]:
        return "layers is empty, expected one or more"
    names = {tensor["name"] for tensor in metadata["tensors"]}
    for index, layer in enumerate(metadata["layers"]):
        if not isinstance(layer.get("label", ""), str):  # version 0.1.0 wrote none
            return f"layers[{index}].label is {_shown(layer['label'])}, expected a text"
        found = _mismatch(layer.get("fill", 0), _COUNT, "fill")
        if "other" in layer:
            found = found or _mismatch(layer["other"], {"deal": str, "cycles": _COUNT}, "other")
        if "ring" in metadata:
            found = found or _mismatch(layer.get("memory_wait"), _WAIT, "memory_wait")
        found = found or _mismatch(layer.get("members", []), [_MEMBER], "members")
        found = found or _bad_parts(layer, n * p)
        found = found or _mismatch(layer.get("sqnr", _SILENT), _SQNR, "sqnr")
        found = found or _bad_region(layer, metadata["tensors"])
        found = found or _mismatch(layer.get("strip", _WHOLE), _STRIP, "strip")
        if found is not None:
            return f"layers[{index}].{found}"
        for name in (layer["output"], *(source["tensor"] for source in layer["sources"])):
            if name not in names:
                return f"layers[{index}]: tensor {_shown(name)} is not in tensors"
    return None


def _bad_optional(metadata: dict[str, Any]) -> str | None:
    """The first error in keys that only some images have."""
    found = _mismatch(metadata.get("pixels_only", False), bool, "pixels_only")
    for key, kind in (("ring", _RING), ("strips", _STRIPS), ("steps", _COUNT)):
        if key in metadata:
            found = found or _mismatch(metadata[key], kind, key)
    return found or _bad_interval(metadata)


def _bad_interval(metadata: dict[str, Any]) -> str | None:
    """The first error in ``interval``, which version 0.1.0 did not write at first."""
    if "interval" not in metadata:
        return None
    given = metadata["interval"]
    said = "opens" if isinstance(given, dict) and "opens" in given else "why"
    return _mismatch(given, _INTERVAL | {said: str}, "interval")


def _bad_port(port: dict[str, Any]) -> str | None:
    """Whether its shape is of the tensor's size, and its exponents of the size of their axis."""
    if prod(port["shape"]) != port["channels"] * port["height"] * port["width"]:
        return f"shape is {_shown(port['shape'])}, not of the tensor's size"
    found = _mismatch(port.get("samples", 0), range(len(port["shape"]) + 1), "samples")
    found = found or _mismatch(port.get("factor", 1.0), float, "factor")
    found = found or _bad_lookup(port)
    if found is None and "factors" in port:
        found = _bad_factors(port)
    if found is not None or "exponents" not in port:
        return found
    found = _mismatch(port.get("axis"), range(3), "axis")
    if found is not None:
        return found
    size = port[("channels", "height", "width")[port["axis"]]]
    return _mismatch(port["exponents"], [_EXPONENT, range(size, size + 1)], "exponents")


def _bad_lookup(port: dict[str, Any]) -> str | None:
    """Whether its table has rows of the last dimension's size, of finite numbers."""
    if "lookup" not in port:
        return None
    found = _mismatch(port["lookup"], {"rows": range(1, 1 << 31), "values": str}, "lookup")
    if found is not None:
        return found
    rows, width = port["lookup"]["rows"], port["shape"][-1]
    try:
        table = np.frombuffer(base64.b64decode(port["lookup"]["values"], validate=True), "<f4")
    except ValueError:
        return "lookup.values is not base64 of float32 numbers"
    if table.size != rows * width:
        return f"lookup.values has {table.size} numbers, expected {rows} rows of {width}"
    return None if np.isfinite(table).all() else "lookup.values are not finite"


def _bad_factors(port: dict[str, Any]) -> str | None:
    """Whether they are of the size of a dimension, and the samples come before it."""
    found = _mismatch(port.get("along"), range(len(port["shape"])), "along")
    if found is None and port.get("samples", 0):
        found = f"samples is {_shown(port['samples'])}, expected 0 with factors"
    if found is not None:
        return found
    size = port["shape"][port["along"]]
    return _mismatch(port["factors"], [float, range(size, size + 1)], "factors")


def _bad_names(metadata: dict[str, Any]) -> str | None:
    """Whether inputs and outputs have names of their own, and the model takes and returns these."""
    for key in ("inputs", "outputs", "arguments"):
        names = metadata[key] if key == "arguments" else [port["name"] for port in metadata[key]]
        if len(set(names)) < len(names):
            return f"{key} have the same name"
        other = [name for name in names if name not in metadata["arguments"]]
        if key == "inputs" and other:
            return f"inputs has {_shown(other[0])}, which is not in arguments"
    found = bad_form(metadata.get("returns"), {port["name"] for port in metadata["outputs"]})
    return None if found is None else f"returns {found}"


def _mismatch(value: Any, kind: Kind, where: str) -> str | None:
    """The first difference between a value and its kind, with the key of it."""
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            return f"{where} is {_shown(value)}, expected an object"
        for key, inner in kind.items():
            inside = f"{where}.{key}" if where else key
            if key not in value:
                return f"{inside} is missing"
            found = _mismatch(value[key], inner, inside)
            if found is not None:
                return found
        return None
    if isinstance(kind, list):
        if not isinstance(value, list):
            return f"{where} is {_shown(value)}, expected a list"
        if len(kind) > 1 and len(value) not in kind[1]:
            return f"{where} has {len(value)} entries, expected {_span(kind[1])}"
        for index, entry in enumerate(value):
            found = _mismatch(entry, kind[0], f"{where}[{index}]")
            if found is not None:
                return found
        return None
    if isinstance(kind, range):
        sound = type(value) is int and value in kind
        wanted = f"an integer from {_span(kind)}"
    elif isinstance(kind, tuple):
        sound, wanted = value in kind, f"one of {', '.join(kind)}"
    elif kind is float:
        sound = type(value) in (int, float) and 0 <= value <= _MOST
        wanted = f"a number from 0 to {_MOST}"
    elif kind == "dB":
        sound = type(value) in (int, float) and abs(value) <= _LOUDEST
        wanted = f"a number from -{_LOUDEST} to {_LOUDEST}"
    else:
        sound = type(value) is kind
        wanted = {str: "a text", bool: "true or false"}[kind]
    return None if sound else f"{where} is {_shown(value)}, expected {wanted}"


def _span(numbers: range) -> str:
    first, last = numbers[0], numbers[-1]
    return f"{first} to {last}" if last > first else str(first)


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _bad_layout(tensor: dict[str, Any], n: int) -> str | None:
    """Whether pixels and channels have bytes of their own within the map's words."""
    position, pixel, pitch = tensor["position"], tensor["pixel_bytes"], tensor["pitch"]
    if len(set(position)) != tensor["channels"] or len(position) != tensor["channels"]:
        return f"position has {len(position)} entries, expected {tensor['channels']}, all different"
    line = (tensor["width"] - 1) * pixel + max(position) + 1
    end = tensor["origin"] + (tensor["height"] - 1) * pitch + line
    if max(position) >= pixel or line > pitch or end > tensor["words"] * n:
        return (
            f"pixels of {pixel} bytes, lines of {pitch} and a map of {tensor['words']} words do "
            f"not hold its {tensor['channels']} channels, {tensor['height']} x {tensor['width']}"
        )
    return None


def _bad_parts(layer: dict[str, Any], multipliers: int) -> str | None:
    """Whether the parts of a layer's cycles are these cycles."""
    for suffix in ("", "_dense"):
        key, cycles = f"parts{suffix}", layer[f"cycles{suffix}"]
        if key not in layer:
            continue
        found = _mismatch(layer[key], _PARTS, key)
        if found is not None:
            return found
        parts = {name: layer[key][name] for name in _PARTS}
        slots = parts.pop("slots")
        if sum(parts.values()) != cycles:
            return f"{key} are {sum(parts.values())} cycles, the layer has {cycles}"
        if sum(slots[name] for name in _PARTS["slots"]) != parts["body"] * multipliers:
            return f"{key}.slots are not {multipliers} for each cycle of body"
    return None


def _bad_region(layer: dict[str, Any], tensors: list[dict[str, Any]]) -> str | None:
    """Whether the pixels that a layer computes are in its output."""
    if "region" not in layer:
        return None
    region = layer["region"]
    found = _mismatch(region, _REGION, "region")
    if found is not None:
        return found
    sizes = [(t["height"], t["width"]) for t in tensors if t["name"] == layer["output"]]
    for axis, first, size in ((0, "top", 0), (1, "left", 1)):
        down = (region["height"] - 1) * region["down"][axis]
        right = (region["width"] - 1) * region["right"][axis]
        ends = [region[first] + i + j for i in (0, down) for j in (0, right)]
        if sizes and not (min(ends) >= 0 and max(ends) < sizes[0][size]):
            return f"region does not lie in the {sizes[0][0]} x {sizes[0][1]} pixels of its output"
    return None

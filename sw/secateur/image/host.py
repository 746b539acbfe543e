"""The host's side of the streams: floats or codes to input words, drained pixels to tensors.

Works from an image's metadata alone, as a driver on a computer or microcontroller would.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from secateur.errors import SecateurError, SecateurWarning

#: Share of clipped inputs above which a warning is given.
CLIPPED = 0.01

Meta = dict[str, Any]
Codes = npt.NDArray[np.int64]


def describe(meta: Meta) -> str:
    """Shape of a tensor as (C, H, W), for messages."""
    return f"({meta['channels']}, {meta['height']}, {meta['width']})"


def _code_range(meta: Meta) -> tuple[int, int]:
    return (-128, 127) if meta["signed"] else (0, 255)


def exponents_of(meta: Meta) -> Codes:
    """Exponents of an input's codes, (C or 1, H or 1, W or 1): one, or one for each place along an
    axis.
    """
    if "exponents" not in meta:
        return np.full((1, 1, 1), meta["exponent"], dtype=np.int64)
    shape = [1, 1, 1]
    shape[meta["axis"]] = -1
    return np.asarray(meta["exponents"], dtype=np.int64).reshape(shape)


def _units(meta: Meta) -> str:
    """What a code counts, for messages."""
    several = {int(exponent) for exponent in exponents_of(meta).ravel()}
    ends = f"2**{min(several)}"
    return ends if len(several) == 1 else f"{ends} to 2**{max(several)}, see its exponents"


def to_codes(values: npt.NDArray[Any], meta: Meta, name: str = "x") -> Codes:
    """Codes of an input.

    Parameters
    ----------
    values : (batch, C, H, W), of signals (batch, C, L), of vectors (batch, C), of more dimensions
        as the model takes them. Floats in the model's units are quantised: round half to even,
        then saturation; int8 or uint8 are codes. Of an input with a table integers, (batch, ...)
        without the last dimension of its shape
    meta : one of the image's ``inputs``
    name : of the input, for messages

    Returns
    -------
    codes : (batch, C, H, W)

    Raises
    ------
    SecateurError : shape or type differ from those of the model's input, or values are not finite
    """
    if "lookup" in meta:
        values = _looked_up(values, meta, name)
    shape = (meta["channels"], meta["height"], meta["width"])
    if values.ndim > 4 and values.shape[1:] == tuple(meta["shape"]):
        values = values.reshape(len(values), *shape)
    if shape[1] == 1 and values.ndim == 3:
        values = values[:, :, None]
    flat = shape[1:] == (1, 1) and values.ndim == 2 and values.shape[1] == shape[0]
    if flat:
        values = values[:, :, None, None]
    if values.ndim != 4 or values.shape[1:] != shape:
        takes = ", ".join(map(str, meta["shape"] if len(meta["shape"]) > 3 else shape))
        raise SecateurError(
            f"input {name!r} has shape {tuple(values.shape)}, the model takes (batch, {takes})"
        )
    low, high = _code_range(meta)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise SecateurError(f"input {name!r} holds values that are not finite")
        exponents = exponents_of(meta)
        # In two steps, as the model's graph does: the first is to the exponent of the tensor.
        scaled = np.ldexp(values.astype(np.float32), meta["exponent"] - exponents)
        scaled = scaled * np.float32(2.0 ** -meta["exponent"])
        _warn_of_clipping(name, scaled, low, high, exponents)
        codes: Codes = np.clip(np.rint(scaled), low, high).astype(np.int64)
        return codes
    wanted = "int8" if meta["signed"] else "uint8"
    if values.dtype.name != wanted:
        raise SecateurError(
            f"input {name!r} is {values.dtype.name}; the model takes floats in its own units, or "
            f"{wanted} codes of {_units(meta)}"
        )
    return values.astype(np.int64)


def _looked_up(values: npt.NDArray[Any], meta: Meta, name: str) -> npt.NDArray[np.float32]:
    """The rows of an input's table, (batch, *shape)."""
    rows, shape = meta["lookup"]["rows"], tuple(meta["shape"])
    if values.dtype.kind not in "iu":
        raise SecateurError(
            f"input {name!r} is {values.dtype.name}; the model takes integers: rows of an embedding"
        )
    if values.shape[1:] != shape[:-1]:
        takes = ", ".join(["batch", *map(str, shape[:-1])])
        raise SecateurError(f"input {name!r} has shape {values.shape}, the model takes ({takes})")
    if values.size and (int(values.min()) < 0 or int(values.max()) >= rows):
        raise SecateurError(
            f"input {name!r} has integers from {values.min()} to {values.max()}; the model's "
            f"embedding has rows 0 to {rows - 1}"
        )
    table = np.frombuffer(base64.b64decode(meta["lookup"]["values"]), "<f4")
    found: npt.NDArray[np.float32] = table.reshape(rows, shape[-1])[values]
    return found


def _warn_of_clipping(
    name: str, scaled: npt.NDArray[np.float32], low: int, high: int, exponents: Codes
) -> None:
    """Warn if more than CLIPPED of the inputs are far out of range, probably in other units.

    Values up to a quarter of the range beyond it are normal: calibration clips them on purpose.
    """
    margin = (high - low) / 4
    share = float(np.mean((scaled < low - margin) | (scaled > high + margin)))
    if share > CLIPPED:
        scale = 2.0 ** int(exponents.max())
        at_most = "at most " if exponents.size > 1 else ""
        warnings.warn(
            f"input {name!r}: {share:.1%} of the values are clipped to {at_most}{low * scale:g} .. "
            f"{high * scale:g}; are they in the model's own units?",
            SecateurWarning,
            stacklevel=3,
        )


def pack(codes: Codes, meta: Meta, n: int) -> npt.NDArray[np.uint8]:
    """(batch, words * N) bytes of the padded map that LOAD takes.

    Parameters
    ----------
    codes : (batch, C, H, W)
    meta : one of the image's ``inputs``
    n : bytes of an input word
    """
    batch, _, height, width = codes.shape
    packed = np.full((batch, meta["words"] * n), meta["fill"], dtype=np.uint8)
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    pixels = meta["origin"] + y * meta["pitch"] + x * meta["pixel_bytes"]
    for channel, position in enumerate(meta["position"]):
        packed[:, pixels + position] = codes[:, channel].astype(np.uint8)
    return packed


def unpack(
    m: npt.NDArray[np.int64],
    words: npt.NDArray[np.uint8],
    meta: Meta,
    first: int,
    count: int,
    region: Meta | None = None,
) -> Codes:
    """(batch, count, H, W) codes from drained pixels.

    Parameters
    ----------
    m : (pixels,) map words in drain order
    words : (batch, pixels, N) bytes
    meta : layout of the tensor
    first, count : the channels that the layer writes
    region : the pixels that it writes, None for all

    Raises
    ------
    SecateurError : the pixels do not cover the channels exactly once
    """
    batch, _, n = words.shape
    byte = m[:, None] * n + np.arange(n) - meta["origin"]
    y, rest = np.divmod(byte, meta["pitch"])
    x, at = np.divmod(rest, meta["pixel_bytes"])
    channel_at = np.full(meta["pixel_bytes"], -1, dtype=np.int64)
    channel_at[np.asarray(meta["position"])] = np.arange(meta["channels"])
    channel = channel_at[at] - first
    height, width = meta["height"], meta["width"]
    wanted = (channel_at[at] >= 0) & (channel >= 0) & (channel < count)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    if inside.all() and region is not None:
        height, width = region["height"], region["width"]
        y, x = _in_region(y, x, region, (meta["height"], meta["width"]))
        inside = y >= 0
    if not inside.all() or int(wanted.sum()) != count * height * width:
        raise SecateurError("the drained pixels do not cover the layer's tensor exactly once")
    codes = np.zeros((batch, count, height, width), dtype=np.int64)
    kind = np.int8 if meta["signed"] else np.uint8
    values = words.view(kind).astype(np.int64)
    codes[:, channel[wanted], y[wanted], x[wanted]] = values[:, wanted]
    return codes


def _in_region(y: Codes, x: Codes, region: Meta, size: tuple[int, int]) -> tuple[Codes, Codes]:
    """Row and column in a region of pixels of a map of ``size``; -1 where they are not."""
    i, j = np.indices((region["height"], region["width"]))
    rows = region["top"] + i * region["down"][0] + j * region["right"][0]
    columns = region["left"] + i * region["down"][1] + j * region["right"][1]
    at = np.full((2, *size), -1, dtype=np.int64)
    at[:, rows, columns] = i, j
    return at[0, y, x], at[1, y, x]


def layer_codes(
    m: npt.NDArray[np.int64], words: npt.NDArray[np.uint8], layer: Meta, tensor: Meta
) -> Iterator[tuple[str, Codes]]:
    """Name and codes (batch, C, H, W) of a layer of the image, or of each of its members.

    Parameters
    ----------
    m, words : map words of its pixels, and their bytes (batch, pixels, N)
    layer : one of the image's ``layers``
    tensor : that of ``tensors`` which it writes
    """
    codes = unpack(m, words, tensor, layer["first"], layer["channels"], layer.get("region"))
    if "members" not in layer:
        yield layer["name"], codes
    ends = np.cumsum([part["channels"] for part in tensor.get("joined", [])])
    for member in layer.get("members", []):
        first = member["first"]
        part = tensor["joined"][int((ends <= layer["first"] + first).sum())]
        kind = np.int8 if part["signed"] else np.uint8
        own = codes[:, first : first + member["channels"]]
        yield member["name"], own.astype(np.uint8).view(kind).astype(np.int64)


def expected_codes(expected: dict[str, Codes], layer: Meta, name: str) -> Codes | None:
    """What the model computes where `layer_codes` yields a name: all of a layer, or a strip.

    Parameters
    ----------
    expected : (batch, C, H, W) codes of the model's layers
    layer : of the image, one of its ``layers``
    name : with the codes that it computes

    Returns
    -------
    codes : None if no layer of the model stands behind it
    """
    if "strip" not in layer:
        return expected.get(name)
    strip = layer["strip"]
    whole = expected.get(strip["layer"])
    part = slice(strip["first"], strip["first"] + strip["size"])
    if whole is None:
        return None
    return whole[:, :, :, part] if strip["axis"] else whole[:, :, part]


def result_codes(words: npt.NDArray[np.uint8], meta: Meta) -> npt.NDArray[Any]:
    """int8 or uint8 codes of an output, (batch, *shape), or with the batch where the model has it.

    Parameters
    ----------
    words : (batch, beats, N) bytes of it
    meta : one of the image's ``outputs``
    """
    m = np.asarray(meta["m"], dtype=np.int64)
    codes = unpack(m, words, meta, 0, meta["channels"])
    kind = np.int8 if meta["signed"] else np.uint8
    codes = codes.reshape(len(words), *meta["shape"]).astype(kind)
    return np.moveaxis(codes, 0, meta.get("samples", 0))


def by_output(
    words: npt.NDArray[np.uint8], outputs: list[Meta]
) -> Iterator[tuple[Meta, npt.NDArray[np.uint8]]]:
    """The outputs, each with its beats (batch, beats, N): they follow each other in the stream.

    Parameters
    ----------
    words : (batch, beats, N) bytes of the result stream
    outputs : the image's ``outputs``
    """
    first = 0
    for meta in outputs:
        yield meta, words[:, first : first + len(meta["m"])]
        first += len(meta["m"])


def to_floats(codes: npt.NDArray[Any], meta: Meta) -> npt.NDArray[np.float32]:
    """Values of codes, in the model's units."""
    # In two steps, as the model's graph does.
    values = codes.astype(np.float32) * np.float32(2.0 ** meta["exponent"])
    if "factors" not in meta:
        return values * np.float32(meta.get("factor", 1.0))
    sizes = [1] * values.ndim
    sizes[meta["along"] - len(meta["shape"])] = -1  # behind the samples, and perhaps steps
    return values * np.asarray(meta["factors"], np.float32).reshape(sizes)

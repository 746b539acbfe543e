"""Decode an image to the weight matrices that the array multiplies by, as SciPy's BSR.

Shares nothing with the encoder but the contract; used to check that an image holds the very
weights of the quantised model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from secateur.errors import SecateurError
from secateur.hw import spec
from secateur.hw.spec import Reg
from secateur.image.image import Image

#: Modes of sources that have no weights in the stream.
WITHOUT_WEIGHTS = ("maximum", "gate")


@dataclass(frozen=True)
class Weights:
    """Weights of one source of a layer.

    Attributes
    ----------
    layer : name
    mode : broadcast or lanewise
    shape : of the model's weights
    matrix : (rows * N, taps) int8 with blocks of (N, 1), in the order of the lanes; tap
        ``(c * kh + y) * kw + x`` of a broadcast source, ``y * kw + x`` of a lane-wise one
    lanes : (rows * N,) output channel of each matrix row, -1 for none
    """

    layer: str
    mode: str
    shape: tuple[int, ...]
    matrix: scipy.sparse.bsr_matrix
    lanes: npt.NDArray[np.int64]

    def dense(self) -> npt.NDArray[np.int64]:
        """The weight tensor in the model's own shape and order of channels."""
        used = self.lanes >= 0
        full = np.zeros((int(used.sum()), self.matrix.shape[1]), dtype=np.int64)
        full[self.lanes[used]] = self.matrix.toarray()[used]
        return full.reshape(self.shape)


@dataclass(frozen=True)
class _Word:
    """A nonzero stream word, and the address of the block that it reads."""

    source: int
    kernel_row: int
    offset: int
    flat: bool
    weights: npt.NDArray[np.int8]


def _row_groups(image: Image) -> Iterator[tuple[bool, list[list[_Word]]]]:
    """(whether it is the last of its layer, nonzero words by row) of every row group, in order."""
    words, n = image.words, image.n
    at, side = -(-spec.HEADER.size // (n + 1)), 0
    registers = np.zeros(1 << 7, "<u2")  # those that do not exist, too
    while at < len(words):
        if not side:
            index = words[at, n] & spec.COMMON_REGISTER
            registers[index : index + n // 2] = words[at, :n].view("<u2")
            at += 1
            if words[at - 1, n] & spec.COMMON_START:
                filters = registers[Reg.FLAGS2] >> spec.FLAG2_FILTERS & 1
                side = image.s if filters else 1
                at = -(-at // side) * side
            continue
        body = at + 2 * side
        if body > len(words):
            raise SecateurError("the image ends within a row header; compile the model again")
        low, high = int(words[at, n]), int(words[at + side, n])
        count = low | (high & ~spec.ROW_LAST) << 8
        if registers[Reg.FLAGS2] >> spec.FLAG2_TABLES & 1:
            count &= (1 << spec.ROW_TABLE_COUNT_BITS) - 1
        at = body + side * count
        lanes = range(body, body + side)
        rows = [list(_body(words[lane:at:side], n, side > 1)) for lane in lanes]
        yield bool(high & spec.ROW_LAST), rows
        side = 0 if high & spec.ROW_LAST else side


def _body(words: npt.NDArray[np.uint8], n: int, flat: bool) -> Iterator[_Word]:
    """Nonzero words; with ``flat``, offsets go on from one kernel row to the next."""
    source = kernel_row = offset = 0
    for word in words:
        step = int(word[n])
        if step < spec.STEP_ADD_LIMIT:
            offset += step
        else:
            switch = step >= spec.STEP_SOURCE
            offset = (offset if flat and not switch else 0) + (step & spec.STEP_FIELD)
            source, kernel_row = (1, 0) if switch else (source, kernel_row + 1)
        if word[:n].any():
            yield _Word(source, kernel_row, offset, flat, word[:n].view(np.int8))


def _column(word: _Word, meta: dict[str, Any], tensor: dict[str, Any], n: int) -> int:
    pixel = meta["dilation"][1] * tensor["pixel_bytes"]
    kernel_height, kernel_width = meta["shape"][-2:]
    offset = word.offset * (1 if meta["mode"] == "broadcast" else n)
    if word.flat:
        last = (kernel_width - 1) * pixel
        offset -= word.kernel_row * (last + tensor["pixel_bytes"])
    if meta["mode"] != "broadcast":
        return int(word.kernel_row * kernel_width + offset // pixel)
    x, position = divmod(offset, pixel)
    channel = tensor["position"].index(position + meta["start"]) - meta["first"]
    return int((channel * kernel_height + word.kernel_row) * kernel_width + x)


def decode(image: Image, *, apart: bool = True) -> list[Weights]:
    """All weights of an image, per layer and source, from its stream.

    Max pooling and gates have no weights and are omitted. Metadata only give the shape of the
    model's weights and the places of channels.

    Parameters
    ----------
    image : with metadata
    apart : of gates that are one layer, the weights of each

    Raises
    ------
    SecateurError : the stream and the metadata contradict each other
    """
    if "layers" not in image.metadata:
        raise SecateurError("the image has no metadata: it can run, but not be decoded to layers")
    try:
        return _decode(image, apart)
    except SecateurError:
        raise
    except (ValueError, IndexError, ArithmeticError):  # of sizes and channels that do not fit
        raise SecateurError(
            "the image's stream and its metadata contradict each other; compile the model again"
        ) from None


def _decode(image: Image, apart: bool) -> list[Weights]:
    n, metadata = image.n, image.metadata
    groups = _row_groups(image)
    tensors = {tensor["name"]: tensor for tensor in metadata["tensors"]}
    found = []
    for layer in metadata["layers"]:
        bodies, side = list[list[_Word]](), 1
        for last, rows in groups:
            bodies, side = bodies + rows, len(rows)
            if last:
                break
        if -(-layer["rows"] // side) * side != len(bodies):
            raise SecateurError(
                f"layer {layer['name']!r}: {len(bodies)} rows in the stream, {layer['rows']} "
                f"expected; compile the model again"
            )
        bodies = bodies[: layer["rows"]]  # the last row group may have rows of no channel
        lanes = np.array(layer["lanes"], dtype=np.int64)
        bodies = bodies * (len(lanes) // len(bodies))  # one row may serve all channels
        for index, meta in enumerate(layer["sources"]):
            if meta["mode"] in WITHOUT_WEIGHTS:
                continue
            own = [[word for word in words if word.source == index] for words in bodies]
            columns = [
                [_column(word, meta, tensors[meta["tensor"]], n) for word in words] for words in own
            ]
            if layer["passes"] > 1:
                taps, rest = divmod(meta["shape"][-2] * meta["shape"][-1], layer["passes"])
                if rest or not taps:
                    raise ValueError
                steps = range(layer["passes"])
                columns = [[c + z * taps for z in steps for c in row] for row in columns]
                own = [row * layer["passes"] for row in own]
            found += [
                Weights(name, meta["mode"], shape, _matrix(own, columns, shape, part), part.ravel())
                for name, own, columns, part, shape in _parts(
                    layer, own, columns, lanes, meta["shape"], apart
                )
            ]
    return found


def _parts(
    layer: dict[str, Any],
    words: list[list[_Word]],
    columns: list[list[int]],
    lanes: npt.NDArray[np.int64],
    whole: list[int],
    apart: bool,
) -> Iterator[
    tuple[str, list[list[_Word]], list[list[int]], npt.NDArray[np.int64], tuple[int, ...]]
]:
    """Name, rows and shape of the members of a layer, or of itself."""
    members = layer.get("members", []) if apart else []
    if not members:
        yield layer["name"], words, columns, lanes, tuple(whole)
    for member in members:
        own = lanes - member["first"]
        own[(own < 0) | (own >= member["channels"])] = -1
        rows = np.flatnonzero((own >= 0).any(axis=1)).tolist()
        shape = (member["channels"], *whole[1:])
        yield member["name"], [words[r] for r in rows], [columns[r] for r in rows], own[rows], shape


def _matrix(
    words: list[list[_Word]],
    columns: list[list[int]],
    shape: tuple[int, ...],
    lanes: npt.NDArray[np.int64],
) -> scipy.sparse.bsr_matrix:
    n = lanes.shape[1]
    data = [
        word.weights * (lane >= 0) for row, lane in zip(words, lanes, strict=True) for word in row
    ]
    blocks = np.array(data, dtype=np.int8).reshape(-1, n, 1)
    pointers = np.cumsum([0, *(len(row) for row in columns)])
    indices = np.array([column for row in columns for column in row], dtype=np.int64)
    taps = int(np.prod(shape[1:]))
    matrix = scipy.sparse.bsr_matrix((blocks, indices, pointers), shape=(lanes.size, taps))
    matrix.sort_indices()
    return matrix

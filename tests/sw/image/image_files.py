"""Small image files made by hand, from ``stream.md`` and ``image.md``."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

TENSOR = {
    "name": "x", "channels": 2, "height": 1, "width": 1, "exponent": 0, "signed": False,
    "words": 1, "pitch": 2, "pixel_bytes": 2, "origin": 0, "fill": 0, "position": [0, 1],
}  # fmt: skip
PORT = TENSOR | {"tensor": "x", "shape": [2]}
TRAFFIC = {"body_reads": 8, "lane_words": 8, "other_reads": 3, "pixels": 1}
SOURCE = {
    "tensor": "x", "mode": "broadcast", "first": 0, "start": 0, "shape": [2, 2, 1, 1],
    "dilation": [1, 1],
}  # fmt: skip
LAYER = {
    "name": "fc", "kind": "dense", "deal": "tile", "cycles": 900, "cycles_dense": 900,
    "traffic": TRAFFIC, "traffic_dense": TRAFFIC, "bound_cycles": 4.0, "blocks": 2,
    "blocks_total": 2, "rows": 1, "passes": 1, "lanes_busy": 1.0,
    "certificate": {"accumulator": 5}, "output": "x", "first": 0, "channels": 2,
    "lanes": [[0, 1]], "sources": [SOURCE],
}  # fmt: skip
#: What ``image.md`` asks for, of a layer of 2 x 2 weights.
METADATA: dict[str, Any] = {
    "target": "t", "source_hash": "0" * 64, "cycles": 1000, "cycles_dense": 1000,
    "bound_cycles": 4.0, "inputs": [PORT], "outputs": [PORT | {"m": [0]}],
    "arguments": ["x"], "returns": "x",
    "states": [], "every_step": False, "tensors": [TENSOR], "layers": [LAYER],
    "memory": [{"tensor": "x", "base": 0, "words": 1, "clear": False}],
    "bank_words": 16, "tables": 0, "s": 1, "weight_words": 4096,
}  # fmt: skip


def image_file(words: Bytes, metadata: dict[str, Any] | bytes | None) -> bytes:
    """The file of an image for P = 1; ``words`` (words, N + 1) stand behind its header."""
    size = words.shape[1]
    header_words = -(-24 // size)
    total = header_words + len(words)
    header = struct.pack("<4sBBBBIIII", b"SECT", 4, size - 1, 1, 0, total, 16, 1000, 0)
    stream = header.ljust(header_words * size, b"\0") + words.tobytes()
    stream = stream[:20] + struct.pack("<I", zlib.crc32(stream)) + stream[24:]
    if metadata is None:
        return stream
    text = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    return stream + trailed(text)


def trailed(metadata: bytes) -> bytes:
    """Metadata and the line behind them."""
    return metadata + f"\n{zlib.crc32(metadata):08x}\n".encode()


def resealed(stream: bytes) -> bytes:
    """A stream, header included, whose number of words and CRC-32 are right, if it has any."""
    words = len(stream) // (stream[5] + 1)
    stream = stream[: words * (stream[5] + 1)]
    if len(stream) < 24:
        return stream
    blank = stream[:8] + struct.pack("<I", words) + stream[12:20] + bytes(4) + stream[24:]
    return blank[:20] + struct.pack("<I", zlib.crc32(blank)) + blank[24:]


def parts(image: bytes) -> tuple[bytes, dict[str, Any]]:
    """Stream and metadata of a file."""
    size = int.from_bytes(image[8:12], "little") * (image[5] + 1)
    return image[:size], json.loads(image[size:-10])


def altered(image: bytes, changes: dict[str, object]) -> bytes:
    """The file with other metadata under a right CRC: values by dotted key, None removes it."""
    stream, metadata = parts(image)
    for dotted, value in changes.items():
        inside: Any = metadata
        *keys, last = dotted.split(".")
        for key in keys:
            inside = inside[int(key) if isinstance(inside, list) else key]
        inside[last] = value
        if value is None:
            del inside[last]
    return stream + trailed(json.dumps(metadata).encode())


def random_words(count: int, n: int, seed: int) -> Bytes:
    """Words of small weights; common bytes are steps as of a pruned layer."""
    rng = np.random.default_rng(seed)
    words = rng.normal(0, 20, (count, n + 1)).astype(np.int8).astype(np.uint8)
    words[:, -1] = rng.integers(1, 9, count)
    return words

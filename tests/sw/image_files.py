"""Small image files made by hand, from ``docs/stream.md`` and ``docs/image.md``."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


def image_file(words: Bytes, metadata: dict[str, Any] | bytes | None) -> bytes:
    """The file of an image for P = 1; ``words`` (words, N + 1) stand behind its header."""
    size = words.shape[1]
    header_words = -(-24 // size)
    total = header_words + len(words)
    header = struct.pack("<4sBBBBIIII", b"SECT", 1, size - 1, 1, 0, total, 16, 1000, 0)
    stream = header.ljust(header_words * size, b"\0") + words.tobytes()
    stream = stream[:20] + struct.pack("<I", zlib.crc32(stream)) + stream[24:]
    if metadata is None:
        return stream
    text = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    return stream + text + f"\n{zlib.crc32(text):08x}\n".encode()


def random_words(count: int, n: int, seed: int) -> Bytes:
    """Words of small weights; common bytes are steps as of a pruned layer."""
    rng = np.random.default_rng(seed)
    words = rng.normal(0, 20, (count, n + 1)).astype(np.int8).astype(np.uint8)
    words[:, -1] = rng.integers(1, 9, count)
    return words

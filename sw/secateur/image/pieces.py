"""The new file from the old one and the body of a patch: pieces of both, one behind the other."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from secateur.ir import Ints

#: operations, words among the differences; three arrays of int32 follow: skip, copied, inserted.
BODY = struct.Struct("<II")
#: Bytes of a new file that are made at once.
_BLOCK = 1 << 20

Bytes = npt.NDArray[np.uint8]


def rebuild(old: bytes, body: bytes, word: int, size: int) -> bytes | None:
    """The new file, or None if the operations do not add up to ``size`` bytes.

    Parameters
    ----------
    old : the old file
    body : of the patch, unpacked
    word : bytes of a stream word
    size : bytes of the new file
    """
    count, words = BODY.unpack_from(body)
    if BODY.size + 12 * count > len(body):
        return None
    skips, copies, inserts = (
        np.frombuffer(body, "<i4", 3 * count, BODY.size).astype(np.int64).reshape(3, count)
    )
    rest = np.frombuffer(body, np.uint8, offset=BODY.size + 12 * count)
    copied, inserted = int(copies.sum()), int(inserts.sum())
    begins = np.cumsum(skips + copies) - copies
    ends = begins + copies
    sound = (copies >= 0).all() and (inserts >= 0).all() and (begins >= 0).all()
    if not sound or (ends > len(old)).any() or words * word > copied:
        return None
    if copied + inserted != size or len(rest) != size:
        return None
    planes = rest[: words * word].reshape(word, words).T
    differences = np.concatenate([planes.ravel(), rest[words * word : copied]])
    pool = np.concatenate([np.frombuffer(old, np.uint8), rest[copied:]])
    literals = len(old) + np.cumsum(inserts) - inserts
    return _gather(
        pool,
        differences,
        np.stack([begins, literals], axis=1).ravel(),
        np.stack([copies, inserts], axis=1).ravel(),
    )


def _gather(pool: Bytes, differences: Bytes, origins: Ints, lengths: Ints) -> bytes:
    """Pieces of ``pool``, one behind the other; every other one, from the first on, is a copy, to
    which its differences are added.

    A block at a time: a patch of few bytes may have millions of pieces.
    """
    ends = np.cumsum(lengths)
    size, taken = int(ends[-1]) if len(ends) else 0, 0
    copied = np.arange(len(lengths)) % 2 == 0
    new = np.zeros(size, np.uint8)
    for at in range(0, size, _BLOCK):
        stop = min(at + _BLOCK, size)
        first, last = np.searchsorted(ends, at, "right"), np.searchsorted(ends, stop, "left")
        part = slice(first, last + 1)
        begins = ends[part] - lengths[part]
        counts = np.minimum(ends[part], stop) - np.maximum(begins, at)
        data = pool[np.repeat(origins[part] - begins, counts) + np.arange(at, stop)]
        copies = np.repeat(copied[part], counts)
        many = int(copies.sum())
        data[copies] += differences[taken : taken + many]
        new[at:stop], taken = data, taken + many
    return new.tobytes()

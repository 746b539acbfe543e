"""Patches turn one image file into another, compressed and checked (``updates.md``).

A fine-tuned model differs from the one before in the last bits of many weights, and in few steps.
So a patch copies words of the old stream and adds small differences to their bytes; words that
have no counterpart are inserted. Words are matched by their common bytes.

References
----------
C. Percival, "Naive differences of executable code", 2003.
"""

from __future__ import annotations

import hashlib
import itertools
import lzma
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from secateur.disk.storage import read, write_atomically
from secateur.errors import SecateurError
from secateur.image import image as images
from secateur.image import signing
from secateur.image.image import LIMIT, Image
from secateur.image.pieces import BODY, Bytes, rebuild
from secateur.ir import Ints

MAGIC = b"SECD"
VERSION = 1
#: magic, version, bytes of a stream word, 0, sizes of the old file, the new file and the body,
#: SHA-256 of the old and of the new file; little-endian. LZMA2 data and a CRC-32 follow.
HEADER = struct.Struct("<4sBBHIII32s32s")
CRC = struct.Struct("<I")
_FILTERS: list[dict[str, Any]] = [
    {"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0}
]

#: Where the common bytes differ, this many words each way are tried ...
_REACH = 64
#: ... and this many words ahead are compared, byte by byte: near if they differ by _NEAR at most.
_AHEAD = 16
_NEAR = 2
#: Least bytes of metadata that are worth a copy.
_TEXT = 12


@dataclass(frozen=True)
class Operation:
    """Copy ``copied`` bytes from byte ``at`` of the old file, then insert ``inserted`` new ones."""

    at: int
    copied: int
    inserted: int


def make(old: bytes, new: bytes, names: tuple[str, str] = ("old", "new")) -> bytes:
    """A patch that turns one image file into another, byte for byte.

    Parameters
    ----------
    old, new : contents of the files
    names : of both, for messages

    Raises
    ------
    SecateurError : one of them is not a sound image file, or is larger than LIMIT
    """
    for data, name in zip((old, new), names, strict=True):
        if len(data) > LIMIT:
            raise SecateurError(f"{name}: {len(data)} bytes; a patch is for {LIMIT} at most")
    before, after = (images.parse(data, name) for data, name in zip((old, new), names, strict=True))
    word = after.n + 1
    operations = _stream_operations(before, after)
    copied_words = sum(operation.copied for operation in operations) // word
    split = (before.words.size, after.words.size)
    operations += _text_operations(old[split[0] :], new[split[1] :], split[0])
    body = _body(old, new, operations, copied_words, word)
    digests = (hashlib.sha256(data).digest() for data in (old, new))
    header = HEADER.pack(MAGIC, VERSION, word, 0, len(old), len(new), len(body), *digests)
    packed = header + compress(body)
    return packed + CRC.pack(zlib.crc32(packed))


def _body(
    old: bytes, new: bytes, operations: list[Operation], copied_words: int, word: int
) -> bytes:
    source, target = (np.frombuffer(data, np.uint8) for data in (old, new))
    differences, literals, table = [], [], []
    at, end = 0, 0
    for operation in operations:
        copy = slice(operation.at, operation.at + operation.copied)
        differences.append(target[at : at + operation.copied] - source[copy])
        at += operation.copied
        literals.append(target[at : at + operation.inserted])
        at += operation.inserted
        table.append((operation.at - end, operation.copied, operation.inserted))
        end = copy.stop
    none = [np.zeros(0, np.uint8)]
    difference = np.concatenate(differences + none)
    planes = difference[: copied_words * word].reshape(-1, word).T
    numbers = np.array(table, "<i4").reshape(-1, 3).T
    parts = (numbers, planes, difference[planes.size :], np.concatenate(literals + none))
    return BODY.pack(len(table), copied_words) + b"".join(part.tobytes() for part in parts)


def _stream_operations(before: Image, after: Image) -> list[Operation]:
    """Operations in whole words. Greedy: words stay together while their common bytes are equal."""
    old, new = before.words, after.words
    size, count = new.shape[1], len(new)
    sources = np.full(count, -1)
    at, shift = 0, 0
    while old.shape[1] == size and at < count:
        equal = _equal_steps(old, new, at, shift)
        sources[at : at + equal] = np.arange(at, at + equal) + shift
        at += equal
        if at == count:
            break
        found = _best_shift(old, new, at, shift)
        if found is None or found == shift:
            if found is not None and at + shift < len(old):
                sources[at] = at + shift  # a word that changed in its place
            at += 1
        else:
            shift = found
    return [Operation(o.at * size, o.copied * size, o.inserted * size) for o in _runs(sources)]


def _runs(sources: Ints) -> list[Operation]:
    """Operations of a list that names the source of every element, -1 for none."""
    here, there = sources[:-1], sources[1:]
    breaks = np.flatnonzero(np.where(here < 0, there >= 0, there != here + 1))
    edges = [0, *(breaks + 1).tolist(), len(sources)] if sources.size else []
    operations = list[Operation]()
    for begin, end in itertools.pairwise(edges):
        source, length = int(sources[begin]), end - begin
        if source >= 0:
            operations.append(Operation(source, length, 0))
        elif operations:
            last = operations.pop()
            operations.append(Operation(last.at, last.copied, length))
        else:
            operations.append(Operation(0, 0, length))
    return operations


def _equal_steps(old: Bytes, new: Bytes, at: int, shift: int) -> int:
    """Words from ``at`` on whose common bytes equal those of the old words ``shift`` further."""
    length = min(len(new) - at, len(old) - at - shift)
    if at + shift < 0 or length <= 0:
        return 0
    same = new[at : at + length, -1] == old[at + shift : at + shift + length, -1]
    return length if same.all() else int(same.argmin())


def _best_shift(old: Bytes, new: Bytes, at: int, shift: int) -> int | None:
    """The shift with the most bytes that are near over the words ahead; the present one if equal.

    None if not half of them are.
    """
    ahead = new[at : at + _AHEAD]
    length = len(ahead)
    first = max(0, at + shift - _REACH)
    last = min(len(old) - length, at + shift + _REACH)
    if last < first:
        return None
    windows = np.lib.stride_tricks.sliding_window_view(old[first : last + length], length, axis=0)
    distance = windows.transpose(0, 2, 1) - ahead  # modulo 256
    near = (distance + np.uint8(_NEAR) <= 2 * _NEAR).sum(axis=(1, 2))
    shifts = np.arange(first, last + 1) - at
    best = int(np.lexsort((abs(shifts - shift), -near))[0])
    return int(shifts[best]) if 2 * near[best] >= ahead.size else None


def _text_operations(old: bytes, new: bytes, base: int) -> list[Operation]:
    """Operations for the metadata: exact copies of _TEXT bytes or more, the rest inserted."""
    places = {old[at : at + _TEXT]: at for at in range(len(old) - _TEXT, -1, -1)}
    sources = np.full(len(new), -1)
    at, shift = 0, 0
    while at < len(new):
        # text where the last copy ended is preferred to the same text elsewhere
        here, wanted = at + shift, new[at : at + _TEXT]
        source = here if here >= 0 and old[here : here + _TEXT] == wanted else places.get(wanted)
        length = 0 if source is None else _equal_bytes(old, new, source, at)
        if source is None or length < _TEXT:
            at += 1
            continue
        sources[at : at + length] = np.arange(source, source + length)
        shift = source - at
        at += length
    return [Operation(base + o.at, o.copied, o.inserted) for o in _runs(sources)]


def _equal_bytes(old: bytes, new: bytes, source: int, at: int) -> int:
    length = min(len(old) - source, len(new) - at)
    a, b = (np.frombuffer(data, np.uint8, length, o) for data, o in ((old, source), (new, at)))
    same = a == b
    return length if same.all() else int(same.argmin())


def apply(old: bytes, patch: bytes, names: tuple[str, str] = ("old", "patch")) -> bytes:
    """The new image file. Everything in a patch is checked before it is used.

    Parameters
    ----------
    old, patch : contents of the files
    names : of both, for messages

    Raises
    ------
    SecateurError : the patch is cut, altered, of another version or for another file, or does not
        give the file that it promises
    """
    base, name = names
    again = "make or copy the patch again"
    if len(patch) < HEADER.size + CRC.size or patch[:4] != MAGIC:
        raise SecateurError(
            f"{name}: not a Secateur patch (no {MAGIC.decode()} at its start, or cut); {again}"
        )
    _, version, word, zero, old_size, new_size, body_size, *digests = HEADER.unpack_from(patch)
    if version != VERSION:
        raise SecateurError(f"{name}: patch version {version}, this Secateur reads {VERSION}")
    packed, trailer = patch[: -CRC.size], patch[-CRC.size :]
    if CRC.pack(zlib.crc32(packed)) != trailer:
        raise SecateurError(f"{name}: CRC-32 does not match: cut short or altered; {again}")
    if zero or not word or max(old_size, new_size, body_size) > LIMIT or body_size < BODY.size:
        raise SecateurError(f"{name}: damaged header; {again}")
    if len(old) != old_size or hashlib.sha256(old).digest() != digests[0]:
        raise SecateurError(
            f"{base}: not the file that {name} was made for (SHA-256 {digests[0].hex()[:16]}...)"
        )
    body = _unpack(packed[HEADER.size :], body_size, f"{name}: damaged data; {again}")
    new = rebuild(old, body, word, new_size)
    if new is None or hashlib.sha256(new).digest() != digests[1]:
        raise SecateurError(f"{name}: does not give the file that it promises; {again}")
    images.parse(new, name)
    return new


def compress(data: bytes) -> bytes:
    """``data`` as the payload of a patch is compressed."""
    return lzma.compress(data, lzma.FORMAT_RAW, filters=_FILTERS)


def _unpack(packed: bytes, size: int, message: str) -> bytes:
    """Decompress to exactly ``size`` bytes; no more than one beyond is ever made."""
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
    try:
        body = unpacker.decompress(packed, size + 1)
        if len(body) == size and not unpacker.eof:
            body += unpacker.decompress(b"", 1)
    except lzma.LZMAError:
        raise SecateurError(message) from None
    if len(body) != size or not unpacker.eof or unpacker.unused_data:
        raise SecateurError(message)
    return body


def make_file(old: Path, new: Path, patch: Path) -> dict[str, Any]:
    """Write the patch from one image file to another, atomically.

    Parameters
    ----------
    old, new : image files
    patch : is written

    Returns
    -------
    sizes : bytes of the patch and of the new image, with and without compression, and the share

    Raises
    ------
    SecateurError : as ``make``, or a file cannot be read or written
    """
    before, after = (read(path, LIMIT, "an image") for path in (old, new))
    made = make(before, after, (str(old), str(new)))
    write_atomically(patch, made)
    whole = len(compress(after))
    return {
        "patch": str(patch), "patch_bytes": len(made), "image_bytes": len(after),
        "image_bytes_compressed": whole, "share": len(made) / len(after),
    }  # fmt: skip


def apply_file(
    old: Path, patch: Path, new: Path, key: Path | None = None, signature: Path | None = None
) -> dict[str, Any]:
    """Write the image file that a patch makes of another, atomically.

    Parameters
    ----------
    old, patch : files that are read
    new : is written; may be ``old``
    key : public key, PEM; with it nothing is written unless the signature fits the new image
    signature : file of the signature; the one beside ``new`` if None

    Returns
    -------
    written : name, bytes and SHA-256 of the new image

    Raises
    ------
    SecateurError : as ``apply`` and ``signing.check``, or a file cannot be read or written
    """
    before, change = read(old, LIMIT, "an image"), read(patch, LIMIT, "a patch")
    made = apply(before, change, (str(old), str(patch)))
    if key is not None:
        signing.check(made, str(new), key, signature or signing.signature_path(new))
    write_atomically(new, made)
    return {"image": str(new), "image_bytes": len(made), "sha256": hashlib.sha256(made).hexdigest()}

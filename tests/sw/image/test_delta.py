"""Patches: the new file to the byte, small where little changed, and nothing from bad ones."""

from __future__ import annotations

import hashlib
import lzma
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.errors import SecateurError
from secateur.image import delta, pieces
from tests.sw.image.image_files import LAYER, METADATA, image_file, random_words

N = 4
WORDS = random_words(600, N, 0)
META = METADATA | {
    "layers": [LAYER | {"name": f"conv{i}", "cycles": 1000 * i} for i in range(40)],
    "hash": "0" * 64,
}
OLD = image_file(WORDS, META)
FILTERS = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20, "preset": 9, "lc": 0}]
HEADER = "<4sBBHIII32s32s"


def tuned(words: np.ndarray, seed: int) -> np.ndarray:
    """The same steps, every weight moved by -1, 0 or 1."""
    moved = words.copy()
    moved[:, :-1] += np.random.default_rng(seed).integers(-1, 2, moved[:, :-1].shape).astype("u1")
    return moved


def body_of(patch: bytes) -> bytes:
    packed = patch[struct.calcsize(HEADER) : -4]
    return lzma.decompress(packed, lzma.FORMAT_RAW, filters=FILTERS)


def sealed(
    old: bytes, new: bytes, body: bytes, word: int = N + 1, size: int | None = None
) -> bytes:
    """A patch with this body, all sums right."""
    sums = (hashlib.sha256(data).digest() for data in (old, new))
    size = len(body) if size is None else size
    head = struct.pack(HEADER, b"SECD", 1, N + 1, 0, len(old), len(new), size, *sums)
    packed = head + lzma.compress(body, lzma.FORMAT_RAW, filters=FILTERS)
    return packed + struct.pack("<I", zlib.crc32(packed))


def naive(old: bytes, patch: bytes) -> bytes:
    """``updates.md`` byte by byte."""
    word, body = patch[5], body_of(patch)
    count, words = struct.unpack_from("<II", body)
    numbers = struct.unpack_from(f"<{3 * count}i", body, 8)
    rest = body[8 + 12 * count :]
    copied = sum(numbers[count : 2 * count])
    new, read, done, literals = bytearray(), 0, 0, rest[copied:]
    for index in range(count):
        skip, copy, insert = numbers[index], numbers[count + index], numbers[2 * count + index]
        read += skip
        for _ in range(copy):
            inside = done < words * word
            at = done % word * words + done // word if inside else done
            new.append((old[read] + rest[at]) % 256)
            read, done = read + 1, done + 1
        new += literals[:insert]
        literals = literals[insert:]
    assert not literals
    return bytes(new)


def refused(old: bytes, patch: bytes, says: str = "") -> None:
    with pytest.raises(SecateurError) as caught:
        delta.apply(old, patch, ("old.sec", "p.secd"))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_same_masks_make_a_small_patch() -> None:
    new = image_file(tuned(WORDS, 1), META | {"hash": "1" * 64})
    patch = delta.make(OLD, new)
    assert delta.apply(OLD, patch) == naive(OLD, patch) == new
    entropy = 600 * N * np.log2(3) / 8
    assert len(patch) < 1.2 * entropy + 400
    assert len(delta.make(OLD, OLD)) < 250


@pytest.mark.parametrize(("gone", "extra"), [(25, 0), (0, 25), (25, 25), (1, 0), (0, 1)])
def test_changed_blocks_cost_about_what_they_are(gone: int, extra: int) -> None:
    rng = np.random.default_rng(gone + 100 * extra)
    words = np.delete(tuned(WORDS, 2), rng.choice(len(WORDS), gone, replace=False), axis=0)
    where = np.sort(rng.choice(len(words), extra, replace=False))
    words = np.insert(words, where, random_words(extra, N, 3), axis=0)
    new = image_file(words, META)
    same = len(delta.make(OLD, image_file(tuned(WORDS, 2), META)))
    patch = delta.make(OLD, new)
    assert delta.apply(OLD, patch) == naive(OLD, patch) == new
    # an operation of 12 bytes and a misplaced word or two for each change
    assert len(patch) < same + 24 * (gone + extra) + 60


@pytest.mark.parametrize(
    "new",
    [
        image_file(random_words(50, N, 5), META),
        image_file(random_words(50, 8, 5), {}),
        image_file(WORDS[:1], None),
        image_file(np.repeat(WORDS, 3, axis=0), METADATA | {"x": "y" * 4000}),
        image_file(WORDS[::-1], META),
        image_file(WORDS[5:], META),
    ],
    ids=["less", "other-n", "bare", "more", "backwards", "shifted"],
)
def test_any_image_to_any_other(new: bytes) -> None:
    for old, other in ((OLD, new), (new, OLD)):
        patch = delta.make(old, other)
        assert delta.apply(old, patch) == naive(old, patch) == other


edits = st.lists(
    st.tuples(st.sampled_from("sdi"), st.integers(0, 80), st.integers(0, 255)), max_size=30
)


@settings(max_examples=150, derandomize=True)
@given(st.sampled_from((2, 4, 8)), st.integers(1, 80), edits, st.dictionaries(st.text(), st.text()))
def test_every_pair_round_trips(n: int, count: int, changes: list, metadata: dict) -> None:
    words = random_words(count, n, count)
    rows = list(words)
    for kind, at, value in changes:
        if kind == "s" and rows:
            rows[at % len(rows)] = rows[at % len(rows)] + np.uint8(value)
        elif kind == "d" and len(rows) > 1:
            del rows[at % len(rows)]
        else:
            rows.insert(at % (len(rows) + 1), np.full(n + 1, value, np.uint8))
    old, new = image_file(words, META), image_file(np.array(rows), METADATA | {"more": metadata})
    patch = delta.make(old, new)
    assert delta.apply(old, patch) == naive(old, patch) == new


NEW = image_file(tuned(np.delete(WORDS, [70, 300], axis=0), 4), META | {"more": [1, 2, 3]})
PATCH = delta.make(OLD, NEW)
BODY = body_of(PATCH)
damage = st.tuples(
    st.sampled_from(("flip", "cut", "repeat", "drop", "set")),
    st.integers(0, 1 << 20),
    st.integers(1, 255),
)


def harmed(data: bytes, kind: str, at: int, value: int) -> bytes:
    at %= len(data)
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ 1 << value % 8]) + data[at + 1 :]
    if kind == "set":
        return data[:at] + bytes([value]) * 4 + data[at + 4 :]
    if kind == "cut":
        return data[:at]
    if kind == "repeat":
        return data[:at] + data[max(0, at - value) :]
    return data[:at] + data[at + value :]


@settings(max_examples=400, derandomize=True)
@given(damage)
def test_damage_is_refused(how: tuple) -> None:
    patch = harmed(PATCH, *how)
    if patch != PATCH:
        refused(OLD, patch)


@settings(max_examples=400, derandomize=True)
@given(st.lists(damage, min_size=1, max_size=3))
def test_damage_under_a_right_crc_is_refused(hows: list) -> None:
    packed = PATCH[:-4]
    for how in hows:
        packed = harmed(packed or b"\0", *how)
    patch = packed + struct.pack("<I", zlib.crc32(packed))
    if packed != PATCH[:-4]:
        refused(OLD, patch)


@settings(max_examples=400, derandomize=True)
@given(st.lists(damage, min_size=1, max_size=3), st.booleans())
def test_damaged_operations_under_right_sums_are_refused(hows: list, front: bool) -> None:
    body, rest = (BODY[:60], BODY[60:]) if front else (BODY, b"")
    for how in hows:
        body = harmed(body or b"\0", *how)
    if body + rest != BODY:
        refused(OLD, sealed(OLD, NEW, body + rest))


def operations(*rows: tuple[int, int, int], words: int = 0, rest: bytes = b"") -> bytes:
    numbers = [row[i] for i in range(3) for row in rows]
    return struct.pack(f"<II{3 * len(rows)}i", len(rows), words, *numbers) + rest


def test_a_patch_by_hand() -> None:
    body = operations((0, len(OLD), 0), rest=bytes(len(OLD)))
    assert delta.apply(OLD, sealed(OLD, OLD, body)) == OLD
    body = operations((0, 0, 7), (7, len(OLD) - 7, 0), rest=bytes(len(OLD) - 7) + OLD[:7])
    assert delta.apply(OLD, sealed(OLD, OLD, body)) == OLD


@pytest.mark.parametrize("block", [1, 3, 64, 1 << 20])
def test_pieces_are_put_together_block_by_block(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a loop over the pieces; some of them are empty, some cross a block's end."""
    monkeypatch.setattr(pieces, "_BLOCK", block)
    rng = np.random.default_rng(block)
    rows, want, at, differences, literals = [], b"", 0, b"", b""
    for _ in range(200):
        begin, copied, inserted = rng.integers(0, 30), *rng.choice([0, 0, 1, 2, 9], 2)
        change, new = rng.bytes(int(copied)), rng.bytes(int(inserted))
        rows.append((int(begin) - at, int(copied), int(inserted)))
        at = int(begin + copied)
        old = OLD[int(begin) : at]
        want += bytes((a + b) % 256 for a, b in zip(old, change, strict=True)) + new
        differences, literals = differences + change, literals + new
    body = operations(*rows, rest=differences + literals)
    assert pieces.rebuild(OLD, body, 1, len(want)) == want


def test_millions_of_empty_pieces_take_no_more_than_their_bytes() -> None:
    """By count of the interpreter's lines, not by time."""
    body = operations(*[(0, 0, 0)] * 50_000, (0, len(OLD), 0), rest=bytes(len(OLD)))
    lines = 0

    def trace(*_: object) -> object:
        nonlocal lines
        lines += 1
        return trace

    sys.settrace(trace)
    try:
        assert pieces.rebuild(OLD, body, 1, len(OLD)) == OLD
    finally:
        sys.settrace(None)
    assert lines < 1000


@pytest.mark.parametrize(
    "body",
    [
        operations(),
        operations((1, len(OLD), 0), rest=bytes(len(OLD))),  # past the end
        operations((-1, len(OLD), 0), rest=bytes(len(OLD))),
        operations((0, len(OLD) + 1, 0), rest=bytes(len(OLD) + 1)),
        operations((0, -4, len(OLD) + 4), rest=OLD),
        operations((0, len(OLD) + 4, -4), rest=bytes(len(OLD))),
        operations((0, len(OLD), 0), rest=bytes(len(OLD) - 1)),
        operations((0, len(OLD), 0), rest=bytes(len(OLD) + 1)),
        operations((0, len(OLD), 0), words=len(OLD), rest=bytes(len(OLD))),
        operations((0, len(OLD), 0), words=0xFFFFFFFF, rest=bytes(len(OLD))),
        struct.pack("<II", 0xFFFFFFFF, 0),
        b"\xff" * 7,
    ],
)
def test_operations_that_do_not_add_up(body: bytes) -> None:
    refused(OLD, sealed(OLD, OLD, body), "p.secd")


def test_messages() -> None:
    refused(OLD, b"", "p.secd: not a Secateur patch")
    refused(OLD, OLD, "not a Secateur patch")
    refused(OLD, PATCH[:-1], "CRC-32")
    refused(NEW, PATCH, "old.sec: not the file that p.secd was made for")
    refused(OLD + b" ", PATCH, "not the file")
    refused(OLD, with_byte(4, 2), "version 2")
    refused(OLD, with_byte(6, 1), "damaged header")
    refused(OLD, with_byte(5, 0), "damaged header")
    # a text that is no image, though all sums are right
    body = operations((0, 0, 5), rest=b"hello")
    refused(OLD, sealed(OLD, b"hello", body), "not a Secateur image")
    false = image_file(WORDS, b"[1, 2]")
    refused(OLD, sealed(OLD, false, operations((0, 0, len(false)), rest=false)), "JSON object")
    with pytest.raises(SecateurError, match=r"new: CRC-32 does not match"):
        delta.make(OLD, OLD[:40] + b"\xff" + OLD[41:])


def with_byte(at: int, value: int) -> bytes:
    packed = PATCH[:at] + bytes([value]) + PATCH[at + 1 : -4]
    return packed + struct.pack("<I", zlib.crc32(packed))


def test_bombs_are_not_unpacked() -> None:
    zeros = bytes(1 << 25)
    bomb = sealed(OLD, NEW, zeros, size=len(BODY))
    large = sealed(OLD, NEW, BODY, size=delta.LIMIT + 1)
    assert len(bomb) < 10_000
    tracemalloc.start()
    refused(OLD, bomb, "damaged data")
    refused(OLD, large, "damaged header")
    assert tracemalloc.get_traced_memory()[1] < 1 << 22  # the dictionary is 1 MiB
    tracemalloc.stop()


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    old, new, patch = (tmp_path / name for name in ("old.sec", "new.sec", "p.secd"))
    old.write_bytes(OLD)
    new.write_bytes(NEW)
    data = delta.make_file(old, new, patch)
    assert data["patch_bytes"] == patch.stat().st_size == len(PATCH)
    patch.write_bytes(PATCH[:-1] + bytes([PATCH[-1] ^ 1]))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for output in (old, tmp_path / "fresh.sec"):
        with pytest.raises(SecateurError, match="CRC-32"):
            delta.apply_file(old, patch, output)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    patch.write_bytes(PATCH)
    assert delta.apply_file(old, patch, old)["sha256"] == hashlib.sha256(NEW).hexdigest()
    assert old.read_bytes() == NEW
    with pytest.raises(SecateurError, match=r"none.sec: cannot be read"):
        delta.apply_file(tmp_path / "none.sec", patch, new)

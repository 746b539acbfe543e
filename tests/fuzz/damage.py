"""Damage to files, drawn from a seed: what a bad line, a bad disk or a bad tool makes of them."""

from __future__ import annotations

import random
from collections.abc import Callable


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 1, 3, 16))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _overwrite(data: bytearray, rng: random.Random) -> None:
    at, size = rng.randrange(len(data)), rng.choice((1, 2, 4, 8, 64))
    value = rng.choice((b"\0", b"\xff", b"\x7f", rng.randbytes(1)))
    data[at : at + size] = value * len(data[at : at + size])


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _remove(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 2, 7, 64))]


def _insert(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = rng.randbytes(rng.choice((1, 2, 7, 64)))


def _repeat(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.choice((1, 8, 64, 512))]


WAYS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip, _flip, _flip, _overwrite, _cut, _remove, _insert, _repeat,
)  # fmt: skip


def damaged(data: bytes, seed: int) -> bytes:
    """``data`` with one kind of damage, the same for the same seed."""
    rng, changed = random.Random(seed), bytearray(data)
    rng.choice(WAYS)(changed, rng)
    return bytes(changed)

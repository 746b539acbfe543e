"""Damaged .pt2 archives give one line or a model, never another exception."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path

import pytest

import secateur
from secateur.disk.limits import Limits
from secateur.errors import SecateurError
from secateur.sources import load_model
from tests.fuzz.damage import damaged
from tests.support.archives import (
    CONSTANTS,
    MODEL,
    WEIGHTS,
    float_archive,
    inputs,
    members,
    mutate,
    quantised_archive,
    together,
)

#: Small bounds: what claims more is refused before it is made.
LIMITS = Limits(nodes=100, megabytes=8)


def attack(seed: int) -> bytes:
    """An archive with damage drawn from a seed: to its bytes, to a file in it, or to its JSON."""
    rng = random.Random(seed)
    whole = rng.choice((float_archive, quantised_archive))()
    if seed % 6 == 0:
        return damaged(whole, seed)
    parts = members(whole)
    if seed % 6 == 1:
        name = rng.choice([name for name, content in parts.items() if content])
        return together(parts | {name: damaged(parts[name], seed)})
    name = rng.choice((MODEL, MODEL, MODEL, WEIGHTS, CONSTANTS))
    value = json.loads(parts[name])
    mutate(value, rng)
    return together(parts | {name: json.dumps(value).encode()})


def outcome(data: bytes, file: Path) -> str:
    """What becomes of an archive, from reading it to an image; any other exception is a fault."""
    file.write_bytes(data)
    try:
        model, _ = load_model(str(file), calibrated=True, limits=LIMITS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = secateur.compile(model, target="8x1", calibration=inputs())
        return f"{len(image.stream)} bytes"
    except SecateurError as error:
        message = str(error)
        assert message.isprintable(), message
        assert len(message) < 5000, message
        return message


def check(seeds: range, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for seed in seeds:
        data = attack(seed)
        try:
            outcome(data, folder / "attack.pt2")
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
    assert [file.name for file in folder.iterdir()] == ["attack.pt2"]


def test_damage_is_one_line_or_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(range(60), tmp_path, monkeypatch)


@pytest.mark.long
def test_much_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(range(1000, 1800), tmp_path, monkeypatch)


def test_the_archives_themselves_are_read(tmp_path: Path) -> None:
    """The damage is what is refused above, not the archive."""
    for whole in (float_archive(), quantised_archive(), together(members(float_archive()))):
        assert outcome(whole, tmp_path / "whole.pt2").endswith("bytes")

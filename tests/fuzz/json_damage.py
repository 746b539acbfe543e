"""Damage to JSON data, drawn from a seed: values that are missing, doubled, moved or absurd."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

VALUES: tuple[Any, ...] = (
    0, -1, 1, 2, 255, 65536, 1 << 31, (1 << 63) - 1, 1 << 63, 10**40, 0.5, -0.0, 1e308, True, None,
    "", "x", "\ud800", "\x1b[31m", [], {}, [0], [[]], "n" * 10_000, [1] * 5000,
)  # fmt: skip


def mutated(value: Any, seed: int) -> Any:
    """``value``, an object or a list, with a few changes, the same for the same seed."""
    rng, changed = random.Random(seed), _copy(value)
    for _ in range(rng.choice((1, 1, 2, 5))):
        places = list(_places(changed))
        if not places:
            break
        (inside, key), (other, place) = rng.choice(places), rng.choice(places)
        new = _copy(rng.choice((*VALUES, other[place])))
        way = rng.random()
        if way < 0.2:
            del inside[key]
        elif way < 0.4 and isinstance(inside, list):
            inside.insert(key, new)
        else:
            inside[key] = new
    return changed


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every value within: what holds it, and its key."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])

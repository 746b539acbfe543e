"""The file of an exploration: a recipe, what may change in it, and what counts.

A space may have ``board`` beside the keys of a recipe: it stands for a target and a clock.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from secateur.disk.toml import read_toml
from secateur.errors import SecateurError
from secateur.pruning.explore.study import merged
from secateur.pruning.recipes.recipe import find_file, parse_recipe
from secateur.pruning.recipes.tables import Recipe

#: What a trial is judged by, and which way is better.
OBJECTIVES: dict[str, Literal["maximize", "minimize"]] = {
    "accuracy": "maximize", "cycles": "minimize", "milliseconds": "minimize",
    "rom_bytes": "minimize", "multipliers": "minimize", "luts": "minimize",
    "block_rams": "minimize", "memory_bits": "minimize", "picojoules": "minimize",
}  # fmt: skip
#: Key of a space that no recipe has.
BOARD = "board"
_KEYS = {
    "recipe", "trials", "batch", "seed", "objectives", "clock_mhz", "stop_below", "space",
}  # fmt: skip
_RANGE = {"low", "high", "step", "log"}


@dataclass(frozen=True)
class Carrier:
    """What a board means to a recipe.

    Attributes
    ----------
    target : preset of the engine that it carries
    mhz : clock of that engine
    """

    target: str
    mhz: float


@dataclass(frozen=True)
class Plan:
    """A checked exploration.

    Attributes
    ----------
    recipe : tables of the recipe that is changed
    name, folder : of its file
    trials : in all, a multiple of ``batch``
    batch : trials that are chosen before the results of any of them are known
    seed : of the choices
    objectives : keys of `OBJECTIVES`
    clock_mhz : for milliseconds, without boards
    stop_below : percentile of accuracy below which a trial is stopped; None: none is
    space : by dotted key of the recipe, or `BOARD`, a list of choices, or a range
    boards : those of the space
    """

    recipe: dict[str, Any]
    name: str
    folder: Path
    trials: int
    batch: int
    seed: int
    objectives: tuple[str, ...]
    clock_mhz: float
    stop_below: float | None
    space: dict[str, Any]
    boards: dict[str, Carrier]

    def clock_of(self, values: Mapping[str, Any]) -> float:
        """MHz of the engine of a trial."""
        return self.boards[values[BOARD]].mhz if BOARD in values else self.clock_mhz

    def recipe_with(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe of a trial.

        Raises
        ------
        SecateurError : a key or a value that no recipe has
        """
        table = self.recipe
        for key, value in values.items():
            if key == BOARD:
                continue
            change: dict[str, Any] = {}
            *outer, last = key.split(".")
            inner = change
            for part in outer:
                inner = inner.setdefault(part, {})
            inner[last] = value
            table = merged(table, change)
        if BOARD in values:
            table = merged(table, {"target": self.boards[values[BOARD]].target})
            if "latency_ms" in table.get("budget", {}):
                table = merged(table, {"budget": {"clock_mhz": self.clock_of(values)}})
        shown = ", ".join(f"{key} = {value!r}" for key, value in values.items())
        return parse_recipe(table, f"{self.name} with {shown}", self.folder)

    @property
    def digest(self) -> str:
        """Of all that decides which trials are tried: not of their number."""
        parts = (
            self.recipe, self.batch, self.seed, self.objectives, self.clock_mhz, self.stop_below,
            self.space, {name: [board.target, board.mhz] for name, board in self.boards.items()},
        )  # fmt: skip
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def load_plan(
    path: Path, trials: int | None = None, boards: Mapping[str, Carrier] | None = None
) -> Plan:
    """Read an exploration.

    Parameters
    ----------
    path : TOML file
    trials : overrides that of the file
    boards : that its space may name

    Raises
    ------
    SecateurError : an unknown or wrong key, or a recipe that is not one
    """
    path = find_file(path)
    table = read_toml(path)
    unknown = table.keys() - _KEYS
    if unknown:
        raise SecateurError(
            f"{path}: unknown key {min(unknown)}; an exploration has {', '.join(sorted(_KEYS))}"
        )
    if not isinstance(table.get("recipe"), str):
        raise SecateurError(f"{path}: recipe must be the path of a recipe")
    numbers = _numbers(table, trials, str(path))
    objectives = table.get("objectives", ["accuracy", "cycles"])
    known = isinstance(objectives, list) and objectives and set(objectives) <= OBJECTIVES.keys()
    if not known or len(set(objectives)) < len(objectives):
        raise SecateurError(f"{path}: objectives must be some of {', '.join(OBJECTIVES)}")
    clock = _between(table, "clock_mhz", 1e6, str(path))
    stop_below = _between(table, "stop_below", 100, str(path))
    file = path.parent / table["recipe"]
    space = _space(table.get("space"), str(path))
    if BOARD in space and ("target" in space or clock is not None):
        raise SecateurError(
            f"{path}: space.board has target and clock; omit space.target, clock_mhz"
        )
    plan = Plan(
        read_toml(file), str(file), file.parent, numbers["trials"], numbers["batch"],
        numbers["seed"], tuple(objectives), 100.0 if clock is None else clock, stop_below, space,
        _boards(space.get(BOARD, []), boards or {}, str(path)),
    )  # fmt: skip
    firsts = {key: v[0] if isinstance(v, list) else v["low"] for key, v in space.items()}
    plan.recipe_with(firsts)
    return plan


def _between(table: dict[str, Any], key: str, top: float, path: str) -> float | None:
    """A number above 0 and below ``top``; None if there is none."""
    value = table.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < top:
        raise SecateurError(
            f"{path}: {key} must be a number above 0 and below {top:,.0f}, not {value!r}"
        )
    return float(value)


def _boards(names: Any, known: Mapping[str, Carrier], path: str) -> dict[str, Carrier]:
    for name in names if isinstance(names, list) else [names]:
        if not isinstance(name, str) or name not in known:
            options = ", ".join(known) or "none"
            raise SecateurError(f"{path}: space.board must be some of {options}, not {name!r}")
    return {name: known[name] for name in names}


def _numbers(table: dict[str, Any], trials: int | None, path: str) -> dict[str, int]:
    """Trials, batch and seed."""
    numbers: dict[str, int] = {"trials": 16, "batch": 4, "seed": 0}
    numbers |= {key: table[key] for key in numbers if key in table}
    numbers |= {} if trials is None else {"trials": trials}
    for key, value in numbers.items():
        if type(value) is not int or value < (0 if key == "seed" else 1):
            raise SecateurError(f"{path}: {key} must be a whole number, not {value!r}")
    if numbers["trials"] % numbers["batch"]:
        raise SecateurError(
            f"{path}: trials must be a multiple of batch = {numbers['batch']}, "
            f"not {numbers['trials']}"
        )
    return numbers


def _space(table: Any, path: str) -> dict[str, Any]:
    """Choices and ranges by dotted key."""
    found: dict[str, Any] = {}

    def walk(value: Any, key: str) -> None:
        if isinstance(value, list) and value and all(_plain(choice) for choice in value):
            found[key] = value
        elif isinstance(value, dict) and {"low", "high"} <= value.keys() <= _RANGE:
            found[key] = _range(value, f"{path}: space.{key}")
        elif isinstance(value, dict) and value:
            for name, inner in value.items():
                walk(inner, f"{key}.{name}" if key else name)
        else:
            raise SecateurError(
                f"{path}: space.{key} must be a list of values, or {{low, high}} with step or log"
            )

    walk(table, "")
    return found


def _plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str)


def _range(value: dict[str, Any], where: str) -> dict[str, Any]:
    numbers = [value[key] for key in ("low", "high", "step") if key in value]
    plain = all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
    log = value.get("log", False)
    if not plain or type(log) is not bool or not value["low"] < value["high"]:
        raise SecateurError(f"{where}: low and high must be numbers, low below high")
    if value.get("step", 1) <= 0 or (log and ("step" in value or value["low"] <= 0)):
        raise SecateurError(f"{where}: step must be above 0; log takes no step, and low above 0")
    return dict(value)

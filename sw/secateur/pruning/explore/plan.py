"""The file of an exploration: a recipe, what may change in it, and what counts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from secateur.disk.toml import read_toml
from secateur.errors import SecateurError
from secateur.pruning.recipes.recipe import find_file, parse_recipe
from secateur.pruning.recipes.study import merged
from secateur.pruning.recipes.tables import Recipe

#: What a trial is judged by, and which way is better.
OBJECTIVES: dict[str, Literal["maximize", "minimize"]] = {
    "accuracy": "maximize", "cycles": "minimize", "milliseconds": "minimize",
    "rom_bytes": "minimize", "multipliers": "minimize", "memory_bits": "minimize",
    "picojoules": "minimize",
}  # fmt: skip
_KEYS = {"recipe", "trials", "batch", "seed", "objectives", "clock_mhz", "space"}
_RANGE = {"low", "high", "step", "log"}


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
    clock_mhz : for milliseconds
    space : by dotted key of the recipe, a list of choices, or a range
    """

    recipe: dict[str, Any]
    name: str
    folder: Path
    trials: int
    batch: int
    seed: int
    objectives: tuple[str, ...]
    clock_mhz: float
    space: dict[str, Any]

    def recipe_with(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe of a trial.

        Raises
        ------
        SecateurError : a key or a value that no recipe has
        """
        table = self.recipe
        for key, value in values.items():
            change: dict[str, Any] = {}
            *outer, last = key.split(".")
            inner = change
            for part in outer:
                inner = inner.setdefault(part, {})
            inner[last] = value
            table = merged(table, change)
        shown = ", ".join(f"{key} = {value!r}" for key, value in values.items())
        return parse_recipe(table, f"{self.name} with {shown}", self.folder)

    @property
    def digest(self) -> str:
        """Of all that decides which trials are tried: not of their number."""
        parts = (
            self.recipe, self.batch, self.seed, self.objectives, self.clock_mhz, self.space,
        )  # fmt: skip
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def load_plan(path: Path, trials: int | None = None) -> Plan:
    """Read an exploration.

    Parameters
    ----------
    path : TOML file
    trials : overrides that of the file

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
    clock = table.get("clock_mhz", 100.0)
    if isinstance(clock, bool) or not isinstance(clock, int | float) or not 0 < clock < 1e6:
        raise SecateurError(f"{path}: clock_mhz must be a number above 0, not {clock!r}")
    file = path.parent / table["recipe"]
    space = _space(table.get("space"), str(path))
    plan = Plan(
        read_toml(file), str(file), file.parent, numbers["trials"], numbers["batch"],
        numbers["seed"], tuple(objectives), float(clock), space,
    )  # fmt: skip
    firsts = {key: v[0] if isinstance(v, list) else v["low"] for key, v in space.items()}
    plan.recipe_with(firsts)
    return plan


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

"""``secateur study``: one recipe, several seeds, and variants of it, side by side.

A study is a TOML file: ``recipe``, the file of the recipe, relative to the study; ``seeds``; and
``[variants.NAME]``, tables that override the recipe's keys. The recipe itself is the variant
"recipe".
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.disk.lock import held
from secateur.disk.storage import write_atomically
from secateur.disk.toml import read_toml
from secateur.errors import SecateurError
from secateur.progress import Progress, silent
from secateur.pruning.recipes import checkpoint
from secateur.pruning.recipes.recipe import find_file, parse_recipe
from secateur.pruning.recipes.run import run_held
from secateur.pruning.recipes.stages import STAGES, compile_dense
from secateur.pruning.recipes.tables import Recipe

ITSELF = "recipe"
#: Stages that all variants of one dense network share.
SHARED = STAGES.index(compile_dense) + 1


@dataclass(frozen=True)
class Study:
    """A checked study.

    Attributes
    ----------
    runs : recipes by variant and seed
    """

    runs: dict[str, dict[int, Recipe]]


def load_study(path: Path) -> Study:
    """Read a study, and make its recipes.

    Raises
    ------
    SecateurError : an unknown or wrong key of the study, or of a recipe that it makes
    """
    path = find_file(path)
    table = read_toml(path)
    unknown = table.keys() - {"recipe", "seeds", "variants"}
    if unknown:
        raise SecateurError(
            f"{path}: unknown key {min(unknown)}; a study has recipe, seeds, variants"
        )
    seeds, variants = table.get("seeds"), table.get("variants", {})
    if not isinstance(table.get("recipe"), str):
        raise SecateurError(f"{path}: recipe must be the path of a recipe")
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int for s in seeds):
        raise SecateurError(f"{path}: seeds must be a list of integers, at least one")
    if not isinstance(variants, dict) or not all(isinstance(v, dict) for v in variants.values()):
        raise SecateurError(f"{path}: variants must be tables")
    for name in variants:
        if not re.fullmatch(r"\w[\w.-]*", name) or name == ITSELF:
            raise SecateurError(f"{path}: variant {name!r} must be a name of letters and digits")
    if len(set(seeds)) < len(seeds):
        raise SecateurError(f"{path}: seeds must differ, not {seeds}")
    file = path.parent / table["recipe"]
    base = read_toml(file)
    runs = {}
    for name, changes in {ITSELF: {}, **variants}.items():
        where = f"{file}" if name == ITSELF else f"{path}, variant {name}"
        runs[name] = {
            seed: parse_recipe(merged(base, changes) | {"seed": seed}, where, file.parent)
            for seed in seeds
        }
    return Study(runs)


def run_study(study: Study, folder: Path, *, progress: Progress = silent) -> dict[str, Any]:
    """Run what is not done yet; write ``study.json`` after every run.

    Variants with the same dense network and seed share its training. An interrupted run is resumed.

    Parameters
    ----------
    study : from `load_study`
    folder : made if it is missing
    progress : called after every epoch and stage; stages have the name of the run before theirs

    Returns
    -------
    dict : per variant, mean and deviation of every figure over the seeds. ``gate`` is None, or why
        a run of the recipe itself has failed: raise it as an error.

    Raises
    ------
    SecateurError : a run does not work out; the others are kept. Or another study, or run of one of
        the recipes, is going on in the folder
    """
    with held(folder):
        return _run_held(study, folder, progress)


def _run_held(study: Study, folder: Path, progress: Progress) -> dict[str, Any]:
    dense: dict[str, Path] = {}
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in study.runs}
    kept: dict[str, Any] = {}
    seeds = list(study.runs[ITSELF])
    for seed in seeds:
        for name, recipes in study.runs.items():
            recipe, place = recipes[seed], folder / f"{name}-{seed}"

            def named(stage: str, *rest: Any, _run: str = place.name) -> None:
                progress(f"{_run} {stage}", *rest)

            with held(place):
                if recipe.dense_digest in dense:
                    _adopt(dense[recipe.dense_digest], place, recipe)
                records[name].append(run_held(recipe, place, resume=True, progress=named))
            dense.setdefault(recipe.dense_digest, place)
            table = {key: _row(found) for key, found in records.items() if found}
            metric = records[ITSELF][0]["metric"]
            kept = {"seeds": seeds, "metric": metric, "variants": table}
            write_atomically(folder / "study.json", json.dumps(kept, indent=1).encode())
    failed = [
        f"{ITSELF}-{seed}: {record['gate']}"
        for seed, record in zip(seeds, records[ITSELF], strict=True)
        if record["gate"] is not None
    ]
    gate = failed[0] if failed else None
    return kept | {"folder": str(folder), "gate": gate}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = old | value if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _adopt(source: Path, place: Path, recipe: Recipe) -> None:
    """Begin in ``place`` with the dense network of another run, unless it has begun."""
    if (place / "running.json").exists():
        return
    early = ["early"] if recipe.prune.schedule == "rewind" else []
    for name in ("float", "dense.int8", *early):
        tensors, data = checkpoint.read(source / f"{name}.json")
        checkpoint.write(place / f"{name}.json", tensors, data)
    shutil.copyfile(source / "dense.sec", place / "dense.sec")
    _, data = checkpoint.read(source / "running.json")
    results = {key: data["results"][key] for key in ("float", "dense int8")}
    losses = data["results"].get("losses", {})
    results["losses"] = {key: losses[key] for key in ("train", "qat dense") if key in losses}
    state = data | {"recipe": recipe.digest, "stage": SHARED, "results": results, "trainer": {}}
    checkpoint.write(place / "running.json", {}, state)


def _row(records: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and deviation of each figure."""
    figures: dict[str, list[float]] = {}
    for record in records:
        dense, model = record["columns"]["dense"], record["columns"]["model"]
        metric = record["metric"]["name"]
        lost = dense[metric] - model[metric]
        for key, value in (
            ("float", record["results"]["float"][metric]),
            ("dense int8", dense[metric]),
            ("int8", model[metric]),
            ("drop", lost if record["metric"]["direction"] == "max" else -lost),
            *([] if record["agreement"] is None else [("agreement", record["agreement"])]),
            ("cycles", model["cycles"]),
            ("cycles dense", dense["cycles"]),
            ("rom bytes", model["rom_bytes"]),
            ("density", model["blocks"] / model["blocks_total"]),
            ("density of dense", model["blocks"] / dense["blocks_total"]),
        ):
            figures.setdefault(key, []).append(float(value))
    return {
        key: {
            "mean": statistics.fmean(values),
            "deviation": statistics.stdev(values) if len(values) > 1 else 0.0,
            "runs": len(values),
        }
        for key, values in figures.items()
    }

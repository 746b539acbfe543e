"""``secateur study``: one recipe, several seeds, and variants of it, side by side.

A study is a TOML file: ``recipe``, the file of the recipe, relative to the study; ``seeds``; and
``[variants.NAME]``, tables that override the recipe's keys. The recipe itself is the variant
"recipe".

A run that shares the dense network of another one waits for it, on however many processes.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.callables import find_in_current_folder
from secateur.disk.lock import held
from secateur.disk.storage import write_atomically
from secateur.disk.toml import read_toml
from secateur.errors import SecateurError
from secateur.progress import Progress, silent
from secateur.pruning.explore.workers import client_of
from secateur.pruning.recipes import checkpoint
from secateur.pruning.recipes.recipe import find_file, parse_recipe
from secateur.pruning.recipes.run import run_held
from secateur.pruning.recipes.stages import STAGES, compile_dense
from secateur.pruning.recipes.tables import Recipe
from secateur.pruning.recipes.task.device import one_thread
from secateur.text import first_line

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


@dataclass(frozen=True)
class Run:
    """One run of a study.

    Attributes
    ----------
    variant, seed : of the study
    recipe : of both
    place : its folder
    source : folder of the run before that has its dense network; None: there is none
    """

    variant: str
    seed: int
    recipe: Recipe
    place: Path
    source: Path | None


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


def run_study(
    study: Study,
    folder: Path,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Run what is not done yet; write ``study.json`` after every run.

    Variants with the same dense network and seed share its training. An interrupted run is resumed.

    Parameters
    ----------
    study : from `load_study`
    folder : made if it is missing
    workers : processes, in which each run has one thread; None: runs follow each other in this one
    scheduler : address of a Dask scheduler, whose workers make the runs instead
    progress : called after every epoch and stage, with the name of the run before the stage's; with
        processes, after every run

    Returns
    -------
    dict : per variant, mean and deviation of every figure over the seeds. ``gate`` is None, or why
        a run of the recipe itself has failed: raise it as an error.

    Raises
    ------
    SecateurError : a run does not work out; the others are kept. Or another study, or run of one of
        the recipes, is going on in the folder
    """
    if workers is None and scheduler is None:
        with held(folder):
            return _collected(study, folder, _here(_runs(study, folder), progress))
    folder = folder.absolute()
    with held(folder), client_of(workers or 1, scheduler) as client:
        return _collected(study, folder, _there(_runs(study, folder), client, progress))


def _runs(study: Study, folder: Path) -> list[Run]:
    """All runs, each behind the one whose dense network it has."""
    dense: dict[str, Path] = {}
    runs = []
    for seed in study.runs[ITSELF]:
        for name, recipes in study.runs.items():
            recipe, place = recipes[seed], folder / f"{name}-{seed}"
            runs.append(Run(name, seed, recipe, place, dense.get(recipe.dense_digest)))
            dense.setdefault(recipe.dense_digest, place)
    return runs


def _here(runs: list[Run], progress: Progress) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Records, one run after the other."""
    for run in runs:

        def named(stage: str, *rest: Any, _run: str = run.place.name) -> None:
            progress(f"{_run} {stage}", *rest)

        yield run, run_one(run, named)


def _there(
    runs: list[Run], client: Any, progress: Progress
) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Records of runs on Dask's workers, in the order of the runs."""
    futures: dict[Path, Any] = {}
    for run in runs:
        key = hashlib.sha256(f"{run.recipe.digest} {run.place}".encode()).hexdigest()
        futures[run.place] = client.submit(
            run_alone, run, None if run.source is None else futures[run.source],
            pure=False, key=f"{run.place.name}-{key[:16]}",
        )  # fmt: skip
    for done, run in enumerate(runs):
        try:
            record = futures[run.place].result()
        except SecateurError:
            raise
        except Exception as error:  # of Dask, or what no run should raise
            raise SecateurError(
                f"{run.place}: its workers died, or the run did: {first_line(error)}"
            ) from None
        progress(run.place.name, done + 1, len(runs), "")
        yield run, record


def run_one(run: Run, progress: Progress = silent, *, wait: bool = False) -> dict[str, Any]:
    """The record of a run, from its start, from a dense network, or from where it was stopped.

    Parameters
    ----------
    run : to be made
    progress : as for `run_held`
    wait : until another one that holds its folder has ended
    """
    with held(run.place, wait=wait):
        if run.source is not None:
            _adopt(run.source, run.place, run.recipe)
        return run_held(run.recipe, run.place, resume=True, progress=progress)


def run_alone(run: Run, source: object) -> dict[str, Any]:
    """As `run_one`, in a worker.

    A command that was interrupted leaves its runs on a scheduler's workers: they are waited for.

    Parameters
    ----------
    run : to be made
    source : the record of the run that it waits for
    """
    find_in_current_folder()
    with one_thread():
        return run_one(run, wait=True)


def _collected(
    study: Study, folder: Path, found: Iterator[tuple[Run, dict[str, Any]]]
) -> dict[str, Any]:
    """The table, written again after every record."""
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in study.runs}
    kept: dict[str, Any] = {}
    seeds = list(study.runs[ITSELF])
    for run, record in found:
        records[run.variant].append(record)
        table = {key: _row(rows) for key, rows in records.items() if rows}
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

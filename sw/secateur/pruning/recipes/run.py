"""``secateur prune``: a recipe from its file to the image, the record and the table."""

from __future__ import annotations

import json
import platform
import warnings
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur._version import __version__
from secateur.disk.lock import held
from secateur.disk.storage import write_atomically
from secateur.errors import SecateurError, SecateurWarning
from secateur.progress import Progress, silent
from secateur.pruning.budget.budget import make_budgets
from secateur.pruning.criteria.saliency import block_saliency
from secateur.pruning.recipes.cutting import criterion_for
from secateur.pruning.recipes.data.part import BATCH, Part, on
from secateur.pruning.recipes.data.trees import Batch
from secateur.pruning.recipes.evidence import EVIDENCE, evidence
from secateur.pruning.recipes.robust import CORRUPTIONS, fgsm, pgd
from secateur.pruning.recipes.stages import run_stages
from secateur.pruning.recipes.state import RunState, Watch, unwatched
from secateur.pruning.recipes.tables import Recipe
from secateur.pruning.recipes.task.device import device_of, same_random_state
from secateur.pruning.recipes.task.task import Score, evaluate, mean_loss
from secateur.pruning.recipes.training import multiplies_bfloat16
from secateur.pruning.recipes.verify import GateError, agreement, gate, sensitivity
from secateur.report.summary import summary

#: Kinds of layers with weights of their own.
WEIGHTED = ("conv", "depthwise", "linear")
#: A result this far below the tightest budget is reported.
TIGHT = 0.97


def run_recipe(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    progress: Progress = silent,
    watch: Watch = unwatched,
) -> dict[str, Any]:
    """Run all stages, verify, and write images, checkpoints and ``record.json`` to ``folder``.

    Parameters
    ----------
    recipe : from `secateur.pruning.recipes.recipe.load_recipe`
    folder : made if it is missing
    resume : resume from the checkpoint in the folder; the image is the one that a run without
        interruption makes on the same machine with the same number of threads
    progress : called after every epoch and stage
    watch : called with the name and the metric of every model that is scored; may raise

    Returns
    -------
    dict : the record. ``record["gate"]`` is None, or why the run has failed: raise it as an error.

    Raises
    ------
    SecateurError : the recipe does not work out, the budget cannot be met, another run is going on
        in the folder, or without ``resume`` it holds one
    """
    with held(folder):
        return run_held(recipe, folder, resume=resume, progress=progress, watch=watch)


def run_held(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    progress: Progress = silent,
    watch: Watch = unwatched,
) -> dict[str, Any]:
    """As `run_recipe`, in a folder that the caller holds.

    Parameters
    ----------
    recipe, folder, resume, progress, watch : as for `run_recipe`
    """
    if (folder / "running.json").exists() and not resume:
        raise SecateurError(
            f"{folder}: holds a run already; resume it with --resume, or choose another folder"
        )
    emulated = device_of(recipe.device).type == "cpu" and not multiplies_bfloat16()
    if recipe.training.precision == "bfloat16" and emulated:
        warnings.warn(
            "this processor does not multiply bfloat16, so training is many times slower than in "
            'float32: set training.precision = "float32"',
            SecateurWarning,
            stacklevel=2,
        )
    with same_random_state(device_of(recipe.device)):
        run = RunState(recipe, folder, progress, watch)
        if resume:
            run.resume()
        run_stages(run)
        record = _record(run)
        write_atomically(folder / EVIDENCE, evidence(run))
    write_atomically(folder / "record.json", json.dumps(record, indent=1).encode())
    return record


def _record(run: RunState) -> dict[str, Any]:
    recipe, results = run.recipe, run.results
    columns = {name: _column(run, name) for name in ("dense", "model")}
    budget = _budget(run, columns["model"])
    metric = run.task.metric
    dense, pruned = (Score(results[f"{name} int8"][metric.name]) for name in ("dense", "model"))
    failed = None
    if recipe.verify.max_drop is not None:
        try:
            gate(dense, pruned, recipe.verify.max_drop, metric)
        except GateError as error:
            failed = str(error)
    return {
        "recipe": recipe.content,
        "recipe_sha256": recipe.digest,
        "environment": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            "device": run.device.type,
            "secateur": __version__,
            **{name: version(name) for name in ("torch", "torchao", "numpy")},
        },
        "data_sha256": {name: run.inputs[name] for name in ("train", "test")},
        "metric": {"name": metric.name, "direction": metric.direction},
        "results": results,
        "columns": columns,
        "budget": budget,
        "agreement": _agreement(run),
        "sensitivity": _sensitivity(run),
        "robustness": _robustness(run),
        "gate": failed,
        "folder": str(run.folder),
    }


def _column(run: RunState, name: str) -> dict[str, Any]:
    image = run.image(name)
    found = summary(image)
    weighted = [layer for layer in found["layers"] if layer["kind"] in WEIGHTED]
    scores = run.results[f"{name} int8"]
    return {
        **{key: scores[key] for key in (run.task.metric.name, "loss") if key in scores},
        "cycles": found["cycles"],
        "rom_bytes": found["stream_bits"] // 8,
        "blocks": sum(layer["blocks"] for layer in weighted),
        "blocks_total": sum(layer["blocks_total"] for layer in weighted),
        "bound_cycles": found["bound_cycles"],
        "layers": [
            {
                key: layer[key]
                for key in ("name", "cycles", "cycles_dense", "blocks", "blocks_total")
            }
            for layer in found["layers"]
        ],
    }


def _budget(run: RunState, column: dict[str, Any]) -> dict[str, Any]:
    """Limits and the cost of the image; refuses an image that exceeds them."""
    allocation = run.results["allocation"]
    given = vars(run.recipe.budget)
    budgets = make_budgets(run.target, sum(allocation["blocks"].values()), **given)
    spent = {
        "cycles": column["cycles"],
        "rom_bytes": column["rom_bytes"],
        "blocks": sum(allocation["kept"].values()),
        "time": column["cycles"] + run.image("model").waits,
    }
    limits = {name: limit for name, limit in asdict(budgets).items() if limit is not None}
    for name, limit in limits.items():
        if spent[name] > limit:
            raise SecateurError(
                f"the image takes {spent[name]:,} {name}, the budget is {limit:,}: training has "
                f"changed the network's structure; lower the budget by the difference"
            )
    used = max(spent[name] / limit for name, limit in limits.items())
    return {"limits": limits, "spent": spent, "used": used, "tight": used >= TIGHT}


def _agreement(run: RunState) -> float | None:
    """Of dense and pruned; None if the model is no classifier."""
    dense, pruned = (run.outputs(f"{name}.int8") for name in ("dense", "model"))
    return None if dense is None or pruned is None else agreement(dense, pruned)


def _sensitivity(run: RunState) -> list[dict[str, Any]]:
    """By the recipe's criterion, on training samples: the test split is not to be tuned on."""
    verify = run.recipe.verify
    if not verify.sensitivity:
        return []
    model, n, train = run.build("float"), run.target.geometry.n, run.data.train
    criterion = criterion_for(run.recipe.prune.criterion, run.recipe, train, run.task, n)
    saliency = block_saliency(model, n, criterion, run.recipe.prune.skip)
    loader = _batches(run, train, train.some(verify.samples, run.recipe.seed))

    def judge(model: nn.Module) -> dict[str, float]:
        if run.task.classifies:
            return run.figures(evaluate(model, loader, run.task)[0])
        return {"loss": mean_loss(model, loader, run.task)}  # metrics are for what is held out

    rows = sensitivity(model, judge, saliency, n, verify.sensitivity)
    return [{"layer": row.layer, "density": row.density, **row.figures} for row in rows]


def _batches(run: RunState, part: Part, samples: Batch) -> list[Batch]:
    """Some samples of a part, on the device of the models."""
    return [on(batch, run.device) for batch in part.split(samples, BATCH)]


def _same(changed: Tensor, model: nn.Module) -> Tensor:
    return changed


def _robustness(run: RunState) -> list[dict[str, Any]]:
    """Scores of the float models, each attacked with its own gradients."""
    verify, test = run.recipe.verify, run.data.test
    if not (verify.fgsm or verify.pgd or verify.corruptions):
        return []
    x, y = on(test.some(verify.samples, run.recipe.seed), run.device)
    models = {name: run.build(name) for name in ("float", "recovered")}
    low, high = run.input_range
    bounds = {"low": low, "high": high}
    rows: list[dict[str, Any]] = []

    def add(what: str, strength: float, changed: Callable[[nn.Module], Tensor]) -> None:
        values = [
            evaluate(model, _batches(run, test, (changed(model), y)), run.task)[0].value
            for model in models.values()
        ]
        rows.append({"what": what, "strength": strength, "dense": values[0], "pruned": values[1]})

    def attacked(name: str, model: nn.Module, eps: float) -> Tensor:
        options: dict[str, Any] = {"loss": run.task.objective, **bounds}
        if name == "fgsm":
            return fgsm(model, x, y, eps, **options)
        return pgd(model, x, y, eps, steps=verify.pgd_steps, seed=run.recipe.seed, **options)

    for name, strengths in (("fgsm", verify.fgsm), ("pgd", verify.pgd)):
        for eps in strengths:
            add(name, eps, partial(attacked, name, eps=eps))
    for name, corrupt in CORRUPTIONS.items():
        for severity in verify.corruptions:
            changed = corrupt(x, severity, seed=run.recipe.seed, **bounds)
            add(name, severity, partial(_same, changed))
    return rows

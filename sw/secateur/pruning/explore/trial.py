"""One trial, in whatever process it runs: a recipe from its start, or where it was stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from secateur.callables import find_in_current_folder
from secateur.disk.lock import held
from secateur.errors import SecateurError
from secateur.image.image import Image, load
from secateur.pruning.explore.parts import parts_of
from secateur.pruning.explore.plan import Plan
from secateur.pruning.recipes.run import run_held
from secateur.pruning.recipes.task.device import one_thread
from secateur.report.energy import estimate
from secateur.target import Target


class Stopped(SecateurError):
    """A model of the trial is less accurate than its bar."""


def run_trial(
    plan: Plan, values: dict[str, Any], folder: Path, bars: Mapping[str, float]
) -> dict[str, Any]:
    """Run the recipe of a trial; the image does not depend on where.

    Parameters
    ----------
    plan : of the exploration
    values : of the recipe's keys
    folder : of the run; a run that was interrupted in it is resumed
    bars : from `secateur.pruning.explore.stopping.bars_of`

    Returns
    -------
    dict : objectives by name; or why there is no image: ``stopped`` or ``problem``
    """

    def watch(name: str, accuracy: float) -> None:
        if accuracy < bars.get(name, 0.0):
            raise Stopped(f"{name}: accuracy {accuracy:.2%}, below {bars[name]:.2%}")

    find_in_current_folder()
    try:
        recipe = plan.recipe_with(values)
        # An exploration that was interrupted leaves its trials on a scheduler's workers.
        with one_thread(), held(folder, wait=True):
            record = run_held(recipe, folder, resume=True, watch=watch)
    except Stopped as error:
        return {"stopped": str(error)}
    except SecateurError as error:
        return {"problem": str(error)}
    if record["gate"] is not None:
        return {"problem": record["gate"]}
    if record["metric"]["name"] != "accuracy":
        return {"problem": f"is judged by {record['metric']['name']}, not by accuracy"}
    accuracy, image = record["columns"]["model"]["accuracy"], load(folder / "model.sec")
    return measured(accuracy, image, Target.load(recipe.target), plan.clock_of(values))


def measured(accuracy: float, image: Image, target: Target, mhz: float) -> dict[str, Any]:
    """All objectives of an image.

    Parameters
    ----------
    accuracy : of the image, 0 to 1
    image : the image
    target : it is for
    mhz : clock of the engine
    """
    return {
        "accuracy": accuracy,
        "cycles": image.cycles,
        "milliseconds": (image.cycles + image.waits) / (1000 * mhz),
        "rom_bytes": len(image.stream),
        **asdict(parts_of(target)),
        "picojoules": estimate(image)["pruned"]["picojoules"]["total"],
    }

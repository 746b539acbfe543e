"""One trial, in whatever process it runs: a recipe from its start, or where it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from secateur.callables import find_in_current_folder
from secateur.errors import SecateurError
from secateur.image.image import Image, load
from secateur.pruning.explore.plan import Plan
from secateur.pruning.recipes.run import run_recipe
from secateur.report.energy import estimate


def run_trial(plan: Plan, values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run the recipe of a trial; the image does not depend on where.

    Parameters
    ----------
    plan : of the exploration
    values : of the recipe's keys
    folder : of the run; a run that was stopped in it is resumed

    Returns
    -------
    dict : objectives by name; or ``problem``, why there is no image
    """
    find_in_current_folder()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums depend on their number
    try:
        record = run_recipe(plan.recipe_with(values), folder, resume=True)
    except SecateurError as error:
        return {"problem": str(error)}
    finally:
        torch.set_num_threads(threads)
    if record["gate"] is not None:
        return {"problem": record["gate"]}
    if record["metric"]["name"] != "accuracy":
        return {"problem": f"is judged by {record['metric']['name']}, not by accuracy"}
    return measured(record["columns"]["model"]["accuracy"], load(folder / "model.sec"), plan)


def measured(accuracy: float, image: Image, plan: Plan) -> dict[str, Any]:
    """All objectives of an image.

    Parameters
    ----------
    accuracy : of the image, 0 to 1
    image : the image
    plan : has the clock
    """
    geometry = image.geometry
    banks = geometry.bank_words * geometry.n * geometry.p * 8
    return {
        "accuracy": accuracy,
        "cycles": image.cycles,
        "milliseconds": image.cycles / (1000 * plan.clock_mhz),
        "rom_bytes": len(image.stream),
        "multipliers": geometry.multipliers,
        "memory_bits": geometry.weight_words * geometry.word_bits + banks,
        "picojoules": estimate(image)["pruned"]["picojoules"]["total"],
    }

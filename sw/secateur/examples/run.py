"""``secateur example``: an application from data to Verilog, dense and pruned side by side."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from secateur import api
from secateur.callables import function
from secateur.disk.lock import held
from secateur.disk.storage import write_atomically
from secateur.errors import SecateurError
from secateur.image.image import Image, load
from secateur.progress import Progress, silent
from secateur.pruning.recipes.data.data import Data
from secateur.pruning.recipes.recipe import load_recipe
from secateur.pruning.recipes.run import run_held
from secateur.report.energy import estimate

#: Names of the examples, and their summaries.
EXAMPLES = {
    "security": "face or no face: MTCNN's R-Net, weight blocks pruned",
    "home": "who speaks: a GRU, hidden units pruned",
    "traffic": "traffic signs: a CNN, weight blocks pruned; needs GTSRB in SECATEUR_DATA",
}
#: Held-out samples that go through Verilator.
SIMULATED = 4


def run_example(
    name: str, folder: Path, *, clock_mhz: float, progress: Progress = silent
) -> dict[str, Any]:
    """Run the recipe of an example, simulate, and write ``example.json`` to ``folder``.

    An interrupted run in the folder is resumed.

    Parameters
    ----------
    name : one of `EXAMPLES`
    folder : made if it is missing
    clock_mhz : for latencies
    progress : called after every epoch and stage

    Returns
    -------
    dict : figures of the dense and of the pruned network. ``gate`` is None, or why the run has
        failed: raise it as an error.

    Raises
    ------
    SecateurError : no such example, its data are missing, Verilog and golden differ, or another run
        is going on in the folder
    """
    if name not in EXAMPLES:
        raise SecateurError(f"no example {name!r}; there are {', '.join(EXAMPLES)}")
    if not 0 < clock_mhz < math.inf:
        raise SecateurError(f"--clock must be above 0, not {clock_mhz:g}")
    with held(folder):
        return _run_held(name, folder, clock_mhz, progress)


def _run_held(name: str, folder: Path, clock_mhz: float, progress: Progress) -> dict[str, Any]:
    recipe = load_recipe(Path(__file__).parent / f"{name}.toml")
    record = run_held(recipe, folder, resume=True, progress=progress)
    images = {key: load(folder / f"{key}.sec") for key in ("dense", "model")}
    data = Data.of(function("data.load", recipe.data.load)(recipe.seed), recipe.data.load)
    shown = data.test.some(SIMULATED, recipe.seed)[0]
    result = api.simulate(images["model"], shown.numpy())
    if result.mismatches:
        raise SecateurError(f"Verilog and golden differ: {result.mismatches[0]}")
    steps = shown.shape[1] if images["model"].metadata["states"] else 1
    found = {
        "name": name,
        "what": EXAMPLES[name],
        "target": recipe.target,
        "clock_mhz": clock_mhz,
        "steps": steps,
        "samples": data.test.count,
        "dense": _column(record, "dense", images["dense"], clock_mhz, steps),
        "pruned": _column(record, "model", images["model"], clock_mhz, steps),
        "agreement": record["agreement"],
        "widths": record["results"].get("widths", {}),
        "simulated": {"samples": len(shown), "layers_compared": result.layers_compared},
        "gate": record["gate"],
        "folder": str(folder),
    }
    write_atomically(folder / "example.json", json.dumps(found, indent=1).encode())
    return found


def _column(
    record: dict[str, Any], name: str, image: Image, clock_mhz: float, steps: int
) -> dict[str, Any]:
    found = record["columns"][name]
    picojoules = estimate(image)["pruned"]["picojoules"]["total"]
    return {
        "accuracy": found["accuracy"],
        "cycles": found["cycles"],
        "milliseconds": found["cycles"] * steps / clock_mhz / 1e3,
        "microjoules": picojoules * steps / 1e6,
        "rom_bytes": found["rom_bytes"],
        "blocks": found["blocks"],
    }

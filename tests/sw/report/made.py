"""What the reports of the tests are of: images, and the folders of a run, a study and a build."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from secateur.compiler.compiler import compile_network
from secateur.hw.spec import Geometry
from secateur.image.image import Image
from secateur.models import Autoencoder
from secateur.pruning.recipes.recipe import load_recipe
from secateur.pruning.recipes.run import run_recipe
from secateur.target import Target
from tests.support.networks import mlperf_tiny, random_input, random_network, resnet8
from tests.support.pipeline import build

TINY = Path(__file__).parents[2] / "data" / "tiny.toml"
GEOMETRIES = (
    Geometry(n=8, p=8, weight_words=1 << 16, bank_words=4096, s=8),
    Geometry(n=2, p=3, weight_words=1 << 16, bank_words=1 << 14),
)
#: A name that would run a script, were it taken for HTML.
EVIL = "</script><img src=x onerror=alert(1)><b>&amp;'\"{{ 7 }}"
KEYS = (
    "float", "dense int8", "int8", "drop", "agreement", "cycles", "cycles dense", "rom bytes",
    "density of dense",
)  # fmt: skip


@cache
def image_of(which: int | str, geometry: Geometry = GEOMETRIES[0]) -> Image:
    """An image: of a random network by its seed, of ResNet-8, or of the autoencoder."""
    model: nn.Module
    if isinstance(which, int):
        model, shape = random_network(which)
    else:
        kinds = {
            "autoencoder": lambda: mlperf_tiny(Autoencoder, 0.25),
            "resnet8": lambda: resnet8(0),
        }
        model, shape = kinds[which]()
    built = build(model, random_input(0, shape, 4))
    return compile_network(built.network, Target(name="any", geometry=geometry))


def renamed(image: Image, behind: str) -> Image:
    """The image with ``behind`` at the end of the names of all layers and tensors."""
    metadata = image.metadata
    names = {entry["name"] for key in ("layers", "tensors") for entry in metadata[key]}
    names |= {layer["kind"] for layer in metadata["layers"]}

    def change(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: change(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [change(inner) for inner in value]
        return f"{value}{behind}" if isinstance(value, str) and value in names else value

    changed = {key: change(metadata[key]) for key in ("layers", "tensors", "memory", "states")}
    ports = {
        key: [port | {"tensor": port["tensor"] + behind} for port in metadata[key]]
        for key in ("inputs", "outputs")
    }
    return replace(image, metadata=metadata | changed | ports)


def make_run(folder: Path) -> None:
    """The folder of a recipe's run."""
    run_recipe(load_recipe(TINY), folder)


def make_study(folder: Path, run: Path) -> dict[str, Any]:
    """The folder of a study, made of copies of a run; returns its variants."""
    variants: dict[str, Any] = {}
    for at, name in enumerate(("recipe", "uniform")):
        for seed in (3, 4):
            shutil.copytree(run, folder / f"{name}-{seed}")
        variants[name] = {
            key: {
                "mean": 0.5 + at if "cycles" not in key else 1400 - at,
                "deviation": 0.1,
                "runs": 2,
            }
            for key in KEYS
        }
    metric = {"name": "accuracy", "direction": "max"}
    study = {"seeds": [3, 4], "metric": metric, "variants": variants}
    (folder / "study.json").write_text(json.dumps(study))
    return variants


def make_build(folder: Path) -> dict[str, Any]:
    """The folder of a build; returns its report."""
    folder.mkdir()
    report = {
        "title": "a board", "device": "a part", "seed": 5, "clock_mhz": 36.0, "fmax_mhz": 41.5,
        "resources": {
            "LOGIC": {"used": 4000, "available": 5280}, "RAM": {"used": 30, "available": 30},
        },
        "slowest_path": [
            {"type": "logic", "ns": 1.25, "from": "a", "to": "b"},
            {"type": "routing", "ns": 2.5, "from": "b", "to": EVIL},
        ],
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report))
    routed = {
        "clk": {"achieved": 30.5, "constraint": 36},
        "other": {"achieved": 90, "constraint": 1},
    }
    (folder / "report-6.json").write_text(json.dumps({"fmax": routed}))
    return report

"""The commands that train: the demo, recipes, studies and examples."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.common import Commands, Json, bar, stage_bar
from secateur.cli.terminal import emit
from secateur.errors import SecateurError

recipes = Commands()


@recipes.command(epilog="Example: secateur demo -o demo-out")
def demo(
    output: Annotated[Path, typer.Option("-o", "--output-dir")] = Path("demo-out"),
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    as_json: Json = False,
) -> None:
    """Train, prune, quantise, compile and verify a small CNN on MNIST-5k."""
    from secateur.cli.tables import show_demo
    from secateur.examples.demo import run_demo

    with bar() as progress:
        data = run_demo(output, seed, stage_bar(progress))
    emit(data, as_json, show_demo)


@recipes.command(
    epilog="Example: secateur prune docs/recipes/mnist.toml --cycles 30000 --max-drop 1 -o out"
)
def prune(
    recipe: Annotated[Path, typer.Argument(help="TOML file, see docs/pruning.md.")],
    output: Annotated[Path, typer.Option("-o", "--output-dir")] = Path("prune-out"),
    cycles: Annotated[int | None, typer.Option(min=1, help="Cycles of an inference.")] = None,
    latency: Annotated[float | None, typer.Option(help="Milliseconds, at --clock.")] = None,
    clock: Annotated[float | None, typer.Option(help="MHz.")] = None,
    rom: Annotated[int | None, typer.Option(min=1, help="Bytes of the image.")] = None,
    density: Annotated[float | None, typer.Option(help="Share of the blocks kept.")] = None,
    max_drop: Annotated[
        float | None, typer.Option(min=0.0, help="Points of int8 accuracy that may be lost.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on where the last run stopped.")] = False,
    as_json: Json = False,
) -> None:
    """Train, prune to a budget, recover, quantise, compile and verify, as a recipe says."""
    from secateur.cli.tables import show_prune
    from secateur.pruning.recipes.recipe import load_recipe
    from secateur.pruning.recipes.run import run_recipe

    budget = {"cycles": cycles, "latency_ms": latency, "clock_mhz": clock}
    budget |= {"rom_bytes": rom, "density": density}
    loaded = load_recipe(recipe, budget=budget, max_drop=max_drop)
    sys.path.insert(0, str(Path.cwd()))  # where the recipe's modules are looked for
    with bar() as progress:
        data = run_recipe(loaded, output, resume=resume, progress=stage_bar(progress))
    emit(data, as_json, show_prune)
    if data["gate"] is not None:
        raise SecateurError(data["gate"])


@recipes.command(epilog="Example: secateur example home -o home-out")
def example(
    name: Annotated[str, typer.Argument(help="security, home or traffic: docs/examples.")],
    output: Annotated[Path | None, typer.Option("-o", "--output-dir")] = None,
    clock: Annotated[float, typer.Option(help="MHz, for latencies.")] = 150.0,
    as_json: Json = False,
) -> None:
    """Run a use on small hardware: train, prune, quantise, compile, simulate, compare."""
    from secateur.cli.tables import show_example
    from secateur.examples.run import run_example

    folder = Path(f"{name}-out") if output is None else output
    with bar() as progress:
        data = run_example(name, folder, clock_mhz=clock, progress=stage_bar(progress))
    emit(data, as_json, show_example)
    if data["gate"] is not None:
        raise SecateurError(data["gate"])


@recipes.command(epilog="Example: secateur study docs/recipes/mnist-study.toml -o out")
def study(
    file: Annotated[Path, typer.Argument(help="TOML file, see docs/pruning.md.")],
    output: Annotated[Path, typer.Option("-o", "--output-dir")] = Path("study-out"),
    as_json: Json = False,
) -> None:
    """Run variants of a recipe with several seeds, side by side; goes on where it was stopped."""
    from secateur.cli.tables import show_study
    from secateur.pruning.recipes.study import load_study, run_study

    loaded = load_study(file)
    sys.path.insert(0, str(Path.cwd()))  # where the recipe's modules are looked for
    with bar() as progress:
        data = run_study(loaded, output, progress=stage_bar(progress))
    emit(data, as_json, show_study)
    if data["gate"] is not None:
        raise SecateurError(data["gate"])

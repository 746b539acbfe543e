"""The commands that train: the demo, recipes, studies and examples."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from secateur.callables import find_in_current_folder
from secateur.cli.common import Commands, Json, ReportFile, SchedulerAddress, bar, stage_bar
from secateur.cli.reports import reported
from secateur.cli.tables import show_report, table
from secateur.cli.terminal import Data, console, emit
from secateur.errors import SecateurError

recipes = Commands("Prune")

#: How a budget is called in the output, where that is not its key.
_BUDGETS = {"rom_bytes": "ROM bytes", "time": "cycles with waits for the source"}

OutputFolder = Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")]


@recipes.command(epilog="Example: secateur demo -o demo-out")
def demo(
    output: OutputFolder = Path("demo-out"),
    seed: Annotated[int, typer.Option(min=0, max=(1 << 32) - 1, help="Random seed.")] = 0,
    as_json: Json = False,
) -> None:
    """Train, prune, quantise, compile and verify a small CNN on MNIST-5k."""
    from secateur.examples.demo import run_demo

    with bar() as progress:
        data = run_demo(output, seed, stage_bar(progress))
    emit(data, as_json, show_demo)


@recipes.command(epilog="Example: secateur prune mnist --cycles 30000 --max-drop 1 -o out")
def prune(
    recipe: Annotated[
        Path, typer.Argument(help="TOML file, or name of one of Secateur's recipes.")
    ],
    output: OutputFolder = Path("prune-out"),
    cycles: Annotated[int | None, typer.Option(min=1, help="Budget: cycles per inference.")] = None,
    latency: Annotated[float | None, typer.Option(help="Budget: milliseconds, at --clock.")] = None,
    clock: Annotated[float | None, typer.Option(help="Clock for --latency, in MHz.")] = None,
    rom: Annotated[int | None, typer.Option(min=1, help="Budget: bytes of the image.")] = None,
    density: Annotated[
        float | None, typer.Option(help="Budget: share of the blocks that is kept, 0 to 1.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Most points of int8 accuracy that may be lost, or of another metric.",
        ),
    ] = None,
    no_training: Annotated[
        bool,
        typer.Option(
            "--no-training", help="Train nothing: fit what stays to the dense model's outputs."
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume from where the last run stopped.")
    ] = False,
    report: ReportFile = None,
    as_json: Json = False,
) -> None:
    """Train, prune to a budget, recover, quantise, compile and verify, by a recipe.

    Options override the recipe.
    """
    from secateur.pruning.recipes.recipe import load_recipe
    from secateur.pruning.recipes.run import run_recipe

    budget = {"cycles": cycles, "latency_ms": latency, "clock_mhz": clock}
    budget |= {"rom_bytes": rom, "density": density}
    loaded = load_recipe(recipe, budget=budget, max_drop=max_drop, training=not no_training)
    find_in_current_folder()  # modules that the recipe names
    with bar() as progress:
        data = run_recipe(loaded, output, resume=resume, progress=stage_bar(progress))
    emit(data | reported(output, report), as_json, show_prune)
    if data["gate"] is not None:
        raise SecateurError(data["gate"])


@recipes.command(epilog="Example: secateur example home -o home-out")
def example(
    name: Annotated[str, typer.Argument(help="Name of the example: security, home or traffic.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder to write to; by default NAME-out."),
    ] = None,
    clock: Annotated[float, typer.Option(help="Clock for the latencies, in MHz.")] = 150.0,
    as_json: Json = False,
) -> None:
    """Run an example on small hardware: train, prune, quantise, compile, simulate, compare."""
    from secateur.examples.run import run_example

    folder = Path(f"{name}-out") if output is None else output
    with bar() as progress:
        data = run_example(name, folder, clock_mhz=clock, progress=stage_bar(progress))
    emit(data, as_json, show_example)
    if data["gate"] is not None:
        raise SecateurError(data["gate"])


@recipes.command(epilog="Example: secateur study mnist-study -o out")
def study(
    file: Annotated[Path, typer.Argument(help="TOML file, or name of one of Secateur's studies.")],
    output: OutputFolder = Path("study-out"),
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that make the runs, each with one thread."),
    ] = None,
    scheduler: SchedulerAddress = None,
    report: ReportFile = None,
    as_json: Json = False,
) -> None:
    """Run variants of a recipe with several seeds; resumes from where it was stopped.

    Without --workers and --scheduler the runs follow each other. The runs do not depend on the
    number of workers.
    """
    from secateur.pruning.explore.study import load_study, run_study

    loaded = load_study(file)
    find_in_current_folder()  # modules that the recipe names
    with bar() as progress:
        data = run_study(
            loaded, output, workers=workers, scheduler=scheduler, progress=stage_bar(progress)
        )
    emit(data | reported(output, report), as_json, show_study)
    if data["gate"] is not None:
        raise SecateurError(data["gate"])


def show_demo(data: Data) -> None:
    """Summary of the demo."""
    rows = table("MNIST-5k on 8x8", "", "dense", "pruned")
    for row in data["table"]:
        rows.add_row(*row)
    console.print(rows)
    console.print(
        f"Checked: 2 models x {data['golden_images'] // 2:,} images PyTorch = golden (results), "
        f"{data['layer_images']} images on every layer, those of the pruned model in Verilator too "
        f"({data['layers_compared']} layer comparisons), {data['mismatches']} differences."
    )
    console.print("Results:")
    for name in data["files"]:
        console.print(f"  {name}")
    pruned = next(name for name in data["files"] if name.endswith("pruned.sec"))
    console.print(f"Next: secateur inspect {shlex.quote(pruned)}")


def show_prune(data: Data) -> None:
    """Dense int8 beside pruned int8, and the accuracy after each stage."""
    dense, pruned = data["columns"]["dense"], data["columns"]["model"]
    rows = table(f"{data['recipe']['target']}, int8", "", "dense", "pruned")

    def row(label: str, style: str, *keys: str) -> None:
        values = [[column[key] for key in keys] for column in (dense, pruned)]
        shown = [v[0] / v[1] if len(v) == 2 else v[0] for v in values]
        rows.add_row(label, *(format(value, style) for value in shown))

    metric = data["metric"]["name"]
    label, style = _shown(metric)
    row(label, style, metric)
    if "loss" in dense:
        row("loss", ".4f", "loss")
    row("cycles per inference", ",", "cycles")
    row("bound: nonzero MACs / multipliers", ",.0f", "bound_cycles")
    row("ROM bytes", ",", "rom_bytes")
    row("density of blocks", ".1%", "blocks", "blocks_total")
    if data["agreement"] is not None:
        rows.add_row("same answer as dense", "", f"{data['agreement']:.2%}")
    console.print(rows)
    floats = [("float", "trained"), ("pruned", "pruned"), ("recovered", "recovered")]
    path = [f"{stage} {data['results'][key][metric]:{style}}" for key, stage in floats]
    console.print(f"{label.capitalize()} in float: {', '.join(path)}.")
    budget = data["budget"]
    limits = ", ".join(
        f"{budget['spent'][name]:,} of {limit:,} {_BUDGETS.get(name, name)}"
        for name, limit in budget["limits"].items()
    )
    console.print(f"Budget: {limits}; {budget['used']:.1%} of the tightest budget.")
    if data["sensitivity"]:
        shown = [(metric, label, style), ("loss", "loss", ".4f")]
        shown = [figure for figure in shown if figure[0] in data["sensitivity"][0]]
        names = [name for _, name, _ in shown]
        scan = table("One layer pruned, no recovery", "layer", "density", *names)
        for found in data["sensitivity"]:
            numbers = [f"{found['density']:.2f}", *(f"{found[key]:{of}}" for key, _, of in shown)]
            scan.add_row(found["layer"], *numbers)
        console.print(scan)
    if data["robustness"]:
        attacks = table(f"{label.capitalize()}, float", "under", "strength", "dense", "pruned")
        for found in data["robustness"]:
            shares = (f"{found['dense']:{style}}", f"{found['pruned']:{style}}")
            attacks.add_row(found["what"], f"{found['strength']:g}", *shares)
        console.print(attacks)
    console.print(f"Results: {data['folder']}/model.sec, {data['folder']}/record.json")
    show_report(data)


def _shown(metric: str) -> tuple[str, str]:
    """How a metric is called in tables, and the format of its values."""
    return (metric, ".2%") if metric == "accuracy" else (metric.partition(":")[2], ".4g")


def show_example(data: Data) -> None:
    """An example, dense beside pruned."""
    dense, pruned = data["dense"], data["pruned"]
    shown = table(f"{data['what'].split(';')[0]}; {data['target']}, int8", "", "dense", "pruned")
    sequence = "" if data["steps"] == 1 else f", {data['steps']} steps"
    rows = [
        ("accuracy", "accuracy", ".2%"),
        ("cycles per step" if sequence else "cycles per inference", "cycles", ",.0f"),
        (f"milliseconds at {data['clock_mhz']:g} MHz{sequence}", "milliseconds", ",.3f"),
        (f"microjoules, an estimate{sequence}", "microjoules", ",.2f"),
        ("ROM bytes", "rom_bytes", ",.0f"),
        ("weight blocks", "blocks", ",.0f"),
    ]
    for label, key, style in rows:
        shown.add_row(label, format(dense[key], style), format(pruned[key], style))
    shown.add_row("same answer as dense", "", f"{data['agreement']:.2%}")
    console.print(shown)
    gone = [f"{name} {a} to {b}" for name, (a, b) in data["widths"].items() if a != b]
    if gone:
        console.print(f"Channels: {', '.join(gone)}.")
    console.print(
        f"{data['samples']:,} samples in the golden interpreter, "
        f"{data['simulated']['samples']} of them in Verilator, every layer "
        f"({data['simulated']['layers_compared']} comparisons): no difference.",
    )
    console.print(f"Results: {data['folder']}/model.sec, example.json, record.json")


def show_study(data: Data) -> None:
    """Variants of a recipe: mean and standard deviation over the seeds."""
    columns = ("float", "dense int8", "int8", "drop", "cycles", "rom bytes", "density of dense")
    count = len(data["seeds"])
    shown = table(
        f"Mean and standard deviation of {count} seed{'s' * (count > 1)}", "variant", *columns
    )
    _, of_metric = _shown(data["metric"]["name"])
    styles = {"cycles": ",.0f", "rom bytes": ",.0f", "density of dense": ".2%"}
    for name, row in data["variants"].items():
        cells = []
        for column in columns:
            style = styles.get(column, of_metric)
            found = row[column]
            spread = f" ±{found['deviation']:{style}}" if found["runs"] > 1 else ""
            cells.append(f"{found['mean']:{style}}{spread}")
        shown.add_row(name, *cells)
    console.print(shown)
    console.print(f"Results: {data['folder']}/study.json")
    show_report(data)

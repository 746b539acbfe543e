"""The commands that run an image: run, simulate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.common import (
    Commands,
    ImageFile,
    InputFile,
    Json,
    Key,
    MaxMegabytes,
    ResultFile,
    bar,
    inputs_of,
    of_file,
    results_of,
    save_outputs,
    stage_bar,
)
from secateur.cli.tables import show_run, table
from secateur.cli.terminal import Data, console, emit, progress_console
from secateur.disk.limits import DEFAULT, Limits
from secateur.errors import SecateurError

running = Commands("Run")


@running.command(epilog="Example: secateur run model.sec --input x.npz -o y.npz")
def run(
    image: ImageFile,
    input: InputFile,
    output: ResultFile = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Run only that many inputs, the first ones.")
    ] = None,
    max_megabytes: MaxMegabytes = DEFAULT.megabytes,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Run inputs through the golden interpreter: exact results and cycles of the array, fast."""
    from secateur import api

    loaded = api.load(image, key)
    x = inputs_of(input, loaded, limit, Limits(megabytes=max_megabytes))
    with bar() as progress, of_file(input):
        outputs = api.run(loaded, x, stage_bar(progress))
    if output is not None:
        save_outputs(output, outputs)
    data = {
        "cycles": outputs.cycles,
        "images": len(next(iter(x.values()))),
        **results_of(outputs),
        "file": None if output is None else str(output),
    }
    emit(data, as_json, show_run)


@running.command(epilog="Example: secateur simulate model.sec --input x.npz --limit 4 --stalls 0.2")
def simulate(
    image: ImageFile,
    input: InputFile,
    output: ResultFile = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Simulate only that many inputs, the first ones.")
    ] = 1,
    stalls: Annotated[
        float, typer.Option(min=0.0, max=0.95, help="Probability that a port pauses in a cycle.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Random seed of the pauses.")] = 0,
    waves: Annotated[
        Path | None, typer.Option(help="Waveforms of the run to write, an .fst file.")
    ] = None,
    rom: Annotated[
        bool, typer.Option("--rom", help="Put the image into ROM instead of loading it.")
    ] = False,
    max_megabytes: MaxMegabytes = DEFAULT.megabytes,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Run the Verilog in Verilator and compare every layer with the golden interpreter."""
    from secateur import api

    loaded = api.load(image, key)
    x = inputs_of(input, loaded, limit, Limits(megabytes=max_megabytes))
    result = api.simulate(loaded, x, stalls=stalls, seed=seed, waves=waves, rom=rom, progress=say)
    if output is not None and result.outputs is not None:
        save_outputs(output, result.outputs)
    data = {
        "cycles": result.cycles,
        "predicted_cycles": result.predicted_cycles,
        "memory_wait": result.memory_wait,
        "predicted_memory_wait": result.predicted_memory_wait,
        "mismatches": len(result.mismatches),
        "differences": result.mismatches,
        "images": result.images,
        "layers_compared": result.layers_compared,
        "outputs": None if result.outputs is None else results_of(result.outputs)["outputs"],
    }
    emit(data, as_json, show_simulation)
    if result.mismatches:
        raise SecateurError(
            f"{image}: {len(result.mismatches)} differences between the Verilog and the golden "
            f"interpreter; please report a bug of Secateur"
        )


def say(stage: str, done: int, total: int, note: str) -> None:
    """Print a step of a simulation.

    Parameters
    ----------
    stage, done, total, note : as for `secateur.progress.Progress`
    """
    progress_console.print(f"{stage}: {note}")


def show_simulation(data: Data) -> None:
    """Verilator beside the golden interpreter."""
    rows = table("Verilator and golden interpreter", "", "")
    rows.add_row("inputs", str(data["images"]))
    rows.add_row("layers compared", str(data["layers_compared"]))
    rows.add_row("differences", str(data["mismatches"]))
    rows.add_row("cycles, Verilog", f"{data['cycles']:,}")
    rows.add_row("cycles, predicted", f"{data['predicted_cycles']:,}")
    if data["predicted_memory_wait"]:
        rows.add_row("cycles besides: waiting for the source", f"{data['memory_wait']:,}")
        rows.add_row("  predicted", f"{data['predicted_memory_wait']:,}")
    console.print(rows)
    for difference in data["differences"][:10]:
        console.print(f"  {difference}")

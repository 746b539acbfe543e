"""The commands that estimate what an image costs: energy, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.common import Commands, ImageFile, Json
from secateur.cli.tables import table
from secateur.cli.terminal import Data, console, emit, progress_console

estimates = Commands("Model")


@estimates.command(epilog="Example: secateur energy model.sec --table mine.toml")
def energy(
    image: ImageFile,
    energies: Annotated[
        Path | None,
        typer.Option("--table", help="TOML file of energies per operation."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate the energy per inference, dense and pruned, from exact counts of operations."""
    from secateur.image import image as images
    from secateur.report.energy import HOROWITZ, estimate, load_energies

    chosen = HOROWITZ if energies is None else load_energies(energies)
    emit(estimate(images.load(image), chosen), as_json, show_energy)


@estimates.command(epilog="Example: secateur compare model.sec --tflite model.tflite")
def compare(
    image: ImageFile,
    tflite: Annotated[Path, typer.Option(help="The same network as an int8 TensorFlow Lite file.")],
    accelerator: Annotated[
        list[str] | None,
        typer.Option(
            help="Vela's name, such as ethos-u55-64; repeat the option for several.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare the image's cycles with Arm Vela's estimates for Ethos-U55."""
    from secateur.image import image as images
    from secateur.report import compare as comparison

    loaded = images.load(image)
    with progress_console.status("running Vela"):
        data = comparison.compare(loaded, tflite, accelerator or comparison.DEFAULT)
    emit(data | {"image": str(image)}, as_json, show_compare)


def show_energy(data: Data) -> None:
    """Estimated energy per layer, dense and pruned."""
    rows = table("Estimated energy per inference, nJ", "layer", "dense", "pruned", "share")
    for row in data["layers"]:
        dense, pruned = (row[key]["picojoules"]["total"] for key in ("dense", "pruned"))
        share = f"{pruned / dense:.1%}" if dense else ""
        rows.add_row(row["name"], f"{dense / 1e3:,.1f}", f"{pruned / 1e3:,.1f}", share)
    for part in sorted(data["pruned"]["picojoules"], key=lambda part: part != "total"):
        dense, pruned = (data[key]["picojoules"][part] for key in ("dense", "pruned"))
        share = f"{pruned / dense:.1%}" if dense else ""
        name = "all layers" if part == "total" else f"  of which: {part}"
        rows.add_row(name, f"{dense / 1e3:,.1f}", f"{pruned / 1e3:,.1f}", share)
    console.print(rows)
    counts = data["pruned"]["counts"]
    skipped = data["dense"]["counts"]["macs"] - counts["macs"]
    console.print(
        f"Multiply-accumulates: {counts['macs']:,} issued ({data['macs_nonzero']:,} with a nonzero "
        f"weight), {skipped:,} skipped. The counts are exact; the energies are estimates from "
        f"{data['source']}.",
    )


def show_compare(data: Data) -> None:
    """Exact cycles of the image beside Vela's estimates."""
    columns = ("MACs", "cycles", "with memory", "x dense", "x pruned")
    rows = table(f"{data['image']} and {data['tflite']}: cycles", "", *columns)
    ours, vela = data["secateur"], data["vela"]
    for name in ("dense", "pruned"):
        cycles = ours["cycles_dense" if name == "dense" else "cycles"]
        rows.add_row(f"{ours['target']} {name}, exact", f"{ours['multipliers']}", f"{cycles:,}")
    for row in data["estimates"]:
        cells = [f"{row['multipliers']}", f"{row['cycles']:,}", f"{row['cycles_total']:,}"]
        ratio = row["ratio"]
        cells += ["", ""] if ratio is None else [f"{ratio[key]:.2f}" for key in ("dense", "pruned")]
        rows.add_row(f"{row['accelerator']}, estimate", *cells)
    console.print(rows)
    console.print(
        f"Exact: the compiler's count, which the Verilog matches to the cycle. Dense is the same "
        f"network with every block kept. The input's {ours['input_words']:,} words, one per cycle, "
        f"are not counted. Estimate: Vela {vela['version']}'s model of the NPU, "
        f"{vela['system_config']}, {vela['memory_mode']}: weights and tensors in SRAM at the NPU's "
        f"clock. Ratios are Vela's cycles divided by ours, with the same number of multipliers.",
    )
    for row in data["estimates"]:
        if row["cpu_operators"]:
            console.print(
                f"{row['accelerator']} leaves {row['cpu_operators']} operators to the CPU; their "
                f"time is not counted."
            )
    if all(row["ratio"] is None for row in data["estimates"]):
        console.print(f"None of them has {ours['multipliers']} multipliers: no ratio.")

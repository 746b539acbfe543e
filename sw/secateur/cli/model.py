"""The commands for a model and its image: compile, inspect."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from secateur.callables import find_in_current_folder
from secateur.cli.common import (
    Commands,
    ImageFile,
    Json,
    ReportFile,
    TargetName,
    calibration,
    naming,
)
from secateur.cli.reports import reported
from secateur.cli.tables import percent, show_report, table
from secateur.cli.terminal import Data, Rows, console, emit
from secateur.disk.limits import DEFAULT, Limits
from secateur.errors import SecateurWarning
from secateur.text import name

models = Commands("Model")

#: A clock for figures per second; those of boards are from 12 to 200 MHz.
_MHZ = 100


@models.command(
    epilog="Example: secateur compile model.pt2 --calibrate x.npz --target 8x8 -o model.sec"
)
def compile(
    model: Annotated[
        str,
        typer.Argument(
            help="Model: torch.export archive (float or PT2E-converted), ONNX file, or "
            "package.module:callable, which is called with a seed of 0 and returns a module."
        ),
    ],
    target: TargetName,
    output: Annotated[Path, typer.Option("-o", "--output", help="Image to write.")],
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help=".npz file with float inputs (key x; of several inputs their names); a float "
            "model needs it."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Compare every layer of the image with PyTorch on a few inputs.")
    ] = True,
    max_nodes: Annotated[
        int, typer.Option(min=1, help="Most operations in a model file.")
    ] = DEFAULT.nodes,
    max_megabytes: Annotated[
        int, typer.Option(min=1, help="Largest size of a model file, unpacked, in MB.")
    ] = DEFAULT.megabytes,
    as_json: Json = False,
) -> None:
    """Compile a model to an image: quantise it if it is in float, schedule and encode it.

    Blocks of zero weights are pruned: the image does not store them.
    """
    from secateur import api
    from secateur.report.summary import summary
    from secateur.sources import is_callable, load_model
    from secateur.target import Target

    chosen = Target.load(target)
    limits = Limits(max_nodes, max_megabytes)
    if is_callable(model):
        find_in_current_folder()
    found, notes = load_model(model, calibrated=calibrate is not None, limits=limits)
    data = None if calibrate is None else calibration(calibrate, found, limits)
    for note in notes:
        warnings.warn(f"{model}: {note}", SecateurWarning, stacklevel=1)
    with naming(calibrate):
        image = api.compile(found, target=chosen, calibration=data, check=check)
    image.save(output)
    emit(summary(image) | {"output": str(output)}, as_json, show_summary)


@models.command(epilog="Example: secateur inspect model.sec")
def inspect(image: ImageFile, report: ReportFile = None, as_json: Json = False) -> None:
    """Show layers, densities, cycles beside the bound, memory map and overflow certificate."""
    from secateur.image import image as images
    from secateur.report.summary import summary

    loaded = images.load(image)
    figures = summary(loaded)
    layouts = {key: loaded.metadata[key] for key in ("inputs", "outputs")}
    emit(figures | {"layouts": layouts} | reported(image, report), as_json, show_inspection)


def show_summary(data: Data) -> None:
    """Totals of an image."""
    title = f"{data.get('output', 'image')} for {data['target']}"
    totals = table(title, "", "pruned", "dense")
    per = "step" if data["states"] else "inference"
    totals.add_row(f"cycles per {per}", f"{data['cycles']:,}", f"{data['cycles_dense']:,}")
    if data["steps"]:
        both = (f"{data['steps'] * data[key]:,}" for key in ("cycles", "cycles_dense"))
        totals.add_row(f"cycles per sequence of {data['steps']} steps", *both)
    if data["fill_cycles"]:
        fills = f"{data['fill_cycles']:,}"
        totals.add_row("of these: filling tables", fills, fills)
    totals.add_row("bound: nonzero MACs / multipliers", f"{data['bound_cycles']:,.0f}", "")
    totals.add_row("N:1 blocks", f"{data['blocks']:,}", f"{data['blocks_total']:,}")
    totals.add_row(
        "stream words / weight memory", f"{data['words']:,}", f"{data['weight_words']:,}"
    )
    _add_ring(totals, data)
    if data["bits_per_dense_weight"]:
        totals.add_row("stream bits per dense weight", f"{data['bits_per_dense_weight']:.2f}", "")
    if data["sqnr"]:
        totals.add_row("signal to quantisation noise, dB", f"{data['sqnr']['found']:.1f}", "")
    console.print(totals)


def _add_ring(totals: Rows, data: Data) -> None:
    """The ring, and for how long an inference waits for its source."""
    ring = data["ring"]
    if ring is None:
        return
    totals.add_row("words of the ring", f"{ring['words']:,}", "")
    rate = f"a byte in {ring['interval']}, latency {ring['latency']:,}"
    totals.add_row("source, in cycles", rate, "")
    waits = ring["memory_wait"]
    totals.add_row("cycles besides: waiting for it", f"{waits['full']:,}", "")
    totals.add_row("  the next input at once", f"{waits['next']:,}", "")


def _show_interval(data: Data) -> None:
    """Inferences one after the other, whose inputs are there in time."""
    interval = data["interval"]
    if interval is None:
        return
    found = table("Inferences one after the other", "next input", "cycles", f"per s at {_MHZ} MHz")
    opens = interval.get("opens")
    for when, key in ((f"from layer {opens} on", "cycles"), ("after the inference", "alone")):
        if key == "alone" or opens is not None:
            rate = _MHZ * 1e6 / interval[key]
            found.add_row(when, f"{interval[key]:,}", f"{rate:,.0f}")
    console.print(found)
    if opens is None:
        console.print(f"The next input is taken after the inference: {name(interval['why'])}.")


def _show_waits(data: Data) -> None:
    """Layers that wait for the source of the ring."""
    waits = table("Waiting for the ring's source, cycles", "layer", "ring full", "input at once")
    for layer in data["layers"] if data["ring"] is not None else []:
        wait = layer["memory_wait"]
        if wait["full"] or wait["next"]:
            waits.add_row(layer["name"], f"{wait['full']:,}", f"{wait['next']:,}")
    if waits.row_count:
        console.print(waits)


def _choice(layer: Data, both: bool) -> tuple[str, ...]:
    """Cycles of a layer's rows, and those with lanes of the other kind, filters or pixels."""
    if not both:
        return ()
    rows = f"{sum(layer['parts'][part] for part in ('headers', 'body', 'wait')):,}"
    other = layer.get("other")
    return rows, f"{other['deal']}: {other['cycles']:,}" if other else "-"


def show_inspection(data: Data) -> None:
    """All tables of ``inspect``."""
    show_summary(data)
    console.print(f"input words {data['input_words']}, result beats {data['result_beats']}")
    _show_interval(data)
    if data["states"]:
        console.print(f"An inference is one step; in the banks stay {', '.join(data['states'])}")
    # Two tables: one of all columns would be wider than 80 characters.
    layers = table("Layers", "layer", "cycles", "dense", "of bound", "blocks", "of all")
    both = any("other" in layer for layer in data["layers"])
    more = ("cycles of rows", "otherwise") if both else ()
    lanes = table("Pixel lanes", "layer", "kind", "lane mapping", "lanes busy", *more)
    for layer in data["layers"]:
        layers.add_row(
            layer["name"],
            f"{layer['cycles']:,}",
            f"{layer['cycles_dense']:,}",
            percent(layer["bound_cycles"], layer["cycles"]),
            f"{layer['blocks']:,}",
            f"{layer['blocks_total']:,}",
        )
        busy = percent(layer["lanes_busy"], 1)
        lanes.add_row(layer["name"], layer["kind"], layer["deal"], busy, *_choice(layer, both))
    console.print(layers)
    console.print(lanes)
    _show_waits(data)
    if data["pixels_only"]:
        console.print("No filter lanes: with them the image would not fit the weight memory.")
    _show_strips(data)
    _show_labels(data)
    memory = table("Bank memory", "tensor", "first word", "words", "cleared")
    for window in data["memory"]:
        cleared = "yes" if window["clear"] else ""
        memory.add_row(window["tensor"], str(window["base"]), str(window["words"]), cleared)
    console.print(memory)
    proof = table("Overflow certificate", "layer", "largest sum", "of the accumulator's range")
    for layer in data["layers"]:
        largest = layer["certificate"]["accumulator"]
        share = percent(largest, data["accumulator_limit"])
        proof.add_row(layer["name"], f"{largest:,}", share)
    console.print(proof)
    _show_noise(data)
    show_report(data)


def _show_strips(data: Data) -> None:
    """Which layers are in strips, and why."""
    strips = data["strips"]
    if strips is not None:
        what = "columns" if strips["axis"] else "rows"
        console.print(
            f"Layers {name(strips['first'])} to {name(strips['last'])} are in {strips['count']} "
            f"strips of {what}: the maps do not fit without. They need {strips['words']:,} words "
            f"of each bank at once, the target has {data['bank_words']:,}."
        )


def _show_noise(data: Data) -> None:
    """Signal to quantisation noise of the layers for which it was measured."""
    measured = [layer for layer in data["layers"] if "sqnr" in layer]
    noise = table("Signal to quantisation noise, dB", "layer", "found", "any scales", "lost")
    for layer in measured:
        found, free = layer["sqnr"]["found"], layer["sqnr"]["free"]
        noise.add_row(layer["name"], f"{found:.1f}", f"{free:.1f}", f"{free - found:.1f}")
    if measured:
        console.print(noise)


def _show_labels(data: Data) -> None:
    """Names of the layers in the model's file, if it has any."""
    labels = {layer["name"]: layer["label"] for layer in data["layers"] if layer.get("label")}
    names = table("Names in the model's file", "layer", "name there")
    for layer, label in labels.items():
        names.add_row(layer, label)
    if labels:
        console.print(names)

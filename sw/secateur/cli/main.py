"""The command line: arguments in, tables or JSON out. The work is elsewhere."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.boards import boards
from secateur.cli.common import (
    Commands,
    ImageFile,
    Json,
    Key,
    MaxMegabytes,
    arrays,
    bar,
    of_file,
    save_outputs,
    stage_bar,
)
from secateur.cli.device import device
from secateur.cli.pruning import recipes
from secateur.cli.terminal import emit, progress_console
from secateur.cli.updates import updates
from secateur.disk.limits import DEFAULT, Limits
from secateur.errors import SecateurError, SecateurWarning
from secateur.text import printable

INTERRUPTED = 130

app = Commands(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Prune, quantise and compile PyTorch models for a sparse MAC array, and run them on it.",
)
app.add_typer(boards)
app.add_typer(recipes)
app.add_typer(updates)
app.add_typer(device, name="device")
Out = Annotated[Path, typer.Option("-o", "--output-file", help="File to write.")]
TargetName = Annotated[
    str, typer.Option("--target", help="Preset (`secateur targets`) or TOML file.")
]


def main() -> None:
    """Entry point: bad input is one line on stderr and exit status 1, Ctrl-C status 130."""
    warnings.filterwarnings("ignore")
    warnings.filterwarnings("always", category=SecateurWarning)
    warnings.showwarning = lambda message, *_, **__: say(message)
    for name in ("torchao", "torch", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: a name may be anything
    try:
        app(standalone_mode=True)
    except SecateurError as error:
        say(error)
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != INTERRUPTED:  # typer's for Ctrl-C
            raise
        say("interrupted")
        sys.exit(INTERRUPTED)


def say(message: object) -> None:
    """A line on stderr."""
    print(f"secateur: {printable(message)}", file=sys.stderr)


@app.command(
    epilog="Example: secateur compile model.pt2 --calibrate x.npz --target 8x8 -o model.sec"
)
def compile(
    model: Annotated[
        str,
        typer.Argument(
            help="torch.export archive (float or PT2E-converted), ONNX, or "
            "package.module:callable, which is called with a seed, 0, and returns a module."
        ),
    ],
    target: TargetName,
    output: Out,
    calibrate: Annotated[
        Path | None, typer.Option(help=".npz with inputs (key x) in the model's units.")
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Compare the image with PyTorch, every layer, on a few inputs.")
    ] = True,
    max_nodes: Annotated[
        int, typer.Option(min=1, help="Operations that a model file may have.")
    ] = DEFAULT.nodes,
    max_megabytes: Annotated[
        int, typer.Option(min=1, help="What a model file, and what is made of it, may take.")
    ] = DEFAULT.megabytes,
    as_json: Json = False,
) -> None:
    """Quantise (if in float), schedule and encode a model; zeros in its weights are the pruning."""
    import torch

    from secateur import api
    from secateur.cli.tables import show_summary
    from secateur.report.summary import summary
    from secateur.sources import load_model
    from secateur.target import Target

    chosen = Target.load(target)
    data, limits = None, Limits(max_nodes, max_megabytes)
    if calibrate is not None:
        values = arrays(calibrate, limits=limits)
        if values.dtype.kind != "f":
            raise SecateurError(f"{calibrate}: calibration wants floats, not {values.dtype}")
        data = torch.from_numpy(values)
    sys.path.insert(0, str(Path.cwd()))  # where package.module:callable is looked for
    found, notes = load_model(model, calibrated=data is not None, limits=limits)
    for note in notes:
        warnings.warn(f"{model}: {note}", SecateurWarning, stacklevel=1)
    image = api.compile(found, target=chosen, calibration=data, check=check)
    image.save(output)
    emit(summary(image) | {"output": str(output)}, as_json, show_summary)


@app.command(epilog="Example: secateur run model.sec --input x.npz --output y.npz")
def run(
    image: ImageFile,
    input: Annotated[Path, typer.Option(help=".npz with inputs: floats, or int8/uint8 codes.")],
    output: Annotated[Path | None, typer.Option(help=".npz for codes and values.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first inputs.")] = None,
    max_megabytes: MaxMegabytes = DEFAULT.megabytes,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Run inputs through the golden interpreter: the array's exact results and cycles, fast."""
    from secateur import api
    from secateur.cli.tables import show_run

    loaded = api.load(image, key)
    x = arrays(input, limit=limit, limits=Limits(megabytes=max_megabytes))
    with bar() as progress, of_file(input):
        outputs = api.run(loaded, x, stage_bar(progress))
    if output is not None:
        save_outputs(output, outputs)
    data = {
        "cycles": outputs.cycles,
        "images": len(x),
        "outputs": outputs.values.tolist(),
        "codes": outputs.codes.tolist(),
        "file": None if output is None else str(output),
    }
    emit(data, as_json, show_run)


@app.command(epilog="Example: secateur simulate model.sec --input x.npz --limit 4 --stalls 0.2")
def simulate(
    image: ImageFile,
    input: Annotated[Path, typer.Option(help=".npz with inputs: floats, or int8/uint8 codes.")],
    limit: Annotated[int, typer.Option(min=1, help="Inputs to simulate.")] = 1,
    stalls: Annotated[
        float, typer.Option(min=0.0, max=0.95, help="Chance that a port pauses in a cycle.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the pauses.")] = 0,
    waves: Annotated[Path | None, typer.Option(help="Write waveforms to this .fst file.")] = None,
    rom: Annotated[bool, typer.Option(help="Image in ROM instead of loaded by stream.")] = False,
    max_megabytes: MaxMegabytes = DEFAULT.megabytes,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Run the Verilog in Verilator; compare every layer with the golden interpreter."""
    from secateur import api
    from secateur.cli.tables import show_simulation

    loaded = api.load(image, key)
    x = arrays(input, limit=limit, limits=Limits(megabytes=max_megabytes))
    with progress_console.status("building and running the engine in Verilator"):
        result = api.simulate(loaded, x, stalls=stalls, seed=seed, waves=waves, rom=rom)
    data = {
        "cycles": result.cycles,
        "predicted_cycles": result.predicted_cycles,
        "mismatches": len(result.mismatches),
        "differences": result.mismatches,
        "images": result.images,
        "layers_compared": result.layers_compared,
        "outputs": None if result.outputs is None else result.outputs.values.tolist(),
    }
    emit(data, as_json, show_simulation)
    if result.mismatches:
        raise SecateurError(f"{len(result.mismatches)} differences between Verilog and golden")


@app.command(epilog="Example: secateur verilog --target 8x8 --image model.sec -o build")
def verilog(
    target: TargetName,
    output: Annotated[Path, typer.Option("-o", "--output-dir", help="Folder to write to.")],
    image: Annotated[Path | None, typer.Option(help="Image for the initial memory.")] = None,
    family: Annotated[
        str | None,
        typer.Option(help="Primitives: generic, ecp5, asic or ice40; else the target's."),
    ] = None,
    interface: Annotated[
        str,
        typer.Option(
            help="Ports: stream; registers on axi, wishbone (docs/soc.md) or uart (docs/link.md)."
        ),
    ] = "stream",
    divisor: Annotated[
        int | None, typer.Option(min=4, help="Of a uart: clock cycles of a bit.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the engine as Verilog, and the image as memory files for other tools."""
    from secateur.cli.tables import show_files
    from secateur.files import write_verilog

    data = write_verilog(target, output, image, family, interface, divisor)
    emit(data, as_json, show_files)


@app.command(epilog="Example: secateur inspect model.sec")
def inspect(image: ImageFile, as_json: Json = False) -> None:
    """Layers, densities, cycles against the bound, memory map and overflow certificate."""
    from secateur.cli.tables import show_inspection
    from secateur.image import image as images
    from secateur.report.summary import summary

    emit(summary(images.load(image)), as_json, show_inspection)


@app.command(epilog="Example: secateur targets")
def targets(as_json: Json = False) -> None:
    """List the presets."""
    from secateur.cli.tables import show_targets
    from secateur.target import PRESETS

    listed = [
        {
            "name": target.name,
            "n": target.geometry.n,
            "p": target.geometry.p,
            "weight_words": target.geometry.weight_words,
            "bank_words": target.geometry.bank_words,
            "device": target.device,
            "family": target.family,
        }
        for target in PRESETS.values()
    ]
    emit({"targets": listed}, as_json, show_targets)


@app.command(epilog="Example: secateur energy model.sec --table mine.toml")
def energy(
    image: ImageFile,
    table: Annotated[
        Path | None, typer.Option(help="TOML file of energies, see docs/energy.md.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate the energy of an inference from counts, dense beside pruned."""
    from secateur.cli.tables import show_energy
    from secateur.image import image as images
    from secateur.report.energy import HOROWITZ, estimate, load_energies

    energies = HOROWITZ if table is None else load_energies(table)
    emit(estimate(images.load(image), energies), as_json, show_energy)


@app.command(epilog="Example: secateur compare model.sec --tflite model.tflite")
def compare(
    image: ImageFile,
    tflite: Annotated[Path, typer.Option(help="The same network in int8, TensorFlow Lite.")],
    accelerator: Annotated[
        list[str] | None,
        typer.Option(
            help="Vela's name, e.g. ethos-u55-64; repeat for several.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Put Arm Vela's cycle estimates for Ethos-U55 beside the image's cycles."""
    from secateur.cli.tables import show_compare
    from secateur.image import image as images
    from secateur.report import compare as comparison

    loaded = images.load(image)
    with progress_console.status("running Vela"):
        data = comparison.compare(loaded, tflite, accelerator or comparison.DEFAULT)
    emit(data | {"image": str(image)}, as_json, show_compare)

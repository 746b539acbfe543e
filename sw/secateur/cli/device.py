"""The commands for a device behind a UART: ``docs/link.md``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
from secateur.cli.terminal import emit, progress_console
from secateur.disk.limits import DEFAULT, Limits
from secateur.errors import SecateurError

if TYPE_CHECKING:
    from secateur.boards.driver.device import Device
    from secateur.image.image import Image

device = Commands(no_args_is_help=True, help="Drive an engine behind a UART (docs/link.md).")

Port = Annotated[str, typer.Option(help="Serial port, such as /dev/ttyUSB0.")]
Baud = Annotated[int, typer.Option(min=1, help="Baud rate that the board was built for.")]
DEFAULT_BAUD = 1_000_000


@contextlib.contextmanager
def opened(port: str, baud: int) -> Iterator[Device]:
    """The device on a port; what goes wrong with it is one line."""
    from secateur.boards.driver.device import Device, DeviceError, open_port

    try:
        with open_port(port, baud) as link:
            yield Device(link)
    except DeviceError as error:
        text = str(error)
        raise SecateurError(text if text.startswith(f"{port}: ") else f"{port}: {text}") from None


def load_into(found: Device, image: Image) -> None:
    """Load an image, with a bar."""
    with bar() as progress:
        task = progress.add_task("load", total=len(image.stream))
        found.load(image.stream, lambda done: progress.update(task, completed=done))


@device.command(epilog="Example: secateur device info --port /dev/ttyUSB0")
def info(port: Port, baud: Baud = DEFAULT_BAUD, as_json: Json = False) -> None:
    """Identify a device; print its registers, by field."""
    from secateur.cli.tables import show_info
    from secateur.hw.spec import Error, Status

    with opened(port, baud) as found:
        registers, is_now = found.info(), found.identity
    status = registers["STATUS"]
    names = {}
    for part, kind in (("STATE", Status), ("ERROR", Error)):
        if status[part] in [entry.value for entry in kind]:
            names[f"STATUS.{part}"] = f"{status[part]} {kind(status[part]).name.lower()}"
    data = {"port": port, "n": is_now.n, "p": is_now.p, "registers": registers, "names": names}
    emit(data, as_json, show_info)


@device.command(epilog="Example: secateur device load model.sec --port /dev/ttyUSB0")
def load(
    image: ImageFile,
    port: Port,
    baud: Baud = DEFAULT_BAUD,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Load an image; the device checks it."""
    from secateur import api
    from secateur.cli.tables import show_loaded

    loaded = api.load(image, key)
    with opened(port, baud) as found, of_image(image):
        load_into(found, loaded)
    data = {"port": port, "image": str(image), "bytes": len(loaded.stream), "accepted": True}
    emit(data, as_json, show_loaded)


@contextlib.contextmanager
def of_image(path: Path) -> Iterator[None]:
    """Put the image's name before what the device says of it."""
    from secateur.boards.driver.device import DeviceError

    try:
        yield
    except DeviceError as error:
        raise DeviceError(f"{path}: {error}") from None


@device.command(
    epilog="Example: secateur device run model.sec --input x.npz --port /dev/ttyUSB0 -o y.npz"
)
def run(
    image: ImageFile,
    port: Port,
    input: Annotated[Path, typer.Option(help=".npz with inputs: floats, or int8/uint8 codes.")],
    baud: Baud = DEFAULT_BAUD,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help=".npz for codes and values.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first inputs.")] = None,
    loaded: Annotated[
        bool, typer.Option("--loaded", help="The device holds this image already.")
    ] = False,
    max_megabytes: MaxMegabytes = DEFAULT.megabytes,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Load an image and run inputs on the device: outputs, and the cycles that it has counted."""
    from secateur import api
    from secateur.cli.tables import show_device_run

    program = api.load(image, key)
    x = arrays(input, limit=limit, limits=Limits(megabytes=max_megabytes))
    with opened(port, baud) as found, of_image(image):
        if not loaded:
            load_into(found, program)
        with bar() as progress, of_file(input):
            outputs, cycles = api.run_on(program, x, found, stage_bar(progress))
        repeated = found.link.repeated
    if output is not None:
        save_outputs(output, outputs)
    data: dict[str, Any] = {
        "cycles": outputs.cycles,
        "predicted_cycles": program.cycles,
        "images": len(x),
        "outputs": outputs.values.tolist(),
        "codes": outputs.codes.tolist(),
        "repeated": repeated,
    }
    emit(data, as_json, show_device_run)
    if set(cycles) != {program.cycles}:
        counted = ", ".join(map(str, sorted(set(cycles))))
        raise SecateurError(
            f"{port}: the device counts {counted} cycles, {image} says {program.cycles}; does the "
            f"device hold this image?"
        )


@device.command(epilog="Example: secateur device serve --target 8x3")
def serve(
    target: Annotated[
        str | None, typer.Option(help="Preset (`secateur targets`) or TOML file.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="Simulate the array that this image is for.")
    ] = None,
    rom: Annotated[bool, typer.Option(help="With --image: it is in ROM.")] = False,
) -> None:
    """Simulate a board: print the name of a serial port that behaves as one, until Ctrl-C."""
    from secateur.image import image as images
    from secateur.sim import pty
    from secateur.target import Target

    if (target is None) == (image is None):
        raise SecateurError("give either --target or --image: which array is to be simulated?")
    if rom and image is None:
        raise SecateurError("--rom needs --image: what is to be in the ROM?")
    contents = None if image is None else images.load(image)
    geometry = Target.load(str(target)).geometry if contents is None else contents.geometry
    stream = contents.stream if rom and contents is not None else None
    with progress_console.status("building the board in Verilator"):
        pty.build(geometry, rom=stream)
    with pty.serve(geometry, rom=stream) as board:
        print(board.path, flush=True)
        print("a simulated board; Ctrl-C ends it", file=sys.stderr)
        board.wait()

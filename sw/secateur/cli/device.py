"""The commands for a device: behind a UART, or on this processor's bus."""

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

if TYPE_CHECKING:
    from secateur.boards.driver.device import Device
    from secateur.image.image import Image

device = Commands(
    "Device",
    no_args_is_help=True,
    help="Drive an engine behind a UART, or on the bus of this processor.",
    epilog="Example: secateur device info --port /dev/ttyUSB0",
)

Port = Annotated[
    str,
    typer.Option(
        help="Serial port, as /dev/ttyUSB0; or registers in memory, as 0x43c00000 or /dev/uio0."
    ),
]
Baud = Annotated[int, typer.Option(min=1, help="Baud rate that the board was built for.")]
DEFAULT_BAUD = 1_000_000


@contextlib.contextmanager
def opened(port: str, baud: int) -> Iterator[Device]:
    """The device on a port; the port's name stands before messages about it."""
    from secateur.boards.driver.device import Device, connect

    with connect(port, baud) as link:
        yield Device(link)


def load_into(found: Device, image: Image, *, flash: bool = False) -> None:
    """Load an image, with a progress bar.

    Parameters
    ----------
    found : the device
    image : to be loaded
    flash : into the flash of its board
    """
    from secateur.boards.driver.flash import update

    with bar() as progress:
        if flash:
            update(found, image.stream, stage_bar(progress))
            return
        task = progress.add_task("load", total=len(image.stream))
        found.load(image.stream, lambda done: progress.update(task, completed=done))


@device.command(epilog="Example: secateur device info --port /dev/ttyUSB0")
def info(port: Port, baud: Baud = DEFAULT_BAUD, as_json: Json = False) -> None:
    """Identify a device and print the fields of its registers."""
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
    flash: Annotated[
        bool,
        typer.Option(
            "--flash", help="Into the flash of its board, where it stays; it takes its turn there."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Load an image into a device, which checks it."""
    from secateur import api

    loaded = api.load(image, key)
    with opened(port, baud) as found, of_image(image):
        load_into(found, loaded, flash=flash)
    data = {"port": port, "image": str(image), "bytes": len(loaded.stream), "accepted": True}
    emit(data, as_json, show_loaded)


@contextlib.contextmanager
def of_image(path: Path) -> Iterator[None]:
    """Put the image's name before messages of the device about it."""
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
    input: InputFile,
    baud: Baud = DEFAULT_BAUD,
    output: ResultFile = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Run only that many inputs, the first ones.")
    ] = None,
    loaded: Annotated[
        bool, typer.Option("--loaded", help="The device holds this image already.")
    ] = False,
    max_megabytes: MaxMegabytes = DEFAULT.megabytes,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Load an image and run inputs on the device; print the outputs and the cycles it counted."""
    from secateur import api
    from secateur.inference import input_words

    program = api.load(image, key)
    x = inputs_of(input, program, limit, Limits(megabytes=max_megabytes))
    with of_file(input):
        input_words(program, x)  # refused before the device is touched
    with opened(port, baud) as found, of_image(image):
        if not loaded:
            load_into(found, program)
        with bar() as progress:
            outputs, cycles = api.run_on(program, x, found, stage_bar(progress))
        repeated = found.link.repeated
    if set(cycles) != {program.cycles}:
        counted = ", ".join(map(str, sorted(set(cycles))))
        raise SecateurError(
            f"{port}: the device counts {counted} cycles, expected {program.cycles}: its results "
            f"are not to be trusted, and are not written; build the board again with this release"
        )
    if output is not None:
        save_outputs(output, outputs)
    data: dict[str, Any] = {
        "cycles": outputs.cycles,
        "predicted_cycles": program.cycles,
        "images": len(next(iter(x.values()))),
        **results_of(outputs),
        "repeated": repeated,
    }
    emit(data, as_json, show_device_run)


@device.command(epilog="Example: secateur device serve --target 8x3")
def serve(
    target: Annotated[
        str | None, typer.Option(help="Preset (see `secateur targets`) or TOML file.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="Image whose array is simulated.")] = None,
    rom: Annotated[
        bool, typer.Option("--rom", help="Put the image into ROM; needs --image.")
    ] = False,
    key: Key = None,
) -> None:
    """Simulate a board until Ctrl-C; print the serial port at which it answers."""
    from secateur import api
    from secateur.sim import pty
    from secateur.target import Target

    if (target is None) == (image is None):
        raise SecateurError("give either --target or --image, for the array to simulate")
    if rom and image is None:
        raise SecateurError("--rom needs --image: the content of the ROM")
    contents = None if image is None else api.load(image, key)
    if contents is None:
        geometry = Target.load(str(target)).without_ring("a simulated board").geometry
    else:
        geometry = contents.geometry
    stream = contents.stream if rom and contents is not None else None
    progress_console.print("Verilator: the first run compiles the board, about a minute")
    pty.build(geometry, rom=stream)
    with pty.serve(geometry, rom=stream) as board:
        print(board.path, flush=True)
        print("a simulated board; Ctrl-C ends it", file=sys.stderr)
        board.wait()


def show_info(data: Data) -> None:
    """Registers of a device."""
    rows = table(f"{data['port']}: Secateur {data['n']}x{data['p']}", "register", "field", "")
    for name, fields in data["registers"].items():
        for part, value in fields.items():
            shown = data["names"].get(f"{name}.{part}", f"{value:,}")
            if name in ("ID", "IMAGE_CRC"):
                shown = f"0x{value:08x}"
            rows.add_row(name, "" if part == "VALUE" else part, shown)
    console.print(rows)


def show_loaded(data: Data) -> None:
    """An image that a device has accepted."""
    console.print(f"{data['port']}: {data['image']}, {data['bytes']:,} bytes, accepted")


def show_device_run(data: Data) -> None:
    """Results of a device; its count of cycles beside the compiler's."""
    show_run(data)
    predicted = f"{data['predicted_cycles']:,}"
    console.print(f"cycles predicted: {predicted}; requests repeated: {data['repeated']}")

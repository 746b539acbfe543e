"""What the commands share: options, progress, reading and writing arrays."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from typer.core import TyperCommand

from secateur.cli.terminal import json_alone, progress_console
from secateur.disk.limits import DEFAULT, Limits
from secateur.disk.storage import apart
from secateur.errors import SecateurError
from secateur.progress import Progress as Report

if TYPE_CHECKING:
    from secateur.image.image import Image
    from secateur.inference import Outputs

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Key = Annotated[
    Path | None,
    typer.Option(help="Public key (PEM); an image without its signature is refused."),
]
ImageFile = Annotated[Path, typer.Argument(help="Image made by `secateur compile`.")]
InputFile = Annotated[
    Path,
    typer.Option(
        "--input",
        help=".npz file with inputs (key x; of several inputs their names): floats, int8 or "
        "uint8 codes, or integers that an embedding looks up.",
    ),
]
ResultFile = Annotated[
    Path | None,
    typer.Option("-o", "--output", help=".npz file to write codes and values of the results to."),
]
ReportFile = Annotated[
    Path | None,
    typer.Option("--report", help="HTML file to write a report to, as `secateur report` does."),
]
SchedulerAddress = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        help="Address of a Dask scheduler, tcp://HOST:PORT, whose workers do the work; they must "
        "see the same files.",
    ),
]
TargetName = Annotated[
    str, typer.Option("--target", help="Preset (see `secateur targets`) or TOML file.")
]
MaxMegabytes = Annotated[
    int, typer.Option(min=1, help="Largest size of the unpacked inputs, in MB.")
]

#: Parameters that name what a command writes; it may read every other file that it is given.
OUTPUTS = ("output", "waves", "report")
#: Files that a command writes to the folder ``output``.
IN_FOLDER = {
    "build": (
        "top.v", "top.lpf", "top.pcf", "top.xdc", "top.json", "routed.config",
        "secateur.bit", "design.json", "report*.json", "report.txt", "*.log", "*.part", "build.tcl",
    ),
    "explore": ("explore.json", "explore.log"),
    "prune": ("*.json", "*.sec", "*.safetensors"),
    "study": ("study.json",),
    "swap": ("secateur.bit", "report.json", "report.txt", "*.log", "*.part"),
    "verilog": (
        "secateur.v", "secateur.core", "secateur.h", "secateur.c", "secateur_registers.h",
        "secateur_litex.*", "memory_*.hex",
        "weights.bin", "weights.hex", "weights.coe", "weights.mem", "weights.mif",
    ),
}  # fmt: skip
#: The input that a command may write over: `patch` replaces an image by the next one.
REPLACED = {"patch": "old"}


def written(command: str, values: Mapping[str, Any]) -> list[Path]:
    """Files that a command will or may write; ``values`` of its parameters by name."""
    files = [values[name] for name in OUTPUTS if isinstance(values.get(name), Path)]
    if command in IN_FOLDER and os.path.isdir(values["output"]):
        for pattern in IN_FOLDER[command]:
            files += values["output"].glob(pattern)
    if command == "sign" and values["output"] is None:
        files.append(Path(f"{values['image']}.sig"))
    return files


class Command(TyperCommand):
    """A command that never overwrites its inputs, and with ``--json`` prints only JSON."""

    def invoke(self, ctx: Any) -> Any:
        """Run it with the values of its parameters."""
        command, values = str(self.name), ctx.params
        read = [
            value
            for name, value in values.items()
            if isinstance(value, Path | str) and name not in (*OUTPUTS, REPLACED.get(command))
        ]
        apart(written(command, values), read)
        with json_alone(values.get("as_json", False)):
            return super().invoke(ctx)


class Commands(typer.Typer):
    """A group of commands of that kind, in one panel of the help.

    Parameters
    ----------
    panel : title of the panel
    options : Typer's
    """

    def __init__(self, panel: str, **options: Any) -> None:
        super().__init__(**options)
        self.panel = panel

    def command(self, name: str | None = None, **options: Any) -> Callable[..., Any]:
        """Register a command."""
        return super().command(name, **{"cls": Command, "rich_help_panel": self.panel, **options})


def positive(option: typer.CallbackParam, value: float | None) -> float | None:
    """A callback of options: a finite number above 0."""
    if value is not None and not 0 < value < math.inf:
        raise SecateurError(f"{option.opts[0]} must be a number above 0, not {value}")
    return value


def bar() -> Progress:
    """Progress on stderr, so that stdout stays clean for results."""
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
    )  # fmt: skip
    return Progress(
        *columns,
        TimeElapsedColumn(),
        console=progress_console,
        transient=True,
        disable=not progress_console.is_terminal,
    )


def stage_bar(shown: Progress) -> Report:
    """A bar per stage; every note is printed as a line above the bars, or without a terminal."""
    tasks: dict[str, Any] = {}

    def update(stage: str, done: int, total: int, note: str) -> None:
        if stage not in tasks:
            tasks[stage] = shown.add_task(stage, total=total or None)
        shown.update(tasks[stage], completed=done)
        if note:
            shown.console.print(f"{stage} {done}/{total}: {note}")

    return update


@contextlib.contextmanager
def of_file(path: Path) -> Iterator[None]:
    """Put the file's name before messages about its content."""
    try:
        yield
    except SecateurError as error:
        raise SecateurError(f"{path}: {error}") from None


def arrays(path: Path, key: str = "x", limit: int | None = None, limits: Limits = DEFAULT) -> Any:
    """An array of an .npz file; floats as float32.

    Parameters
    ----------
    path : the file
    key : name of the array
    limit : samples to take, the first ones; without it all
    limits : bounds on the size of the whole file

    Raises
    ------
    SecateurError : the file cannot be read, is too large, or has no such array with samples first
    """
    return named_arrays(path, [key], limit, limits)[key]


def named_arrays(
    path: Path, keys: list[str], limit: int | None = None, limits: Limits = DEFAULT
) -> dict[str, Any]:
    """Arrays of an .npz file by key; floats as float32.

    Parameters
    ----------
    path : the file
    keys : names of the arrays
    limit : samples to take, the first ones; without it all
    limits : bounds on the size of the whole file

    Raises
    ------
    SecateurError : as of `arrays`
    """
    import numpy as np

    from secateur.disk.npz import load_npz

    found = load_npz(path, keys, limits)
    for key, values in found.items():
        if values.ndim < 2 or len(values) == 0:
            raise SecateurError(
                f"{path}: {key!r} has shape {values.shape}; expected samples first, at least one"
            )
        values = values[:limit]
        found[key] = values.astype(np.float32) if values.dtype.kind == "f" else values
    return found


def inputs_of(path: Path, image: Image, limit: int | None, limits: Limits) -> dict[str, Any]:
    """The inputs of an image by name, from an .npz file; the only one of a model is called x.

    Parameters
    ----------
    path : the file
    image : the image
    limit : samples to take, the first ones; None for all
    limits : bounds on the size of the whole file

    Raises
    ------
    SecateurError : as of `arrays`
    """
    several = len(image.metadata.get("arguments", [])) > 1
    keys = [port["name"] for port in image.metadata["inputs"]] if several else ["x"]
    return named_arrays(path, keys, limit, limits)


def results_of(outputs: Outputs) -> dict[str, Any]:
    """Values and codes as lists, for JSON; of several outputs by name."""
    if len(outputs.named) == 1:
        return {"outputs": outputs.values.tolist(), "codes": outputs.codes.tolist()}
    return {
        "outputs": {name: values.tolist() for name, values in outputs.named.items()},
        "codes": {name: codes.tolist() for name, codes in outputs.named_codes.items()},
    }


def save_outputs(path: Path, outputs: Outputs) -> None:
    """Write ``codes`` and ``values`` as .npz, atomically; of several outputs the values of each
    under its name, and the codes under ``NAME.codes``.
    """
    from secateur.disk.npz import npz
    from secateur.disk.storage import write_atomically

    found = {"codes": outputs.codes, "values": outputs.values}
    if len(outputs.named) > 1:
        codes = {f"{name}.codes": codes for name, codes in outputs.named_codes.items()}
        found = codes | outputs.named
    write_atomically(path, npz(found))


@contextlib.contextmanager
def naming(file: Path | None) -> Iterator[None]:
    """Name the file of calibration data in an error of these."""
    try:
        yield
    except SecateurError as error:
        said, data, what = str(error).partition("calibration: ")
        if file is None or said or not data:
            raise
        raise SecateurError(f"{file}: {what}") from None


def calibration(file: Path, model: Any, limits: Limits) -> Any:
    """Calibration inputs of a model: a tensor, or a structure of them as its inputs are.

    Parameters
    ----------
    file : .npz
    model : takes them
    limits : bounds on the size of the file

    Raises
    ------
    SecateurError : an array is missing, or holds neither floats nor integers
    """
    import torch

    from secateur.capture.ports import input_keys, nested
    from secateur.disk.npz import npz_names

    values = named_arrays(file, input_keys(model, npz_names(file)), limits=limits)
    for array in values.values():
        if array.dtype.kind != "f" and array.dtype.name not in ("int32", "int64"):
            raise SecateurError(
                f"{file}: calibration inputs must be floats, or integers (int64) that an embedding "
                f"looks up, not {array.dtype}"
            )
    tensors = {key: torch.from_numpy(array) for key, array in values.items()}
    return tensors["x"] if list(tensors) == ["x"] else nested(tensors)

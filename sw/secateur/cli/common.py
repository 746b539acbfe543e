"""What the commands have in common: options, progress, arrays from and to files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from typer.core import TyperCommand

from secateur.cli.terminal import json_alone, progress_console
from secateur.disk.limits import DEFAULT, Limits
from secateur.disk.storage import apart
from secateur.errors import SecateurError
from secateur.progress import Progress as Report

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Key = Annotated[
    Path | None, typer.Option(help="Public key (PEM): refuse an image that it did not sign.")
]
ImageFile = Annotated[Path, typer.Argument(help="Image made by `secateur compile`.")]
MaxMegabytes = Annotated[
    int, typer.Option(min=1, help="Of the inputs, unpacked: more are refused, MB.")
]

#: Parameters that name what a command writes; whatever else it takes it may read.
OUTPUTS = ("output", "waves", "private", "public")
#: Files that a command writes to its folder, ``output`` or else ``folder``.
IN_FOLDER = {
    "build": (
        "top.v", "top.lpf", "top.pcf", "top.xdc", "top.json", "routed.config",
        "secateur.bit", "design.json", "report*.json", "report.txt", "*.log", "*.part", "build.tcl",
    ),
    "prune": ("*.json", "*.sec", "*.safetensors"),
    "study": ("study.json",),
    "swap": ("secateur.bit", "report.json", "report.txt", "*.log", "*.part"),
    "verilog": (
        "secateur.v", "secateur.core", "secateur.h", "secateur.c", "secateur_registers.h",
        "weights.bin", "weights.hex", "weights.coe", "weights.mem", "weights.mif",
    ),
}  # fmt: skip
#: What a command may write over: `patch` an image by the next one.
REPLACED = {"patch": "old"}


def written(command: str, values: Mapping[str, Any]) -> list[Path]:
    """Files that a command will write, or may; ``values`` of its parameters by name."""
    files = [values[name] for name in OUTPUTS if isinstance(values.get(name), Path)]
    folder = values.get("folder", values.get("output"))
    for pattern in IN_FOLDER.get(command, ()) if folder and os.path.isdir(folder) else ():
        files += folder.glob(pattern)
    if command == "sign":
        files.append(Path(f"{values['image']}.sig"))
    return files


class Command(TyperCommand):
    """A command that writes over none of its inputs, and with ``--json`` prints JSON alone."""

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
    """Typer, with commands of that kind."""

    def command(self, name: str | None = None, **options: Any) -> Callable[..., Any]:
        """Register a command."""
        return super().command(name, **{"cls": Command, **options})


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
    """Put the file's name before messages on what is in it."""
    try:
        yield
    except SecateurError as error:
        raise SecateurError(f"{path}: {error}") from None


def arrays(path: Path, key: str = "x", limit: int | None = None, limits: Limits = DEFAULT) -> Any:
    """Array ``key`` of an .npz file, its first ``limit`` entries; ``limits`` is of all of it."""
    import numpy as np

    from secateur.disk.npz import load_npz

    values = load_npz(path, [key], limits)[key]
    if values.ndim < 2 or len(values) == 0:
        raise SecateurError(
            f"{path}: {key!r} has shape {values.shape}; expected samples first, at least one"
        )
    values = values[:limit]
    return values.astype(np.float32) if values.dtype.kind == "f" else values


def save_outputs(path: Path, outputs: Any) -> None:
    """Codes and values as .npz, atomically."""
    import io

    import numpy as np

    from secateur.disk.storage import write_atomically

    buffer = io.BytesIO()
    np.savez(buffer, codes=outputs.codes, values=outputs.values)
    write_atomically(path, buffer.getvalue())

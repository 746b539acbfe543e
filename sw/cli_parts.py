"""What the commands have in common: options, progress, arrays from and to files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from secateur.errors import SecateurError

progress_console = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Key = Annotated[
    Path | None, typer.Option(help="Public key (PEM): refuse an image that it did not sign.")
]
ImageFile = Annotated[Path, typer.Argument(help="Image made by `secateur compile`.")]


def bar() -> Progress:
    """Progress on stderr, so that stdout stays clean for results."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns,
        TimeElapsedColumn(),
        console=progress_console,
        transient=True,
        disable=not progress_console.is_terminal,
    )


@contextlib.contextmanager
def of_file(path: Path) -> Iterator[None]:
    """Put the file's name before messages on what is in it."""
    try:
        yield
    except SecateurError as error:
        raise SecateurError(f"{path}: {error}") from None


def arrays(path: Path, key: str = "x", limit: int | None = None) -> Any:
    """Array ``key`` of an .npz file, its first ``limit`` entries."""
    import zipfile
    import zlib

    import numpy as np

    names, values = None, None
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.lib.npyio.NpzFile):
            with file:
                names = file.files
                values = file[key] if key in names else None
    except OSError as error:
        raise SecateurError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, AttributeError):
        names = None
    if names is None:
        raise SecateurError(f"{path}: not an .npz file of arrays; write one by np.savez(file, x=x)")
    if values is None:
        found = ", ".join(names) or "none"
        raise SecateurError(f"{path}: no array {key!r}; it has {found}")
    values = values if limit is None else values[:limit]
    if values.ndim < 2 or len(values) == 0:
        raise SecateurError(
            f"{path}: {key!r} has shape {values.shape}; expected samples first, at least one"
        )
    return values.astype(np.float32) if values.dtype.kind == "f" else values


def save_outputs(path: Path, outputs: Any) -> None:
    """Codes and values as .npz, atomically."""
    import io

    import numpy as np

    from secateur.image import write_atomically

    buffer = io.BytesIO()
    np.savez(buffer, codes=outputs.codes, values=outputs.values)
    write_atomically(path, buffer.getvalue())

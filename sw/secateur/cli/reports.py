"""The command for reports: one HTML file, or a single figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.common import Commands, Json
from secateur.cli.tables import show_files
from secateur.cli.terminal import emit
from secateur.errors import SecateurError

reports = Commands("Model")


@reports.command(epilog="Example: secateur report model.sec -o report.html")
def report(
    path: Annotated[
        Path,
        typer.Argument(help="Image, or folder of a run, a study, an exploration or a build."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    pdf: Annotated[
        str | None, typer.Option(metavar="FIGURE", help="This figure alone, as PDF.")
    ] = None,
    png: Annotated[
        str | None, typer.Option(metavar="FIGURE", help="This figure alone, as PNG.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what was pruned and where the cycles go, in one HTML file that loads nothing.

    Figures have the names of their links in the page: cycles, memory, blocks-3.
    """
    if pdf is not None and png is not None:
        raise SecateurError("--pdf and --png: give one of them")
    write(path, output, {"pdf": pdf, "png": png})
    emit({"files": [str(output)]}, as_json, show_files)


def reported(path: Path, output: Path | None) -> dict[str, str | None]:
    """Write a report where one is wanted; the entry ``report`` of a result, its path."""
    if output is not None:
        write(path, output)
    return {"report": None if output is None else str(output)}


def write(path: Path, output: Path, single: dict[str, str | None] | None = None) -> None:
    """Write a report.

    Parameters
    ----------
    path : image or folder
    output : file to write
    single : name of the one figure that is wanted, by its format
    """
    from secateur.report.page.export import write_figure
    from secateur.report.page.page import write_report

    for style, name in (single or {}).items():
        if name is not None:
            from secateur.report.page.contents import contents

            write_figure(contents(path), name, output, style)
            return
    write_report(path, output)

"""Tables that several commands print."""

from __future__ import annotations

from secateur.cli.terminal import Data, Rows, console
from secateur.text import printable


def table(title: str, *columns: str) -> Rows:
    """An empty table: the first column for names, the others for numbers."""
    rows = Rows(title=printable(title, 200), title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        # Where a line is too narrow, a cell goes on in the next: a number that is cut is wrong.
        rows.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    return rows


def percent(part: float, whole: float) -> str:
    """``part`` in percent of ``whole``, or a dash if that is 0."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def show_files(data: Data) -> None:
    """Files that were written."""
    for name in data["files"]:
        console.print(name)


def show_report(data: Data) -> None:
    """The path of the report, if one was written."""
    if data.get("report"):
        console.print(f"Report: {data['report']}")


def show_run(data: Data) -> None:
    """Results of the first inputs."""
    import numpy as np

    inputs = "1 input" if data["images"] == 1 else f"{data['images']:,} inputs"
    console.print(f"{inputs}, {data['cycles']:,} cycles each")
    short, outputs = True, data["outputs"]
    for name, results in outputs.items() if isinstance(outputs, dict) else [("", outputs)]:
        if name:
            console.print(f"{printable(name, 100)}:")
        for index, values in enumerate(results[:10]):
            array = np.asarray(values)
            if array.ndim > 1:
                short = False
                shown = f"{array.shape}, {array.min():.4g} to {array.max():.4g}"
            else:
                shown = f"[{', '.join(f'{value:.4g}' for value in array.ravel())}]"
            console.print(f"  {index}: {shown}", markup=False)
        if data["images"] > 10:
            console.print("  ...")
    if data.get("file"):
        console.print(data["file"])
    elif data["images"] > 10 or not short:
        console.print("  (-o FILE.npz writes all)")

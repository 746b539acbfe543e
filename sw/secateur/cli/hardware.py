"""The commands for the engine: targets, verilog."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.common import Commands, Json, Key, TargetName
from secateur.cli.tables import show_files, table
from secateur.cli.terminal import Data, console, emit

hardware = Commands("Hardware")


@hardware.command(epilog="Example: secateur targets")
def targets(as_json: Json = False) -> None:
    """List the preset targets: sizes of the array and its memories."""
    from secateur.target import PRESETS

    listed = [
        {
            "name": target.name,
            "n": target.geometry.n,
            "p": target.geometry.p,
            "weight_words": target.geometry.weight_words,
            "bank_words": target.geometry.bank_words,
            "ring": target.geometry.ring,
            "device": target.device,
            "family": target.family,
            "soft": 0 if target.hard is None else target.geometry.multipliers - target.hard,
        }
        for target in PRESETS.values()
    ]
    emit({"targets": listed}, as_json, show_targets)


@hardware.command(epilog="Example: secateur verilog --target 8x8 --image model.sec -o rtl")
def verilog(
    target: TargetName,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")],
    image: Annotated[Path | None, typer.Option(help="Image to put into ROM.")] = None,
    family: Annotated[
        str | None,
        typer.Option(help="Primitives: generic, ecp5, asic or ice40; by default the target's."),
    ] = None,
    interface: Annotated[
        str,
        typer.Option(help="Ports: stream, or registers on axi, wishbone or uart."),
    ] = "stream",
    divisor: Annotated[
        int | None, typer.Option(min=4, help="Clock cycles per bit of the UART.")
    ] = None,
    one_file: Annotated[
        bool, typer.Option("--one-file", help="Keep what is in ROM in the Verilog.")
    ] = False,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Write the engine as Verilog and the image as memory files for other tools."""
    from secateur.files import write_verilog

    data = write_verilog(target, output, image, family, interface, divisor, key, one_file=one_file)
    emit(data, as_json, show_files)


def show_targets(data: Data) -> None:
    """The presets."""
    heads = ("name", "N", "P", "from logic", "weights", "ring", "banks", "device")
    rows = table("Presets; memories in words", *heads)
    for target in data["targets"]:
        rows.add_row(
            target["name"],
            str(target["n"]),
            str(target["p"]),
            str(target["soft"] or "-"),
            f"{target['weight_words']:,}",
            f"{target['ring']:,}" if target["ring"] else "-",
            f"{target['bank_words']:,}",
            target["device"] or target["family"],
        )
    console.print(rows)

"""From a board and an image to a bitstream, with tables of what it takes and how fast it is."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from secateur.boards.catalogue.board import Board, BoardError
from secateur.boards.flow import tools
from secateur.boards.flow.contents import find_blocks, placeholder, replace_blocks
from secateur.boards.flow.design import ROUTED, Design, Placed, place
from secateur.boards.flow.image import Image
from secateur.boards.flow.report import to_text
from secateur.boards.flow.route import Progress, silent
from secateur.boards.flow.sites import DIES
from secateur.hw.spec import Geometry

BITSTREAM = "secateur.bit"
#: Which of the block RAMs of ROUTED, which holds the placeholder, is what: for swaps.
DESIGN = "design.json"
#: What makes a bitstream of a textual configuration, by flow.
PACKERS = {"ecp5": ["ecppack", "--compress"], "ice40": ["icepack"]}
REPORT, TEXT = "report.json", "report.txt"


def build(
    design: Design,
    stream: bytes | None,
    name: str,
    folder: Path,
    *,
    tries: int = 1,
    progress: Progress = silent,
    timeout: float | None = None,
) -> dict[str, object]:
    """Build a bitstream with an image in ROM, or with RAM; returns what is in ``report.json``.

    Parameters
    ----------
    design : what to place
    stream : bytes of the image, without metadata; None: the weight memory is a RAM that takes
        images over the link, and there is nothing to swap
    name : of the image, for messages and reports
    folder : for all files; a bitstream of an earlier build is removed first
    tries : seeds to try, from the design's on, until one meets the clock
    progress : called with a stage and a note
    timeout : seconds of processor time that each tool may take

    Raises
    ------
    BoardError : the image does not fit, or the clock is missed; then there is a report, but no
        bitstream
    ToolError : a tool is missing, fails or takes too long
    """
    image = None if stream is None else Image.of(stream, design.geometry, name)
    if image is not None and design.board.flow == "ice40":
        raise BoardError(
            f"{design.board.name}: its SPRAM holds nothing at power-up; build without --image, and "
            f"load {name} with `secateur device load`"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for old in (BITSTREAM, DESIGN, REPORT, TEXT):
        (folder / old).unlink(missing_ok=True)
    init = None if image is None else placeholder(design.geometry)
    placed = place(design, init, folder, tries=tries, progress=progress, timeout=timeout)
    report = _report(design, placed)
    if not placed.passed:
        _write_report(folder, report)
        raise BoardError(
            f"{design.board.name}: {placed.fmax_mhz} MHz after routing with seed {placed.seed}, "
            f"the clock is {design.clock / 1e6:g} MHz; try another --seed or a lower --clock"
        )
    config = placed.config.read_text()
    where = {} if image is None else find_blocks(design.geometry, config)
    about = {
        "board": design.board.name,
        "geometry": asdict(design.geometry),
        "blocks": {str(wid): list(block) for wid, block in sorted(where.items())},
        "sha256": _sha256(placed.config.read_bytes()),
    }
    write_atomically(folder / DESIGN, json.dumps(about, indent=1) + "\n")
    return pack(folder, about, report, image, progress, PACKERS[design.board.flow])


def swap(folder: Path, stream: bytes, name: str, *, progress: Progress = silent) -> dict:
    """Put another image into the design that ``build`` has left in a folder.

    Place and route are those of the build; only what the weight memory holds is replaced. Returns
    what is in ``report.json``.

    Raises
    ------
    BoardError : there is no build, or one without an image, its files were changed, or the image
        does not fit it
    ToolError : the packer is missing or fails
    """
    about, report = load_design(folder)
    if not about["blocks"]:
        raise BoardError(
            f"{folder}: was built without an image; load {name} with `secateur device load`, or "
            f"build with --image"
        )
    image = Image.of(stream, Geometry(**about["geometry"]), name)
    return pack(folder, about, report, image, progress)


def load_design(folder: Path) -> tuple[dict, dict]:
    """What ``build`` noted on a design, and its report."""
    try:
        about = json.loads((folder / DESIGN).read_text())
        report = json.loads((folder / REPORT).read_text())
        same = _sha256((folder / ROUTED).read_bytes()) == about["sha256"]
    except OSError as error:
        raise BoardError(
            f"{folder}: no finished build ({Path(str(error.filename)).name}: {error.strerror}); "
            f"run `secateur build` first"
        ) from None
    except (ValueError, KeyError):
        raise BoardError(f"{folder}: {DESIGN} or {REPORT} is damaged; build again") from None
    if not same:
        raise BoardError(f"{folder}: {ROUTED} is not the one that was built; build again")
    return about, report


def pack(
    folder: Path,
    about: dict,
    report: dict[str, object],
    image: Image | None,
    progress: Progress,
    packer: list[str] = PACKERS["ecp5"],
) -> dict[str, object]:
    """Fill the placed design with an image, pack it, and write the report."""
    progress("packing", "")
    config = (folder / ROUTED).read_text()
    report["image"] = None
    if image is not None:
        where = {int(wid): tuple(block) for wid, block in about["blocks"].items()}
        config = replace_blocks(config, Geometry(**about["geometry"]), where, image.words)
        report["image"] = {
            "name": image.name,
            "words": len(image.words),
            "sha256": _sha256(image.stream),
        }
    filled, packed = folder / "filled.config.part", folder / f"{BITSTREAM}.part"
    try:
        filled.write_text(config)
        tools.run([*packer, filled.name, packed.name], folder)
        os.replace(packed, folder / BITSTREAM)
    finally:
        filled.unlink(missing_ok=True)
        packed.unlink(missing_ok=True)
    report["bitstream"] = {
        "name": BITSTREAM,
        "sha256": _sha256((folder / BITSTREAM).read_bytes()),
    }
    _write_report(folder, report)
    return report


def _report(design: Design, placed: Placed) -> dict[str, object]:
    board: Board = design.board
    return {
        "board": board.name,
        "title": board.title,
        "device": board.device,
        "die": board.die,
        "grade": DIES[board.die][1] if board.flow == "ecp5" else None,
        "seed": placed.seed,
        "clock_mhz": design.clock / 1e6,
        "fmax_mhz": placed.fmax_mhz,
        "passed": placed.passed,
        "baud": board.baud,
        "program": board.program,
        "geometry": asdict(design.geometry),
        "resources": placed.resources,
        "slowest_path": placed.path,
        "tools": tools.versions(board.flow),
    }


def _write_report(folder: Path, report: dict[str, object]) -> None:
    write_atomically(folder / REPORT, json.dumps(report, indent=1) + "\n")
    write_atomically(folder / TEXT, to_text(report))


def write_atomically(path: Path, text: str) -> None:
    """Write beside ``path`` and rename: all or nothing."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

"""From a board and an image to a bitstream, with a report on its resources and its clock."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from secateur.boards.catalogue.board import Board, BoardError, BoardFlash
from secateur.boards.catalogue.catalogue import find
from secateur.boards.flow.contents import placeholder
from secateur.boards.flow.design import Design, Placed, place, write_sources
from secateur.boards.flow.flow import find_flow
from secateur.boards.flow.report import to_text
from secateur.boards.flow.route import ROUTED, Progress, silent
from secateur.disk.storage import write_atomically
from secateur.hw.flash import SECTOR
from secateur.hw.spec import HEADER, Geometry, words_of
from secateur.image.fit import misfit

BITSTREAM = "secateur.bit"
#: The bitstream, and the image behind it, of an engine with a ring.
FLASH = "flash.bin"
#: For swaps: where the image is in ROUTED, which holds the placeholder.
DESIGN = "design.json"
REPORT, TEXT = "report.json", "report.txt"


@dataclass(frozen=True)
class Image:
    """An image for a design's weight memory.

    Attributes
    ----------
    name : for messages and reports
    stream : its bytes, without metadata
    words : its words
    """

    name: str
    stream: bytes
    words: list[int]

    @classmethod
    def of(cls, stream: bytes, geometry: Geometry, name: str) -> Image:
        """The image for an engine.

        Parameters
        ----------
        stream : its bytes, without metadata
        geometry : the engine
        name : for messages and reports

        Raises
        ------
        BoardError : it does not fit
        """
        problem = misfit(stream, geometry, "engine")
        if problem is not None:
            raise BoardError(f"{name}: {problem}")
        size = geometry.word_bytes
        length = HEADER.unpack_from(stream)[5] * size
        return cls(name, stream, words_of(stream[:length], size))


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
    """Build a bitstream with an image in ROM, or with RAM; for a vendor's tools only its sources.

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

    Returns
    -------
    the contents of ``report.json``, or for a vendor's tools the files and the command to run

    Raises
    ------
    BoardError : the image does not fit, or the clock is missed; then there is a report, but no
        bitstream
    ToolError : a tool is missing, fails or takes too long
    """
    image = None if stream is None else Image.of(stream, design.geometry, name)
    if design.flow.TOOLS is None:
        return _write_for_vendor(design, image, folder)
    ring = bool(design.geometry.ring)
    if image is not None and design.flow.CONTENTS is None and not ring:
        raise BoardError(
            f"{design.board.name}: its bitstream cannot hold an image; build without --image, "
            f"and load {name} with `secateur device load`"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for old in (BITSTREAM, FLASH, DESIGN, REPORT, TEXT):
        (folder / old).unlink(missing_ok=True)
    init = None if image is None or ring else placeholder(design.geometry)
    placed = place(design, init, folder, tries=tries, progress=progress, timeout=timeout)
    report = _report(design, placed)
    if not placed.passed:
        _write_report(folder, report)
        raise BoardError(
            f"{design.board.name}: {placed.fmax_mhz} MHz after routing with seed {placed.seed}, "
            f"the clock is {design.clock / 1e6:g} MHz; try another --seed or a lower --clock"
        )
    about = _write_design(design, placed, rom=init is not None)
    return _pack(design.board, folder, about, report, image, progress)


def _write_for_vendor(design: Design, image: Image | None, folder: Path) -> dict[str, object]:
    files = write_sources(design, None if image is None else image.words, folder)
    return {
        "board": design.board.name,
        "image": None if image is None else {"name": image.name, "words": len(image.words)},
        "files": [str(file) for file in files],
        "next": f"cd {folder} && {design.flow.COMMAND}",
    }


def swap(folder: Path, stream: bytes, name: str, *, progress: Progress = silent) -> dict:
    """Put another image into the design that ``build`` has left in a folder.

    Place and route are those of the build; only the contents of the weight memory are replaced.

    Parameters
    ----------
    folder : of the build
    stream : bytes of the image, without metadata
    name : of the image, for messages and reports
    progress : called with a stage and a note

    Returns
    -------
    the contents of ``report.json``

    Raises
    ------
    BoardError : there is no build, or one without an image, its files were changed, or the image
        does not fit it
    ToolError : the packer is missing or fails
    """
    about, report = load_design(folder)
    if not about["blocks"] and not about["geometry"]["ring"]:
        raise BoardError(
            f"{folder}: was built without an image; load {name} with `secateur device load`, or "
            f"build with --image"
        )
    image = Image.of(stream, Geometry(**about["geometry"]), name)
    return _pack(find(about["board"]), folder, about, report, image, progress)


def load_design(folder: Path) -> tuple[dict, dict]:
    """The contents of DESIGN and REPORT in the folder of a build.

    Raises
    ------
    BoardError : there is no finished build, or its files were changed
    """
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


def _write_design(design: Design, placed: Placed, *, rom: bool) -> dict:
    """Write DESIGN: with ``rom``, the block RAMs of the weight memory."""
    blocks = {}
    if rom:
        blocks = design.flow.CONTENTS.find_blocks(design.geometry, placed.config.read_text())
    about = {
        "board": design.board.name,
        "geometry": asdict(design.geometry),
        "blocks": {str(wid): list(block) for wid, block in sorted(blocks.items())},
        "sha256": _sha256(placed.config.read_bytes()),
    }
    _write(placed.config.with_name(DESIGN), json.dumps(about, indent=1) + "\n")
    return about


def _pack(
    board: Board,
    folder: Path,
    about: dict,
    report: dict[str, object],
    image: Image | None,
    progress: Progress,
) -> dict[str, object]:
    """Fill the placed design with an image, pack it, and write the report."""
    progress("packing", "")
    flow, config = find_flow(board), (folder / ROUTED).read_text()
    report["image"] = None
    if image is not None and about["blocks"]:
        where = {int(wid): tuple(block) for wid, block in about["blocks"].items()}
        geometry = Geometry(**about["geometry"])
        config = flow.CONTENTS.replace_blocks(config, geometry, where, image.words)
    if image is not None:
        report["image"] = {
            "name": image.name,
            "words": len(image.words),
            "sha256": _sha256(image.stream),
        }
    filled, packed = folder / "filled.config.part", folder / f"{BITSTREAM}.part"
    try:
        filled.write_text(config)
        flow.pack(folder, filled.name, packed.name)
        if image is not None and about["geometry"]["ring"]:
            _write_flash(board.flash, packed.read_bytes(), image, folder)
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


def _write_flash(flash: BoardFlash, bitstream: bytes, image: Image, folder: Path) -> None:
    """Write FLASH: the bitstream, and the image at its address, which counts.

    Raises
    ------
    BoardError : the bitstream is too long
    """
    room = flash.image - flash.start
    if len(bitstream) > room - SECTOR:
        raise BoardError(
            f"the bitstream has {len(bitstream)} bytes; there is room for {room - SECTOR}"
        )
    write_atomically(folder / FLASH, bitstream.ljust(room, b"\xff") + image.stream)


def _report(design: Design, placed: Placed) -> dict[str, object]:
    board = design.board
    return {
        "board": board.name,
        "title": board.title,
        "device": board.device,
        "die": board.die,
        "grade": design.flow.grade(board),
        "seed": placed.seed,
        "clock_mhz": design.clock / 1e6,
        "fmax_mhz": placed.fmax_mhz,
        "passed": placed.passed,
        "baud": board.baud,
        "program": board.flash.program if design.geometry.ring else board.program,
        "geometry": asdict(design.geometry),
        "resources": placed.resources,
        "slowest_path": placed.path,
        "tools": design.flow.TOOLS.versions(),
    }


def _write_report(folder: Path, report: dict[str, object]) -> None:
    _write(folder / REPORT, json.dumps(report, indent=1) + "\n")
    _write(folder / TEXT, to_text(report))


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

"""The commands for boards: list them, build a bitstream, replace the model in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secateur.callables import find_in_current_folder
from secateur.cli.common import Commands, Json, Key, bar, calibration, naming, positive, stage_bar
from secateur.cli.tables import show_files, table
from secateur.cli.terminal import Data, console, emit, plain, progress_console
from secateur.disk.lock import held
from secateur.errors import SecateurError

if TYPE_CHECKING:
    from secateur.boards.flow.route import Progress
    from secateur.pruning.explore.plan import Carrier

boards = Commands("Hardware")

#: Seeds to try if none is given.
TRIES = 3
ImageOption = Annotated[Path, typer.Option(help="Image made by `secateur compile`.")]


def carriers() -> dict[str, Carrier]:
    """The boards that carry a preset, as an exploration knows them."""
    from secateur.boards.catalogue.catalogue import BOARDS
    from secateur.pruning.explore.plan import Carrier
    from secateur.target import PRESETS

    presets = {target.geometry: name for name, target in PRESETS.items()}
    return {
        board.name: Carrier(presets[board.geometry], board.clock / 1e6)
        for board in BOARDS.values()
        if board.geometry in presets
    }


@boards.command("boards", epilog="Example: secateur boards")
def list_boards(as_json: Json = False) -> None:
    """List the boards and the engine that each carries."""
    from secateur.boards.catalogue.catalogue import BOARDS
    from secateur.boards.flow.flow import find_flow
    from secateur.target import PRESETS

    presets = {target.geometry: name for name, target in PRESETS.items()}
    listed = [
        {
            "name": board.name,
            "title": board.title,
            "device": board.device,
            "n": board.geometry.n,
            "p": board.geometry.p,
            "preset": presets.get(board.geometry),
            "weight_words": board.geometry.weight_words,
            "bank_words": board.geometry.bank_words,
            "clock_mhz": board.clock / 1e6,
            "baud": board.baud,
            "built_here": find_flow(board).TOOLS is not None,
        }
        for board in BOARDS.values()
    ]
    emit({"boards": listed}, as_json, show_boards)


@boards.command(
    epilog="Example: secateur estimate model.pt2 --calibrate x.npz --density 1 --density 0.25"
)
def estimate(
    model: Annotated[
        str,
        typer.Argument(
            help="Model in float: torch.export archive, ONNX file, or package.module:callable, "
            "which is called with a seed of 0 and returns a module."
        ),
    ],
    calibrate: Annotated[
        Path,
        typer.Option(
            help=".npz file with float inputs (key x; of several inputs their names); a few do, "
            "and their values hardly matter."
        ),
    ],
    density: Annotated[
        list[float] | None,
        typer.Option(
            help="Share of the blocks of every layer; repeat the option for several.",
            show_default="1, 0.5, 0.25, 0.125",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate a model's time on every board at several densities, without training."""
    from secateur.boards.catalogue.catalogue import BOARDS
    from secateur.disk.limits import DEFAULT
    from secateur.pruning.budget.estimate import DENSITIES, Engine
    from secateur.pruning.budget.estimate import estimate as estimated
    from secateur.sources import is_callable, load_model

    if is_callable(model):
        find_in_current_folder()
    found, _ = load_model(model, calibrated=True)
    data = calibration(calibrate, found, DEFAULT)
    engines = [Engine(b.name, b.geometry, b.clock / 1e6) for b in BOARDS.values()]
    with bar() as progress, naming(calibrate):
        rows = estimated(
            found, data, engines,
            densities=density or DENSITIES, progress=stage_bar(progress),
        )  # fmt: skip
    figures = [asdict(row) | {"milliseconds": row.milliseconds} for row in rows]
    emit({"model": model, "estimates": figures}, as_json, show_estimate)


@boards.command(epilog="Example: secateur build --board ulx3s-25f --image model.sec -o bitstream")
def build(
    board: Annotated[str, typer.Option(help="Name of the board (see `secateur boards`).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")],
    image: Annotated[
        Path | None,
        typer.Option(help="Image made by `secateur compile`; else see `secateur device load`."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Preset or TOML file of an engine other than the board's.")
    ] = None,
    clock: Annotated[
        float | None,
        typer.Option(help="Clock of the engine in MHz, if not the board's.", callback=positive),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=(1 << 31) - 1,
            help=f"Seed of place and route; without it, 1 to {TRIES} until one meets the clock.",
        ),
    ] = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Build a bitstream of the engine with an image in ROM; fails if it misses the clock.

    Without an image the weight memory is a RAM, which `secateur device load` fills. If the target
    has a ring, the image goes behind the bitstream, into a file for the board's flash.
    """
    from secateur.boards.catalogue.catalogue import find
    from secateur.boards.flow.build import build as make
    from secateur.boards.flow.design import Design
    from secateur.image import signing
    from secateur.target import Target

    stream = None if image is None else signing.load(image, key).stream
    engine = None if target is None else Target.load(target)
    with held(output), messages(), shown() as progress:
        design = Design(
            board=find(board),
            geometry=None if engine is None else engine.geometry,
            sdram=engine is not None and engine.sdram,
            clock=None if clock is None else round(clock * 1e6),
            seed=1 if seed is None else seed,
        )
        tries = TRIES if seed is None else 1
        data = make(design, stream, str(image), output, tries=tries, progress=progress)
    show = show_build if "bitstream" in data else show_sources
    emit(data | {"folder": str(output)}, as_json, show)


@boards.command(epilog="Example: secateur swap --image retrained.sec -o bitstream")
def swap(
    image: ImageOption,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder that `secateur build` has written.")
    ],
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Replace the image in a bitstream that was built, without a new place and route."""
    from secateur.boards.flow.build import swap as make
    from secateur.image import signing

    stream = signing.load(image, key).stream
    with held(output), messages(), shown() as progress:
        data = make(output, stream, str(image), progress=progress)
    emit(data | {"folder": str(output)}, as_json, show_build)


@contextlib.contextmanager
def messages() -> Iterator[None]:
    """Raise failures of file operations as SecateurError."""
    try:
        yield
    except OSError as error:
        raise SecateurError(f"{error.filename}: {error.strerror}") from None


@contextlib.contextmanager
def shown() -> Iterator[Progress]:
    """Progress on stderr: on a terminal one changing line, otherwise one line per stage."""
    seen: set[str] = set()

    def line(stage: str, note: str) -> None:
        if stage not in seen:
            seen.add(stage)
            progress_console.print(stage)

    if not progress_console.is_terminal:
        yield line
        return
    with progress_console.status("") as status:
        yield lambda stage, note: status.update(plain(f"{stage} {note}".rstrip()))


def show_build(data: Data) -> None:
    """The report of a build, and where its bitstream is."""
    from secateur.boards.flow.report import to_text

    for line in to_text(data).split("\n"):
        console.out(line)
    console.out(Path(data["folder"]) / data["bitstream"]["name"])


def show_sources(data: Data) -> None:
    """The sources that were written for a vendor's tool, and how to run it."""
    show_files(data)
    console.out("No bitstream: this board needs the vendor's tools. Run")
    console.out(f"    {data['next']}")


def show_boards(data: Data) -> None:
    """The table of boards."""
    title = "Boards; memories in words"
    rows = table(title, "name", "part", "preset", "N x P", "weights", "banks", "MHz")
    for board in data["boards"]:
        rows.add_row(
            board["name"],
            board["device"],
            board["preset"] or "-",
            f"{board['n']} x {board['p']}",
            f"{board['weight_words']:,}",
            f"{board['bank_words']:,}",
            f"{board['clock_mhz']:g}",
        )
    console.print(rows)
    for board in data["boards"]:
        if not board["built_here"]:
            console.print(f"{board['name']}: needs the vendor's tools")


def show_estimate(data: Data) -> None:
    """Boards by densities; below, why a model does not fit."""
    rows = data["estimates"]
    densities = list(dict.fromkeys(row["density"] for row in rows))
    title = f"{data['model']}: milliseconds per inference, by density of blocks"
    shown = table(title, "board", "N x P", "MHz", *(f"{density:g}" for density in densities))
    reasons: dict[str, list[str]] = {}
    by_board: dict[str, list[Data]] = {}
    for row in rows:
        by_board.setdefault(row["engine"]["name"], []).append(row)
    for name, own in by_board.items():
        geometry = own[0]["engine"]["geometry"]
        cells = ["-" if row["problem"] else f"{row['milliseconds']:.3f}" for row in own]
        shape = f"{geometry['n']} x {geometry['p']}"
        shown.add_row(name, shape, f"{own[0]['engine']['mhz']:g}", *cells)
        over = [f"{row['words']:,}" for row in own if row["problem"] and row["words"]]
        if over:
            room = f"{geometry['weight_words']:,} words of weights, not {', '.join(over)}"
            reasons.setdefault(room, []).append(name)
        for problem in dict.fromkeys(row["problem"] for row in own if row["words"] is None):
            reasons.setdefault(problem, []).append(name)
    console.print(shown)
    for reason, names in reasons.items():
        console.print(f"{', '.join(names)}: {reason}")
    console.print(
        "One density for all layers, the blocks of the largest norms: their cycles are exact. "
        "Times are cycles at the clock of the board."
    )

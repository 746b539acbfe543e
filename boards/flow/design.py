"""Synthesis, place and route of a board's design, with its resources and its clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from secateur.boards.catalogue.board import Board, BoardError
from secateur.boards.flow.flow import OpenFlow, VendorFlow, find_flow
from secateur.boards.flow.route import ROUTED, Progress, silent
from secateur.boards.flow.tools import PlacementError
from secateur.disk.storage import write_atomically
from secateur.hw.spec import Geometry


@dataclass(frozen=True, kw_only=True)
class Design:
    """What is placed.

    Parameters
    ----------
    board : the board
    geometry : the engine; None: the board's
    sdram : its ring is filled from the board's SDRAM; then ``board.sdram`` is left
    clock : Hz of the engine; None: the board's
    seed : of nextpnr

    Raises
    ------
    BoardError : the part cannot hold the engine, or there is no such clock
    """

    board: Board
    geometry: Geometry | None = None
    sdram: bool = False
    clock: int | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        if self.geometry is None:
            object.__setattr__(self, "geometry", self.board.geometry)
        if self.geometry.ring and self.board.flash is None:
            raise BoardError(
                f"{self.board.name}: has no flash that fills a ring; choose a target without ring"
            )
        if self.sdram and not (self.geometry.ring and self.board.sdram):
            raise BoardError(
                f"{self.board.name}: has no SDRAM that fills a ring; choose a target without sdram"
            )
        pins = dict(self.board.pins)
        if self.geometry.ring:
            pins |= self.board.flash.pins
        if self.sdram:
            pins |= self.board.sdram
        left = self.board.sdram if self.sdram else None
        object.__setattr__(self, "board", replace(self.board, pins=pins, sdram=left))
        if self.clock is None:
            object.__setattr__(self, "clock", self.board.clock)
        try:
            self.flow.check(self.board, self.geometry, self.clock)
        except BoardError:
            raise
        except ValueError as error:
            raise BoardError(f"{self.board.name}: {error}") from None

    @property
    def flow(self) -> OpenFlow | VendorFlow:
        """The toolchain of the board."""
        return find_flow(self.board)

    def verilog(self, init: list[int] | None) -> str:
        """The top with these words in its weight memory; None: it is a RAM."""
        return self.flow.to_verilog(self.board, self.geometry, clock=self.clock, init=init)


@dataclass(frozen=True)
class Placed:
    """A design after place and route.

    Attributes
    ----------
    seed : of nextpnr
    config : the textual configuration
    fmax_mhz : the engine's clock after routing
    passed : all clocks are met
    resources : ``used`` and ``available`` of each one
    path : steps of the slowest path
    """

    seed: int
    config: Path
    fmax_mhz: float
    passed: bool
    resources: dict[str, dict[str, int]]
    path: list[dict[str, object]]


def write_sources(design: Design, init: list[int] | None, folder: Path) -> list[Path]:
    """Write Verilog, constraints and scripts.

    Parameters
    ----------
    design : the design
    init : words of the weight memory; None: it is a RAM
    folder : for the files; it is made if it is missing

    Returns
    -------
    the files
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"top.v": design.verilog(init)} | design.flow.to_files(design.board, design.clock)
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    return [folder / name for name in texts]


def place(
    design: Design,
    init: list[int] | None,
    folder: Path,
    *,
    tries: int = 1,
    progress: Progress = silent,
    timeout: float | None = None,
) -> Placed:
    """Place and route a design.

    If there is no placement from its seed, or one that misses the clock, further seeds are tried.

    Parameters
    ----------
    design : its flow is an ``OpenFlow``
    init : words of the weight memory; None: it is a RAM
    folder : for all files
    tries : seeds, the design's and further ones
    progress : called with a stage and a note
    timeout : seconds of processor time per tool

    Returns
    -------
    the first that meets the clock, or the last

    Raises
    ------
    ToolError : a tool is missing, fails or takes too long
    """
    write_sources(design, init, folder)
    design.flow.synthesise(folder, progress, timeout)
    for seed in range(design.seed, design.seed + tries - 1):
        try:
            placed = place_again(
                replace(design, seed=seed), folder, progress=progress, timeout=timeout
            )
        except PlacementError:
            progress(f"no placement with seed {seed}", "")
            continue
        if placed.passed:
            return placed
        progress(f"{placed.fmax_mhz} MHz with seed {seed}", "")
    last = replace(design, seed=design.seed + tries - 1)
    return place_again(last, folder, progress=progress, timeout=timeout)


def place_again(
    design: Design, folder: Path, *, progress: Progress = silent, timeout: float | None = None
) -> Placed:
    """Place and route the netlist that ``place`` has left in the folder, with another seed.

    Parameters
    ----------
    design, folder, progress, timeout : as for ``place``

    Raises
    ------
    ToolError : a tool is missing, fails or takes too long
    """
    report = design.flow.route(
        folder, design.board, design.clock, seed=design.seed, progress=progress, timeout=timeout
    )
    return summarise(report, design, folder / ROUTED)


def summarise(report: dict, design: Design, config: Path) -> Placed:
    """Summarise nextpnr's report.

    The engine's clock is the slowest that is not the oscillator's.

    Parameters
    ----------
    report : of nextpnr
    design : which was placed
    config : its textual configuration
    """
    engine = {name: entry for name, entry in report["fmax"].items() if "TRELLIS_IO_IN" not in name}
    others = [entry for name, entry in report["fmax"].items() if name not in engine]
    name = min(engine, key=lambda name: engine[name]["achieved"])
    fmax = engine[name]["achieved"]
    passed = fmax >= design.clock / 1e6 and all(o["achieved"] >= o["constraint"] for o in others)
    slowest: list[dict[str, object]] = []
    for path in report["critical_paths"]:
        if path["from"] == path["to"] == f"posedge {name}":
            slowest = [
                {
                    "type": step["type"],
                    "ns": round(step["delay"], 3),
                    "from": step["from"]["cell"],
                    "to": step["to"]["cell"],
                }
                for step in path["path"]
            ]
    used = {
        name: {"used": entry["used"], "available": entry["available"]}
        for name, entry in sorted(report["utilization"].items())
        if entry["used"]
    }
    return Placed(design.seed, config, round(fmax, 1), passed, used, slowest)

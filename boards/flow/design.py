"""Synthesis, place and route of a board's design, with what they say about themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from secateur.boards.catalogue.board import Board, BoardError
from secateur.boards.flow import ice40
from secateur.boards.flow.route import Progress, route, silent, synthesise
from secateur.boards.flow.sites import PACKAGES, multipliers
from secateur.boards.flow.tools import PlacementError
from secateur.boards.flow.top import clocking, to_lpf, to_verilog
from secateur.hw.spec import Geometry

#: The textual configuration of a placed design, for the flow's packer.
ROUTED = "routed.config"
#: nextpnr's placer weighs time twice as much as by default, with which the 8 x 8 engine on the 45F
#: missed 140 MHz with seed 2 (136.8 MHz instead of 147.6).
PLACER = ("--placer-heap-timingweight", "20")


@dataclass(frozen=True, kw_only=True)
class Design:
    """What is placed: a board, an engine, its clock in Hz (None: the board's), nextpnr's seed.

    Raises
    ------
    BoardError : the engine is larger than the board's part, or there is no such clock
    """

    board: Board
    geometry: Geometry | None = None
    clock: int | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        if self.geometry is None:
            object.__setattr__(self, "geometry", self.board.geometry)
        if self.clock is None:
            object.__setattr__(self, "clock", self.board.clock)
        ecp5 = self.board.flow == "ecp5"
        if ecp5 and self.geometry.multipliers > multipliers(self.board.die):
            raise BoardError(
                f"{self.geometry.n} x {self.geometry.p} needs {self.geometry.multipliers} "
                f"multipliers, the {self.board.name} has {multipliers(self.board.die)}"
            )
        try:
            if self.board.flow == "ice40":
                ice40.check(self.geometry)
                ice40.Pll40.reach(self.board.oscillator, self.clock)
            else:
                clocking(self.board, self.clock)
        except ValueError as error:
            raise BoardError(f"{self.board.name}: {error}") from None

    def verilog(self, init: list[int] | None) -> str:
        """The top with these words in its weight memory; None: it is a RAM.

        With flow ``ice40`` it always is: ``init`` must be None.
        """
        if self.board.flow == "ice40":
            assert init is None
            return ice40.to_verilog(self.board, self.geometry, clock=self.clock)
        return to_verilog(self.board, self.geometry, init=init, clock=self.clock)


@dataclass(frozen=True)
class Placed:
    """What came out: the textual configuration, MHz of the engine's clock after routing, whether
    all clocks are met, ``used`` and ``available`` of each resource, the slowest path; and the
    seed."""

    seed: int
    config: Path
    fmax_mhz: float
    passed: bool
    resources: dict[str, dict[str, int]]
    path: list[dict[str, object]]


def place(
    design: Design,
    init: list[int] | None,
    folder: Path,
    *,
    tries: int = 1,
    progress: Progress = silent,
    timeout: float | None = None,
) -> Placed:
    """Place and route a design; ``timeout`` is the processor time of each tool, s.

    If there is no placement from its seed, or one that misses the clock, further seeds are tried,
    ``tries`` in all; what comes back is the first that meets the clock, or the last.

    Raises
    ------
    ToolError : a tool is missing, fails or takes too long
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "top.v").write_text(design.verilog(init))
    if design.board.flow == "ice40":
        (folder / "top.pcf").write_text(ice40.to_pcf(design.board))
        ice40.synthesise(folder, progress, timeout)
    else:
        (folder / "top.lpf").write_text(to_lpf(design.board, design.clock))
        synthesise(folder, "top", progress, timeout)
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
    """As ``place``, with the netlist that it has left in the folder: for another seed."""
    board, common = design.board, {"seed": design.seed, "progress": progress, "timeout": timeout}
    if board.flow == "ice40":
        report = ice40.route(folder, board, design.clock, **common)
    else:
        options = ["--lpf", "top.lpf", "--textcfg", ROUTED, *PLACER]
        package = PACKAGES[board.package]
        report = route(folder, "top", board.die, package=package, options=options, **common)
    return summarise(report, design, folder / ROUTED)


def summarise(report: dict, design: Design, config: Path) -> Placed:
    """nextpnr's report in short; the engine's clock is the slowest that is not the oscillator's."""
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
                    "ns": round(step["delay"], 2),
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

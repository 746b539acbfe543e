"""Toolchains by name, and the protocol of their modules.

A new toolchain is a module beside this one and a line in ``FLOWS``. A module is an object: mypy
checks each one against the protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from secateur.boards.catalogue.board import Board, BoardError
from secateur.boards.flow import ecp5, gowin, ice40, vivado
from secateur.boards.flow.contents import Block
from secateur.boards.flow.route import Progress, silent
from secateur.boards.flow.tools import Tools
from secateur.hw.spec import Geometry


class Flow(Protocol):
    """From a board and an engine to the sources of a bitstream: Verilog, constraints, scripts."""

    def check(self, board: Board, geometry: Geometry, clock: int) -> None:
        """Refuse an engine that the part cannot hold, or a clock that it cannot make.

        Parameters
        ----------
        board : the board
        geometry : the engine
        clock : Hz of the engine

        Raises
        ------
        ValueError : the message names the limit
        """

    def to_verilog(
        self, board: Board, geometry: Geometry, *, clock: int, init: Sequence[int] | None = None
    ) -> str:
        """Verilog of the module ``top``, whose ports are named as ``board.pins``.

        Parameters
        ----------
        board : the board
        geometry : the engine
        clock : Hz of the engine
        init : words of the image in ROM; None: the weight memory is a RAM
        """

    def to_files(self, board: Board, clock: int) -> dict[str, str]:
        """Constraints and scripts, by the names of their files beside ``top.v``."""


class VendorFlow(Flow, Protocol):
    """A toolchain of a vendor: only its sources are written here.

    Attributes
    ----------
    TOOLS : None
    COMMAND : what the user runs in the folder of the sources
    """

    TOOLS: None
    COMMAND: str


class OpenFlow(Flow, Protocol):
    """A toolchain of open tools that runs here.

    Attributes
    ----------
    TOOLS : the programs
    CONTENTS : finds and replaces the image in a placed design; None: images come over the link
    COUNTED : names in nextpnr's report of LUTs, flip-flops, block RAM and multipliers, "" for what
        it does not count
    """

    TOOLS: Tools

    @property
    def CONTENTS(self) -> Contents | None: ...
    @property
    def COUNTED(self) -> tuple[str, ...]: ...

    def grade(self, board: Board) -> int | None:
        """The speed grade that is assumed; None: the part has only one."""

    def synthesise(
        self, folder: Path, progress: Progress = silent, timeout: float | None = None
    ) -> None:
        """Make the netlist ``top.json`` from ``top.v``.

        Parameters
        ----------
        folder : where the files are
        progress : called with a stage and a note
        timeout : seconds of processor time

        Raises
        ------
        ToolError : a tool is missing, fails or takes too long
        """

    def route(
        self,
        folder: Path,
        board: Board,
        clock: int,
        *,
        seed: int,
        progress: Progress = silent,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Place and route ``top.json`` to ``ROUTED``; a missed clock is not an error.

        Parameters
        ----------
        folder : where the files are
        board : the board
        clock : Hz of the engine
        seed : of the placement
        progress : called with a stage and a note
        timeout : seconds of processor time

        Returns
        -------
        nextpnr's report

        Raises
        ------
        PlacementError : there is no placement from this seed
        ToolError : a tool is missing, fails or takes too long
        """

    def pack(self, folder: Path, config: str, bitstream: str) -> None:
        """Make a bitstream of a placed design.

        Parameters
        ----------
        folder : where the files are
        config, bitstream : their names

        Raises
        ------
        ToolError : the packer is missing or fails
        """


class Contents(Protocol):
    """Contents of the memories of a placed design, as in the module ``contents``."""

    def find_blocks(self, geometry: Geometry, config: str) -> dict[int, Block]:
        """The weight memory's block RAMs in a design that holds the placeholder."""

    def replace_blocks(
        self, config: str, geometry: Geometry, where: dict[int, Block], words: Sequence[int]
    ) -> str:
        """The configuration with other words in the weight memory.

        Parameters
        ----------
        config : the configuration
        geometry : the engine
        where : blocks of the weight memory by the numbers of their block RAMs
        words : the image
        """


FLOWS: dict[str, OpenFlow | VendorFlow] = {
    "ecp5": ecp5,
    "ice40": ice40,
    "gowin": gowin,
    "vivado": vivado,
}


def find_flow(board: Board) -> OpenFlow | VendorFlow:
    """The toolchain of a board.

    Raises
    ------
    BoardError : it names none of FLOWS
    """
    if board.flow not in FLOWS:
        raise BoardError(
            f"{board.name}: flow must be one of {', '.join(FLOWS)}, not {board.flow!r}"
        )
    return FLOWS[board.flow]

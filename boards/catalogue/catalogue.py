"""The boards by name. A new board is a file beside this one and a line here."""

from __future__ import annotations

from secateur.boards.catalogue.arty import ARTY_A7_100T
from secateur.boards.catalogue.board import Board, BoardError
from secateur.boards.catalogue.ecpix5 import ECPIX5_45F, ECPIX5_85F
from secateur.boards.catalogue.icebreaker import ICEBREAKER
from secateur.boards.catalogue.orangecrab import ORANGECRAB_25F, ORANGECRAB_85F
from secateur.boards.catalogue.tang_nano import TANG_NANO_20K
from secateur.boards.catalogue.ulx3s import (
    ULX3S_25F,
    ULX3S_25F_8X8,
    ULX3S_45F,
    ULX3S_45F_8X16,
    ULX3S_45F_S8,
    ULX3S_85F,
)

BOARDS = {
    board.name: board
    for board in (
        ULX3S_25F,
        ULX3S_25F_8X8,
        ULX3S_45F,
        ULX3S_45F_S8,
        ULX3S_45F_8X16,
        ULX3S_85F,
        ORANGECRAB_25F,
        ORANGECRAB_85F,
        ECPIX5_45F,
        ECPIX5_85F,
        ICEBREAKER,
        TANG_NANO_20K,
        ARTY_A7_100T,
    )
}


def find(name: str) -> Board:
    """The board of a name.

    Raises
    ------
    BoardError : there is no such board
    """
    if name not in BOARDS:
        raise BoardError(f"board {name!r} is not one of {', '.join(BOARDS)}")
    return BOARDS[name]

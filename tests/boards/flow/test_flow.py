"""Toolchains by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from secateur.boards.catalogue.board import BoardError
from secateur.boards.catalogue.catalogue import BOARDS
from secateur.boards.flow import ice40
from secateur.boards.flow.design import Design
from secateur.boards.flow.flow import FLOWS, find_flow


def test_every_toolchain_has_a_board_and_every_board_a_toolchain() -> None:
    assert {board.flow for board in BOARDS.values()} == set(FLOWS)
    assert find_flow(BOARDS["icebreaker"]) is ice40


def test_an_unknown_toolchain_is_named() -> None:
    board = replace(BOARDS["icebreaker"], flow="quartus")
    with pytest.raises(BoardError, match=r"^icebreaker: flow must be one of ecp5, .*not 'quartus'"):
        Design(board=board)

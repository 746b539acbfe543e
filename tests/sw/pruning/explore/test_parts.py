"""What a target takes of a part, beside what was placed and what the hardware instantiates."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from secateur.boards.catalogue.catalogue import BOARDS
from secateur.hw.spec import Geometry
from secateur.hw.verilog import to_verilog
from secateur.pruning.explore.parts import parts_of
from secateur.target import PRESETS, Target

PAGE = Path(__file__).parents[4] / "docs" / "explanation" / "boards.md"
#: Board, LUTs, block RAMs and multipliers of an ECP5 that was placed.
ROW = re.compile(
    r"^\| `([\w-]+)` \| LFE5U[\w-]+, \d \| \d+ x \d+ \| ([\d,]+) \| [\d,]+ \| (\d+) \| (\d+) \|",
    re.MULTILINE,
)


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_parts_are_those_of_the_placed_boards() -> None:
    presets = {target.geometry: target for target in PRESETS.values()}
    rows = ROW.findall(PAGE.read_text())
    assert len(rows) >= 5
    for name, luts, block_rams, multipliers in rows:
        found = parts_of(presets[BOARDS[name].geometry])
        assert (found.block_rams, found.multipliers) == (int(block_rams), int(multipliers)), name
        assert found.luts == pytest.approx(number(luts), rel=0.05), name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"weight_words": 5000},
        {"weight_words": 6144, "s": 2},
        {"bank_words": 4096},
        {"bank_words": 16384, "tables": 0},
        {"weight_words": 1 << 17, "ring": 4096},
    ],
)
def test_block_rams_are_those_of_the_hardware(changes: dict[str, Any]) -> None:
    sizes = {"n": 2, "p": 2, "weight_words": 1024, "bank_words": 256} | changes
    geometry = Geometry(**sizes)
    text = to_verilog(geometry, family="ecp5", interface="stream")
    instances = re.findall(r"^\s+DP16KD\b", text, re.MULTILINE)
    assert parts_of(Target(name="own", geometry=geometry)).block_rams == len(instances)


def test_a_multiplier_from_logic_takes_luts() -> None:
    soft, hard = (
        parts_of(Target(name="own", geometry=PRESETS["8x8"].geometry, hard=hard))
        for hard in (28, None)
    )
    assert (soft.multipliers, hard.multipliers) == (28, 64)
    assert (soft.luts - hard.luts) // 36 == 177
    assert soft.block_rams == hard.block_rams

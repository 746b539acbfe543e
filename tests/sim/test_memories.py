"""Verilog with loops for initial values says what it said without them."""

from __future__ import annotations

import re

import pytest

from secateur.hw.spec import Geometry
from secateur.hw.verilog import to_verilog
from secateur.sim.memories import fold

LOOP = re.compile(r"    for \(int i = (\d+); i <= (\d+); i = i \+ 1\) (.*)\[i\] = (.*);")


def unfold(verilog: str) -> str:
    """What ``fold`` was given."""
    lines = []
    for line in verilog.splitlines(keepends=True):
        loop = LOOP.fullmatch(line.rstrip("\n"))
        if loop is None:
            lines.append(line)
        else:
            first, last, name, value = loop.groups()
            lines += [f"    {name}[{i}] = {value};\n" for i in range(int(first), int(last) + 1)]
    return "".join(lines)


@pytest.mark.parametrize("rom", [False, True])
def test_an_engine_is_shorter_and_the_same(rom: bool) -> None:
    geometry = Geometry(n=4, p=2, weight_words=1024, bank_words=256, tables=1)
    words = [*range(1, 40), *[7] * 30, *[0] * 9, 5] if rom else None
    whole = to_verilog(geometry, words)
    folded = fold(whole)
    assert folded != whole
    assert unfold(folded) == whole
    assert len(re.findall(r"^    .*\[\d+\] = \d+'h[0-9a-f]+;$", folded, re.MULTILINE)) < 100


def test_runs() -> None:
    def block(*lines: str) -> str:
        return "  initial begin\n" + "".join(f"    {line}\n" for line in lines) + "  end\n"

    whole = block(*(f"\\a[1].b [{i}] = 8'h00;" for i in range(9)), "\\a[1].b [10] = 8'h00;")
    loop = "for (int i = 0; i <= 8; i = i + 1) \\a[1].b [i] = 8'h00;"
    assert fold(whole) == block(loop, "\\a[1].b [10] = 8'h00;")
    for same in (
        block(*(f"m[{i}] = 8'h00;" for i in range(7))),  # few
        block(*(f"m[{i}] = 8'h{i:02x};" for i in range(20))),  # of many values
        block(*(f"m{i}[{i}] = 8'h00;" for i in range(20))),  # of many memories
        block(*(f"m[{2 * i}] = 8'h00;" for i in range(20))),  # with gaps
        block(*(f"m[{i}] = 8'hxx;" for i in range(20))),  # of no value
        block(*(f"m[{i}] <= 8'h00;" for i in range(20))),
        whole.replace("initial", "always @*"),
    ):
        assert fold(same) == same

"""Shorter Verilog of the same meaning: a loop where a memory is filled with one value."""

from __future__ import annotations

import functools
import re
from itertools import groupby

_BLOCK = re.compile(r"(?<=^  initial begin\n)(?:^    .*\n)+(?=^  end$)", re.MULTILINE)
_WORD = re.compile(r"    (?P<memory>.+)\[(?P<at>\d+)\] = (?P<value>\d+'h[0-9a-f]+);")
#: Words from which on a loop is shorter.
_LEAST = 8


@functools.lru_cache(maxsize=4)
def fold(verilog: str) -> str:
    """``verilog`` with loops in place of initial values that are alike, word after word.

    Yosys writes every word of a memory out, and Verilator makes a statement of each, on which the
    C++ compiler spends more time than on the rest of an engine.
    """
    return _BLOCK.sub(lambda block: "".join(_runs(block[0].splitlines())), verilog)


def _runs(lines: list[str]) -> list[str]:
    words = [_WORD.fullmatch(line) for line in lines]
    # words of a run have the same memory, value, and distance from their line's number
    keys = [
        (i,) if word is None else (word["memory"], word["value"], int(word["at"]) - i)
        for i, word in enumerate(words)
    ]
    found = []
    for _, group in groupby(range(len(lines)), keys.__getitem__):
        run = list(group)
        first, last = words[run[0]], words[run[-1]]
        if len(run) < _LEAST or first is None or last is None:
            found += [f"{lines[i]}\n" for i in run]
        else:
            loop = f"for (int i = {first['at']}; i <= {last['at']}; i = i + 1)"
            found.append(f"    {loop} {first['memory']}[i] = {first['value']};\n")
    return found

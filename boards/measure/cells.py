"""Cells of the engine for an ASIC: yosys' generic synthesis, counted by module.

    python -m secateur.boards.measure.cells -o build/cells
    python -m secateur.boards.measure.cells -o build/cells --n 4 --p 2 --weight-words 1024 \\
        --bank-words 256

The cells are yosys' own two-input gates and flip-flops, not those of a foundry; RAMs
(``secateur.hw.memory.asic_ram``) stay black boxes whose names have their sizes. The hierarchy is
kept, so every module has its own line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from secateur.boards.flow.tools import Tools
from secateur.hw.soc.soc import BUSES
from secateur.hw.spec import Geometry
from secateur.hw.verilog import to_verilog

TOP = "secateur"
TOOLS = Tools("yosys")


def synthesise(
    geometry: Geometry, folder: Path, timeout: int | None = None, interface: str = "stream"
) -> dict[str, object]:
    """Synthesise the engine and count; writes ``secateur.v``, ``cells.json`` and ``cells.txt``.

    Parameters
    ----------
    geometry : the engine
    folder : for the files
    timeout : seconds of processor time
    interface : one of ``to_verilog``'s

    Returns
    -------
    ``modules`` maps every module, as an instance in the hierarchy, to its own ``cells``, its
    ``flip_flops`` and ``gates`` (which add up to them) and its ``rams``; ``all`` to the sums, and
    ``by_type`` to the cells of each type
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "secateur.v").write_text(to_verilog(geometry, family="asic", interface=interface))
    script = (
        f"read_verilog -sv secateur.v; blackbox secateur_ram_*; synth -top {TOP}; "
        "check -assert; tee -q -o stat.json stat -json"
    )
    TOOLS.run(["yosys", "-q", "-p", script], folder, timeout=timeout)
    found = count(json.loads((folder / "stat.json").read_text())["modules"])
    (folder / "cells.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "cells.txt").write_text(table(found))
    return found


def count(modules: dict[str, dict]) -> dict[str, object]:
    """The counts of yosys' ``stat -json``.

    Raises
    ------
    ValueError : a cell is neither a gate nor a flip-flop
    """
    rows, types = {}, {}
    for name, module in sorted(modules.items()):
        row = {"cells": 0, "flip_flops": 0, "gates": 0, "rams": {}}
        if name.lstrip("\\").startswith("secateur_ram_"):
            continue
        for kind, number in module["num_cells_by_type"].items():
            if kind.startswith("secateur_ram_"):
                row["rams"][kind] = number
            elif kind.startswith("$_"):
                part = "flip_flops" if "DFF" in kind else "gates"
                row[part] += number
                row["cells"] += number
                types[kind] = types.get(kind, 0) + number
            elif kind.lstrip("\\").split(".")[0] != TOP:
                raise ValueError(f"{name}: cell {kind} is neither a gate nor a flip-flop")
        rows[name.lstrip("\\").split("$")[0]] = row
    total = {
        key: sum(row[key] for row in rows.values()) for key in ("cells", "flip_flops", "gates")
    }
    rams: dict[str, int] = {}
    for row in rows.values():
        for kind, number in row["rams"].items():
            rams[kind] = rams.get(kind, 0) + number
    return {"modules": rows, "all": total | {"rams": rams}, "by_type": dict(sorted(types.items()))}


def table(found: dict[str, object]) -> str:
    """The counts as text, one line per module."""
    rows = [*found["modules"].items(), ("all", found["all"])]
    width = max(len(name) for name, _ in rows)
    lines = [f"{'module':{width}}  {'cells':>8}  {'flip-flops':>10}  {'gates':>8}  RAMs"]
    for name, row in rows:
        rams = ", ".join(
            f"{number} x {kind.removeprefix('secateur_ram_')}"
            for kind, number in row["rams"].items()
        )
        cells = f"{row['cells']:8,}  {row['flip_flops']:10,}  {row['gates']:8,}"
        lines.append(f"{name:{width}}  {cells}  {rams}".rstrip())
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line: see the module's head."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--p", type=int, default=8)
    parser.add_argument("--weight-words", type=int, default=8192)
    parser.add_argument("--bank-words", type=int, default=2048)
    parser.add_argument("--tables", type=int, default=8)
    parser.add_argument("--interface", choices=["stream", *BUSES], default="stream")
    parser.add_argument("--timeout", type=int, default=3600, help="seconds")
    parser.add_argument("-o", type=Path, default=Path("build/cells"))
    args = parser.parse_args()
    geometry = Geometry(
        n=args.n, p=args.p, weight_words=args.weight_words, bank_words=args.bank_words,
        tables=args.tables,
    )  # fmt: skip
    synthesise(geometry, args.o, args.timeout, args.interface)
    print((args.o / "cells.txt").read_text(), end="")


if __name__ == "__main__":
    main()

"""Resources and clocks of all boards with several seeds, as a table of the documentation.

    python -m secateur.boards.measure -o build/boards                  # hours
    python -m secateur.boards.measure -o build/boards --boards ecpix5-45f --seeds 1

Results with the same Verilog and tools are kept. The contents of the memories do not matter for
place and route, so no image is needed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from secateur.boards.catalogue.board import Board
from secateur.boards.catalogue.catalogue import BOARDS
from secateur.boards.flow.contents import placeholder
from secateur.boards.flow.design import Design, place, place_again
from secateur.boards.flow.flow import find_flow
from secateur.boards.flow.tools import ToolError
from secateur.disk.storage import write_atomically

BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
RESULTS = "results.json"


def measure(names: list[str], seeds: list[int], folder: Path, timeout: float) -> list[dict]:
    """Place and route boards with several seeds; writes RESULTS.

    Parameters
    ----------
    names : of the boards
    seeds : of the placements
    folder : for all files
    timeout : seconds of processor time per tool

    Returns
    -------
    results of all boards and seeds, earlier ones of other boards included
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / RESULTS
    results = json.loads(file.read_text()) if file.is_file() else []
    for name in names:
        design = Design(board=BOARDS[name])
        init = None if design.flow.CONTENTS is None else placeholder(design.geometry)
        same = {
            "board": name,
            "die": design.board.die,
            "verilog": hashlib.sha256(design.verilog(init).encode()).hexdigest(),
            "tools": design.flow.TOOLS.versions(),
        }
        results = [r for r in results if r["board"] != name or same.items() <= r.items()]
        known = {r["seed"] for r in results if r["board"] == name}
        designs = [replace(design, seed=seed) for seed in dict.fromkeys(seeds) if seed not in known]
        for seed, found in _place_all(designs, init, folder / name, timeout):
            results.append(same | {"seed": seed} | found)
            _write(file, json.dumps(results, indent=1) + "\n")
            print(json.dumps({"board": name, "seed": seed, **found}), flush=True)
    return results


def _place_all(
    designs: list[Design], init: list[int] | None, folder: Path, timeout: float
) -> Iterator[tuple[int, dict]]:
    """Seed and result of designs that differ in the seed: synthesised once."""
    synthesised = False
    for design in designs:
        try:
            if synthesised:
                placed = place_again(design, folder, timeout=timeout)
            else:
                placed = place(design, init, folder, timeout=timeout)
                synthesised = True
            used = {key: placed.resources[key]["used"] for key in design.flow.COUNTED if key}
            found = {"fmax_mhz": placed.fmax_mhz, "passed": placed.passed, "used": used}
        except ToolError as error:
            found = {"fmax_mhz": None, "passed": False, "error": str(error)}
        yield design.seed, found


def table(results: list[dict]) -> str:
    """The results as a Markdown table, one line per board."""
    lines = [
        "| board | die, grade | N x P | LUT4 | flip-flops | block RAM | multipliers | clock, MHz "
        "| after routing, MHz (seed) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, board in BOARDS.items():
        mine = sorted((r for r in results if r["board"] == name), key=lambda r: r["seed"])
        if not mine:
            continue
        used = next((r["used"] for r in mine if "used" in r), {})
        clocks = ", ".join(
            f"{'none' if r['fmax_mhz'] is None else r['fmax_mhz']} ({r['seed']})" for r in mine
        )
        size = board.geometry
        counted = find_flow(board).COUNTED
        counts = " | ".join(f"{used[k]:,}" if k in used else "-" for k in counted)
        engine = f"{_part(board)} | {size.n} x {size.p}"
        lines.append(f"| `{name}` | {engine} | {counts} | {board.clock / 1e6:g} | {clocks} |")
    versions = {", ".join(f"{k} {v}" for k, v in r["tools"].items()) for r in results}
    return "\n".join([*lines, "", *(f"Tools: {text}." for text in sorted(versions))]) + "\n"


def _part(board: Board) -> str:
    grade = find_flow(board).grade(board)
    return board.die if grade is None else f"{board.die}, {grade}"


def insert(document: Path, text: str) -> None:
    """Replace the text between the marks of a document.

    Raises
    ------
    ValueError : a mark is missing
    """
    before, begin, rest = document.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} must have the lines {BEGIN.strip()} and {END.strip()}")
    _write(document, before + begin + text + end + after)


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode())


def main() -> None:
    """Command line: see the module's head."""
    built = [name for name, board in BOARDS.items() if find_flow(board).TOOLS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boards", nargs="+", choices=built, default=built)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--timeout", type=float, default=3600, help="processor time per tool, s")
    parser.add_argument("--document", type=Path, help="write the table between its marks")
    parser.add_argument("-o", type=Path, default=Path("build/boards"))
    args = parser.parse_args()
    results = measure(args.boards, args.seeds, args.o, args.timeout)
    text = table(results)
    print(text, end="")
    if args.document:
        insert(args.document, text)
    wanted = [r for r in results if r["board"] in args.boards and r["seed"] in args.seeds]
    sys.exit(0 if all(r["passed"] for r in wanted) else 1)

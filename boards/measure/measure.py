"""All boards with several seeds: what they take and how fast they are, as a table of the docs.

    python -m secateur.boards.measure -o build/boards                  # hours
    python -m secateur.boards.measure -o build/boards --boards ecpix5-45f --seeds 1

What was measured before with the same Verilog and tools is kept. The memories' contents do not
matter for place and route, so no image is needed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

from secateur.boards.catalogue.board import Board
from secateur.boards.catalogue.catalogue import BOARDS
from secateur.boards.flow import tools
from secateur.boards.flow.build import write_atomically
from secateur.boards.flow.contents import placeholder
from secateur.boards.flow.design import Design, place, place_again
from secateur.boards.flow.sites import DIES
from secateur.boards.flow.tools import ToolError

BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
RESULTS = "results.json"
#: LUTs, flip-flops (those of an iCE40 are in its logic cells), block RAM, multipliers.
_COLUMNS = {
    "ecp5": ("TRELLIS_COMB", "TRELLIS_FF", "DP16KD", "MULT18X18D"),
    "ice40": ("ICESTORM_LC", "", "ICESTORM_RAM", "ICESTORM_DSP"),
}


def measure(names: list[str], seeds: list[int], folder: Path, timeout: float) -> list[dict]:
    """Results of all boards and seeds, old ones of other boards included, as in RESULTS."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / RESULTS
    results = json.loads(file.read_text()) if file.is_file() else []
    for name in names:
        design = Design(board=BOARDS[name])
        flow = design.board.flow
        init = placeholder(design.geometry) if flow == "ecp5" else None
        text = design.verilog(init)
        same = {
            "board": name,
            "die": design.board.die,
            "verilog": hashlib.sha256(text.encode()).hexdigest(),
            "tools": tools.versions(flow),
        }
        results = [r for r in results if r["board"] != name or same.items() <= r.items()]
        synthesised = False
        for seed in seeds:
            if any(r["board"] == name and r["seed"] == seed for r in results):
                continue
            at, one = folder / name, replace(design, seed=seed)
            try:
                if synthesised:
                    placed = place_again(one, at, timeout=timeout)
                else:
                    placed = place(one, init, at, timeout=timeout)
                    synthesised = True
                used = {key: placed.resources[key]["used"] for key in _COLUMNS[flow] if key}
                found = {"fmax_mhz": placed.fmax_mhz, "passed": placed.passed, "used": used}
            except ToolError as error:
                found = {"fmax_mhz": None, "passed": False, "error": str(error)}
            results.append(same | {"seed": seed} | found)
            write_atomically(file, json.dumps(results, indent=1) + "\n")
            print(json.dumps({"board": name, "seed": seed, **found}), flush=True)
    return results


def table(results: list[dict]) -> str:
    """The results as a table of Markdown, a board a line."""
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
        counts = " | ".join(f"{used[k]:,}" if k in used else "-" for k in _COLUMNS[board.flow])
        engine = f"{_part(board)} | {size.n} x {size.p}"
        lines.append(f"| `{name}` | {engine} | {counts} | {board.clock / 1e6:g} | {clocks} |")
    versions = {", ".join(f"{k} {v}" for k, v in r["tools"].items()) for r in results}
    return "\n".join([*lines, "", *(f"Tools: {text}." for text in sorted(versions))]) + "\n"


def _part(board: Board) -> str:
    return f"{board.die}, {DIES[board.die][1]}" if board.flow == "ecp5" else board.die


def insert(document: Path, text: str) -> None:
    """Replace what is between the marks of a document; ValueError if they are not there."""
    before, begin, rest = document.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} must have the lines {BEGIN.strip()} and {END.strip()}")
    write_atomically(document, before + begin + text + end + after)


def main() -> None:
    """Command line: see the module's head."""
    built = [name for name, board in BOARDS.items() if board.die]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boards", nargs="+", choices=built, default=built)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--timeout", type=float, default=3600, help="processor seconds of a tool")
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

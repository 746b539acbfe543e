"""yosys, nextpnr and packers that only carry the memories' contents through.

The netlist is the Verilog itself, in JSON; nextpnr numbers block RAMs in an order of its seed,
reads each INITVAL as 16 fields of 20 bits and writes them as pairs of 9 bits; ecppack copies.
FAKE_FMAX is the clock that nextpnr reports, of seed 1, 2 and so on, the last of all further ones;
"none": it finds no placement.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import stat
import sys
from pathlib import Path

from tests.support.gate import pass_gate

ROOT = Path(__file__).parents[3]
OTHERS = ("TRELLIS_COMB", "TRELLIS_FF", "MULT18X18D")
VERSIONS = {
    "yosys": "Yosys 9.1 (git sha1 0)",
    "nextpnr-ecp5": '"nextpnr-ecp5" -- Next Generation Place and Route (Version nextpnr-9.2)',
    "ecppack": "Project Trellis ecppack Version 9.3",
    "nextpnr-ice40": '"nextpnr-ice40" -- Next Generation Place and Route (Version nextpnr-9.2)',
    "nextpnr-himbaechel-gowin": "(Version nextpnr-9.2)",
    "gowin_pack": "usage: gowin_pack [options] netlist",
    "icepack": "Usage: icepack [options] [input-file [output-file]]",
}


def install(folder: Path) -> None:
    """Write the programs."""
    folder.mkdir()
    for name in VERSIONS:
        file = folder / name
        program = f"PYTHONPATH={ROOT} exec {sys.executable} -m {__name__} {name}"
        file.write_text(f'#!/bin/sh\n{program} "$@"\n')
        file.chmod(file.stat().st_mode | stat.S_IXUSR)


def main(name: str, arguments: list[str]) -> None:
    if arguments == ["--version"]:
        print(VERSIONS[name])
    elif name == "yosys":
        print("1.2.3. Executing OPT pass.")
        netlist: dict = {"modules": {}, "verilog": Path("top.v").read_text()}
        Path("top.json").write_text(json.dumps(netlist))
    elif name in ("ecppack", "icepack"):
        pass_gate()
        shutil.copy(*arguments[-2:])
    elif name == "gowin_pack":
        *options, config = arguments
        shutil.copy(config, dict(itertools.pairwise(options))["-o"])
    else:
        print(*arguments)
        options = dict(itertools.pairwise(arguments))
        routers = {
            "nextpnr-ecp5": route,
            "nextpnr-ice40": route_ice40,
            "nextpnr-himbaechel-gowin": route_gowin,
        }
        routers[name](int(options["--seed"]), options)


def fmax(seed: int) -> float:
    clocks = os.environ["FAKE_FMAX"].split()
    clock = clocks[min(seed, len(clocks)) - 1]
    if clock == "none":
        sys.exit("ERROR: Unable to find legal placement for all cells, design is probably full.")
    return float(clock)


def route(seed: int, options: dict[str, str]) -> None:
    print("Info:     at iteration #1, type ALL: wirelen solved = 1")
    print("Info:       1000 |       39        960 |   39   960 |      5555|       0.10       0.10|")
    verilog = json.loads(Path("top.json").read_text())["verilog"]
    blocks = re.findall(r"DP16KD #\((.*?)\) ", verilog, re.DOTALL)
    random.Random(seed).shuffle(blocks)
    text = [".device LFE5U-25F\n\n.tile R1C1:X\narc: A B\n"]
    for wid, block in enumerate(blocks, 3):
        values = dict(re.findall(r"\.INITVAL_(..)\(320'h([0-9a-f]+)\)", block))
        fields = [
            int(values[f"{row:02X}"], 16) >> 20 * field & 0x3FFFF
            for row in range(64)
            for field in range(16)
        ]
        numbers = [f"{half:03x}" for field in fields for half in (field & 0x1FF, field >> 9)]
        rows = [" ".join(numbers[at : at + 8]) for at in range(0, 2048, 8)]
        text.append(f".bram_init {wid}\n" + "\n".join(rows) + "\n")
    Path(options["--textcfg"]).write_text("\n".join(text))
    step = {"type": "routing", "delay": 6.0, "from": {"cell": "a"}, "to": {"cell": "b"}}
    report = {
        "fmax": {
            "$glbnet$clk$TRELLIS_IO_IN": {"achieved": 300.0, "constraint": 25.0},
            "link.clk": {"achieved": fmax(seed), "constraint": 187.5},
        },
        "critical_paths": [{"from": "posedge link.clk", "to": "posedge link.clk", "path": [step]}],
        "utilization": {
            "DP16KD": {"used": len(blocks), "available": 56},
            "ALU54B": {"used": 0, "available": 14},
            **{name: {"used": 7, "available": 9} for name in OTHERS},
        },
    }
    Path(options["--report"]).write_text(json.dumps(report))


def route_gowin(seed: int, options: dict[str, str]) -> None:
    files = (options["--device"], options["--json"], options["--sdc"])
    assert files == ("GW2AR-LV18QN88C8/I7", "top.json", "top.sdc")
    Path(options["--write"]).write_text(f"placed with seed {seed}\n")
    report = {
        "fmax": {
            "oscillator_clk": {"achieved": 300.0, "constraint": 27.0},
            "link.clk": {"achieved": fmax(seed), "constraint": 81.0},
        },
        "critical_paths": [],
        "utilization": {
            "LUT4": {"used": 9000, "available": 20736},
            "ALU54D": {"used": 0, "available": 24},
        },
    }
    Path(options["--report"]).write_text(json.dumps(report))


def route_ice40(seed: int, options: dict[str, str]) -> None:
    files = (options["--package"], options["--json"], options["--pcf"])
    assert files == ("sg48", "top.json", "top.pcf")
    text = f"placed with seed {seed} for {options['--freq']} MHz\n"
    Path(options["--asc"]).write_text(text)
    report = {
        "fmax": {
            "made": {"achieved": 90.0, "constraint": 36.0},
            "sync": {"achieved": fmax(seed), "constraint": 36.0},
        },
        "critical_paths": [],
        "utilization": {
            "ICESTORM_LC": {"used": 4000, "available": 5280},
            "SB_I2C": {"used": 0, "available": 2},
        },
    }
    Path(options["--report"]).write_text(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

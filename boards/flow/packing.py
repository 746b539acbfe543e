"""What nextpnr's placers want to find in a netlist of yosys, so that a full part can be placed."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

#: Prefix that sorts behind every name that yosys makes.
_LATE = "~"
_ADDENDS = ("A0", "B0", "C0", "D0", "A1", "B1", "C1", "D1")


def order_flip_flops(file: Path) -> int:
    """Rename the flip-flops in a netlist of yosys, so that nextpnr-ecp5 visits them in good order.

    Packer and legaliser visit cells from the last name to the first.

    - Accumulators come first. A sum may go to two registers: the accumulator, which the adder adds
      to, and one that reads the result out. Only the one that comes first fits into the adder's
      slice; the other is placed a few tiles away. If that is the accumulator, the path there and
      back limits the clock.
    - The others follow, those with the rarest set and clock enable first. Flip-flops of half a tile
      share them, and the legaliser moves only cells of the same kind out of the way. A kind that
      comes when the part is nearly full finds no half tile that is free, and the placement does not
      end.

    Returns
    -------
    the number of accumulators
    """
    netlist = json.loads(file.read_text())
    found = 0
    for module in netlist["modules"].values():
        cells = module["cells"]
        loops = set(_accumulators(cells))
        flip_flops = {n: _kind(cell) for n, cell in cells.items() if cell["type"] == "TRELLIS_FF"}
        common = Counter(flip_flops.values()).most_common()
        rank = {kind: place for place, (kind, _) in enumerate(common)}
        last = len(rank)
        places = {n: last if n in loops else rank[kind] for n, kind in flip_flops.items()}
        order = sorted(places, key=lambda name: (places[name], name))
        new = {name: f"{_LATE}{place:06}{name}" for place, name in enumerate(order)}
        module["cells"] = {new.get(name, name): cell for name, cell in cells.items()}
        found += len(loops)
    file.write_text(json.dumps(netlist))
    return found


def buffer_flip_flops(file: Path) -> int:
    """Put a LUT before each flip-flop of a netlist for Gowin that has none of its own.

    A flip-flop of Gowin's parts takes its input from the LUT or adder beside it, so that it uses
    that one, too. nextpnr lets the signal through a LUT after placement. Its placer counts only the
    flip-flop, heaps more into a tile than fits, and hardly finds its way out again.

    Returns
    -------
    the number of LUTs
    """
    netlist = json.loads(file.read_text())
    found = 0
    for module in netlist["modules"].values():
        cells = module["cells"]
        sources, fanout = _nets(cells)
        bits = (bit for net in module["netnames"].values() for bit in net["bits"])
        free = itertools.count(1 + max((bit for bit in bits if isinstance(bit, int)), default=0))
        for name in [name for name, cell in cells.items() if cell["type"].startswith("DFF")]:
            (data,) = cells[name]["connections"]["D"]
            if fanout[data] == 1 and sources.get(data, "").startswith(("LUT", "ALU")):
                continue
            behind = next(free)
            cells[name]["connections"]["D"] = [behind]
            cells[f"{name}$through"] = {
                "type": "LUT1",
                "parameters": {"INIT": "10"},
                "attributes": {},
                "port_directions": {"I0": "input", "F": "output"},
                "connections": {"I0": [data], "F": [behind]},
            }
            module["netnames"][f"{name}$through"] = {"bits": [behind], "attributes": {}}
            found += 1
    file.write_text(json.dumps(netlist))
    return found


def _nets(cells: dict[str, dict]) -> tuple[dict[int, str], Counter]:
    """The kind of cell that drives each net, and the cells' inputs that each one drives."""
    sources, fanout = {}, Counter()
    for cell in cells.values():
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "output":
                sources |= dict.fromkeys(bits, cell["type"])
            else:
                fanout.update(bits)
    return sources, fanout


def restore_names(report: dict) -> dict:
    """nextpnr's report with the names that yosys made."""
    return json.loads(re.sub(rf'(?<="){_LATE}\d{{6}}', "", json.dumps(report)))


def _kind(cell: dict) -> tuple:
    """The nets of set and clock enable."""
    return tuple(str(cell["connections"].get(port, ())) for port in ("LSR", "CE"))


def _accumulators(cells: dict[str, dict]) -> Iterator[str]:
    """Flip-flops behind an adder to which they are inputs."""
    adders = {}  # sum: its adder's inputs
    for cell in cells.values():
        if cell["type"] == "CCU2C":
            ports = cell["connections"]
            adders |= {bit: ports for port in ("S0", "S1") for bit in ports.get(port, ())}
    for name, cell in cells.items():
        ports = cell["connections"]
        data = ports.get("DI")
        if cell["type"] == "TRELLIS_FF" and data and data[0] in adders:
            inputs = adders[data[0]]
            if any(inputs.get(port) == ports.get("Q") for port in _ADDENDS):
                yield name

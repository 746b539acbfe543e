"""Order of the flip-flops that nextpnr-ecp5 may put beside the adders that feed them."""

from __future__ import annotations

import json
from pathlib import Path

#: Prefix that sorts before every name that yosys makes.
FIRST = "$0"
_ADDENDS = ("A0", "B0", "C0", "D0", "A1", "B1", "C1", "D1")


def yield_to_loops(file: Path) -> int:
    """Rename flip-flops in a netlist of yosys so that an accumulator stands beside its adder.

    A sum may go to two registers: the accumulator, which the adder adds to, and one that reads the
    result out. Only one of them fits into the adder's slice; the other is placed a few tiles away.
    If that is the accumulator, the path there and back limits the clock. nextpnr-ecp5 visits
    flip-flops from the last name to the first, so those outside a loop get names that come first.

    Returns
    -------
    the number of renamed flip-flops
    """
    netlist = json.loads(file.read_text())
    renamed = 0
    for module in netlist["modules"].values():
        cells = module["cells"]
        adders = {}  # sum: its adder
        for cell in cells.values():
            if cell["type"] == "CCU2C":
                ports = cell["connections"]
                adders |= {bit: cell for port in ("S0", "S1") for bit in ports.get(port, ())}
        fed: dict[int, list[tuple[str, bool]]] = {}
        for name, cell in cells.items():
            ports = cell["connections"]
            data = ports.get("DI")
            if cell["type"] == "TRELLIS_FF" and data and data[0] in adders:
                inputs = adders[data[0]]["connections"]
                back = any(inputs.get(port) == ports.get("Q") for port in _ADDENDS)
                fed.setdefault(data[0], []).append((name, back))
        aside = {
            name
            for registers in fed.values()
            if any(back for _, back in registers)
            for name, back in registers
            if not back
        }
        module["cells"] = {
            FIRST + name if name in aside else name: cell for name, cell in cells.items()
        }
        renamed += len(aside)
    file.write_text(json.dumps(netlist))
    return renamed

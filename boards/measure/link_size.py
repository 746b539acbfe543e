"""Size of the link on ECP5: UART, link, registers and outlet around a black box for the engine.

python -m secateur.boards.measure.link_size -o build/link
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from amaranth.back import verilog
from amaranth.hdl import Instance, Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import Flow

from secateur.boards.flow import ecp5
from secateur.hw.engine import Engine
from secateur.hw.link.uart_top import UartEngine
from secateur.hw.spec import Geometry

#: LUTs of a cell: a CCU2C is two, 16 x 4 bits of distributed RAM are four.
LUTS = {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 4}


class Box(wiring.Component):
    """An engine's ports and nothing behind them."""

    def __init__(self, engine: Engine) -> None:
        self.geometry, self.init, self.compact = engine.geometry, engine.init, engine.compact
        engine._MustUse__silence = True  # it is not built
        super().__init__(engine.signature)

    def ports(self) -> list:
        """Name, direction and signal of each port."""
        return [
            ("__".join(map(str, path)), member.flow, value)
            for path, member, value in self.signature.flatten(self)
        ]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kinds = {Flow.In: "i", Flow.Out: "o"}
        ports = {f"{kinds[flow]}_{name}": value for name, flow, value in self.ports()}
        m.submodules.box = Instance("box", **ports)
        return m

    def definition(self) -> str:
        """The black box in Verilog."""
        kinds = {Flow.In: "input", Flow.Out: "output"}
        declared = ", ".join(
            f"{kinds[flow]} [{len(Value.cast(value)) - 1}:0] {name}"
            for name, flow, value in self.ports()
        )
        return f"(* blackbox *) module box({declared}); endmodule\n"


def measure(geometry: Geometry, divisor: int, folder: Path) -> dict[str, int]:
    """LUTs, flip-flops and the cells of each type.

    Parameters
    ----------
    geometry : the engine
    divisor : cycles of a bit on the line
    folder : for the files
    """
    folder.mkdir(parents=True, exist_ok=True)
    top = UartEngine(geometry, divisor=divisor, family="ecp5")
    top.engine = box = Box(top.engine)
    text = verilog.convert(top, name="link", emit_src=False)
    (folder / "link.v").write_text(text + box.definition())
    script = "read_verilog link.v; synth_ecp5 -top link; tee -q -o stat.json stat -json"
    ecp5.TOOLS.run(["yosys", "-q", "-p", script], folder)
    cells = json.loads((folder / "stat.json").read_text())["design"]["num_cells_by_type"]
    return {
        "luts": sum(cells.get(kind, 0) * each for kind, each in LUTS.items()),
        "flip_flops": cells["TRELLIS_FF"],
        "cells": {kind: number for kind, number in cells.items() if not kind.startswith("$")},
    }


def main() -> None:
    """Command line: see the module's head."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--divisor", type=int, default=50)
    parser.add_argument("-o", type=Path, default=Path("build/link"))
    args = parser.parse_args()
    geometry = Geometry(n=args.n, p=8, weight_words=8192, bank_words=2048)
    print(json.dumps(measure(geometry, args.divisor, args.o)))


if __name__ == "__main__":
    main()

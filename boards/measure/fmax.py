"""Post-route clock of the engine alone: place and route with every port behind flip-flops.

    python -m secateur.boards.measure.fmax --p 8 --device LFE5U-45F --seeds 1 2 3 -o build/fmax

The engine has more port bits than a small package has pins. All inputs come from one shift
register, all outputs go into one parity register, so that every path of the engine lies between
flip-flops of one clock and is timed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from amaranth.back import verilog
from amaranth.hdl import Cat, ClockDomain, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from secateur.boards.flow import ecp5
from secateur.boards.flow.parts.sites import DIES, multiplier_sites
from secateur.boards.flow.route import run_nextpnr
from secateur.boards.flow.tools import ToolError
from secateur.hw.engine import Engine
from secateur.hw.spec import Geometry


class Harness(wiring.Component):
    """The engine between a shift register and a parity tree; two pins and a clock.

    Parameters
    ----------
    geometry : sizes of the engine
    bels : sites of its multipliers, or None

    Members
    -------
    clk : In(1)  clock of the engine
    serial_in : In(1)  of the shift register
    serial_out : Out(1)  parity of all outputs
    """

    def __init__(self, geometry: Geometry, bels=None):
        self.geometry, self.bels = geometry, bels
        super().__init__({"clk": In(1), "serial_in": In(1), "serial_out": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        # Block RAM and flip-flops start initialised; later resets are the engine's own.
        m.domains.sync = domain = ClockDomain(reset_less=True)
        m.d.comb += domain.clk.eq(self.clk)
        m.submodules.engine = engine = Engine(self.geometry, family="ecp5", bels=self.bels)
        driven = [
            engine.image.payload,
            engine.image.valid,
            engine.input.payload,
            engine.input.valid,
            engine.result.ready,
            engine.control.reset,
        ]
        seen = [
            engine.image.ready,
            engine.input.ready,
            engine.result.payload,
            engine.result.valid,
            *(getattr(engine.status, name) for name in ("state", "error", "cycles", "inferences")),
        ]
        shift = Signal(sum(len(signal) for signal in driven))
        m.d.sync += shift.eq(Cat(self.serial_in, shift))
        m.d.comb += Cat(*driven).eq(shift)
        caught = Signal(len(Cat(*seen)))
        folded = Signal(-(-len(caught) // 8))
        m.d.sync += caught.eq(Cat(*seen))
        m.d.sync += [folded[i].eq(caught[8 * i : 8 * i + 8].xor()) for i in range(len(folded))]
        m.d.sync += self.serial_out.eq(folded.xor())
        return m


def write_harness(geometry: Geometry, folder: Path, bels=None) -> None:
    """Write Verilog and netlist of the harness; files that are up to date are kept.

    Parameters
    ----------
    geometry : sizes of the engine
    folder : for the files
    bels : sites of its multipliers, or None
    """
    folder.mkdir(parents=True, exist_ok=True)
    source, netlist = folder / "harness.v", folder / "harness.json"
    text = verilog.convert(Harness(geometry, bels), name="harness", emit_src=False)
    if source.is_file() and netlist.is_file() and source.read_text() == text:
        return
    source.write_text(text)
    ecp5.synthesise(folder, top="harness")


def measure(folder: Path, die: str, seed: int, clock: float, timeout: int) -> dict[str, object]:
    """Place and route the harness.

    Parameters
    ----------
    folder : where its netlist is
    die : the part
    seed : of the placement
    clock : MHz that the router aims at
    timeout : seconds of processor time

    Returns
    -------
    the seed, MHz after routing, and the resources in use
    """
    options = ["--json", "harness.json", "--freq", str(clock), "--lpf-allow-unconstrained"]
    command = [*ecp5.part(die, "CABGA381"), *options]
    found = run_nextpnr(ecp5.TOOLS, command, folder, seed=seed, timeout=timeout)
    fmax = min(entry["achieved"] for entry in found["fmax"].values())
    used = {name: entry["used"] for name, entry in found["utilization"].items() if entry["used"]}
    return {"seed": seed, "fmax_mhz": round(fmax, 1), "used": used}


def main() -> None:
    """Command line: see the module's head."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--p", type=int, default=8)
    parser.add_argument("--weight-words", type=int, default=10240)
    parser.add_argument("--bank-words", type=int, default=2048)
    parser.add_argument("--device", choices=DIES, default="LFE5U-45F")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--clock", type=float, default=175.0, help="MHz that the router aims at")
    parser.add_argument("--timeout", type=int, default=2400, help="processor time per seed, s")
    parser.add_argument("-o", type=Path, default=Path("build/fmax"))
    args = parser.parse_args()
    geometry = Geometry(
        n=args.n, p=args.p, weight_words=args.weight_words, bank_words=args.bank_words
    )
    write_harness(geometry, args.o, multiplier_sites(args.device, geometry.multipliers))
    for seed in args.seeds:
        try:
            found = measure(args.o, args.device, seed, args.clock, args.timeout)
        except ToolError as error:
            found = {"seed": seed, "fmax_mhz": None, "error": str(error)}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()

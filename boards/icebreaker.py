"""iCEBreaker: iCE40UP5K, 12 MHz, USB serial port of an FTDI chip; a build of its own.

    python -m secateur.boards.icebreaker --seeds 1 2 3 -o build/icebreaker

One JSON line a seed: the clock after routing, and what is used. The first seed that meets the clock
gives ``secateur.bin``. SPRAM holds nothing at power-up: the image comes over the serial port.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from amaranth.back import verilog
from amaranth.hdl import ClockDomain, DomainRenamer, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth_boards.icebreaker import ICEBreakerPlatform

from secateur.hw.spec import Geometry
from secateur.hw.uart import divisor_for
from secateur.hw.uart_top import UartEngine

from . import tools
from .board import find_pins
from .top import LOCK_CYCLES, LockFilter

#: Three SPRAMs of weights, 16 of 30 block RAMs of banks: target ``up5k``.
GEOMETRY = Geometry(n=4, p=2, weight_words=16384, bank_words=1024, tables=0, extended=False)
OSCILLATOR, CLOCK, BAUD = 12_000_000, 36_000_000, 1_000_000
#: 12 MHz * 48 = 576 MHz, of which a sixteenth is the engine's clock. FILTER_RANGE is for 12 MHz.
PLL = {"DIVR": 0, "DIVF": 47, "DIVQ": 4, "FILTER_RANGE": 1}
PROGRAM = "openFPGALoader --board ice40_generic secateur.bin"
PINS = find_pins(ICEBreakerPlatform, running=("led_g", 0, ""), error=("led_r", 0, ""))
#: The ABC script that makes less of it; fewer clock enables, of which each wants tiles of its own.
_SCRIPT = (
    "scratchpad -copy abc9.script.flow3 abc9.script; read_verilog top.v; "
    "synth_ice40 -device u -dffe_min_ce_use 6 -top top -json top.json"
)


class Top(wiring.Component):
    """The engine on an iCEBreaker.

    The clock starts when the PLL has been locked for LOCK_CYCLES: flip-flops and memories start as
    configured, and need no reset.

    Parameters
    ----------
    geometry : the engine
    divisor : cycles of a bit on the line

    Members
    -------
    clk : In, the oscillator; rx, tx : In, Out, the serial line; running, error : Out, lights
    """

    def __init__(self, geometry: Geometry = GEOMETRY, divisor: int | None = None):
        divisor = divisor_for(CLOCK, BAUD) if divisor is None else divisor
        self.engine = UartEngine(geometry, family="ice40", divisor=divisor)
        super().__init__(
            {"clk": In(1), "rx": In(1), "tx": Out(1, init=1), "running": Out(1), "error": Out(1)}
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.domains.sync = sync = ClockDomain(reset_less=True)
        m.domains.made = made = ClockDomain(reset_less=True, local=True)
        m.domains.low = low = ClockDomain(reset_less=True, local=True, clk_edge="neg")
        m.submodules.lock = lock = DomainRenamer("made")(LockFilter(cycles=LOCK_CYCLES))
        m.submodules.pll = Instance(
            "SB_PLL40_PAD",
            p_FEEDBACK_PATH="SIMPLE",
            **{f"p_{name}": value for name, value in PLL.items()},
            i_PACKAGEPIN=self.clk,
            i_RESETB=1,
            i_BYPASS=0,
            o_PLLOUTCORE=made.clk,
            o_LOCK=lock.locked,
        )
        # The gate opens and closes while the clock is low.
        gate = Signal()
        m.d.low += gate.eq(lock.go)
        m.submodules.link = engine = self.engine
        m.d.comb += [low.clk.eq(made.clk), sync.clk.eq(made.clk & gate)]
        m.d.comb += [engine.rx.eq(self.rx), self.tx.eq(engine.tx)]
        for name in ("running", "error"):
            light = getattr(engine, name)
            m.d.comb += getattr(self, name).eq(~light if PINS[name].inverted else light)
        return m


def to_pcf() -> str:
    """Pins for nextpnr-ice40."""
    lines = []
    for port, pin in PINS.items():
        pull = "-pullup yes " if pin.attributes.get("PULLUP") == "1" and port == "rx" else ""
        lines.append(f"set_io {pull}{port} {pin.ball}\n")
    return "".join(lines)


def synthesise(folder: Path) -> None:
    """``top.v``, ``top.pcf``, ``top.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "top.v").write_text(verilog.convert(Top(), name="top", emit_src=False))
    (folder / "top.pcf").write_text(to_pcf())
    tools.run(["yosys", "-p", _SCRIPT], folder)


def route(folder: Path, seed: int, timeout: float | None = None) -> dict[str, object]:
    """Place and route one seed; the clock that nextpnr reports after routing, and what it used."""
    report = folder / f"report-{seed}.json"
    command = ["nextpnr-ice40", "--up5k", "--package", "sg48", "--json", "top.json"]
    command += ["--pcf", "top.pcf", "--asc", f"routed-{seed}.asc", "--report", report.name]
    command += ["--freq", str(CLOCK / 1e6), "--seed", str(seed), "--timing-allow-fail"]
    tools.run(command, folder, log=f"nextpnr-{seed}.log", timeout=timeout)
    return summarise(json.loads(report.read_text()), seed)


def summarise(report: dict, seed: int) -> dict[str, object]:
    """nextpnr's report in short: the slowest clock is the engine's."""
    fmax = min(entry["achieved"] for entry in report["fmax"].values())
    used = {name: entry["used"] for name, entry in report["utilization"].items() if entry["used"]}
    return {"seed": seed, "fmax_mhz": round(fmax, 1), "met": fmax >= CLOCK / 1e6, "used": used}


def main() -> None:
    """Command line: see the module's head."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--timeout", type=int, default=3600, help="seconds a seed")
    parser.add_argument("-o", type=Path, default=Path("build/icebreaker"))
    args = parser.parse_args()
    done = args.o / "secateur.bin"
    done.unlink(missing_ok=True)
    try:
        synthesise(args.o)
        for seed in args.seeds:
            found = route(args.o, seed, args.timeout)
            print(json.dumps(found), flush=True)
            if found["met"] and not done.is_file():
                tools.run(["icepack", f"routed-{seed}.asc", "part.bin"], args.o)
                (args.o / "part.bin").replace(done)
    except tools.ToolError as error:
        raise SystemExit(f"icebreaker: {error}") from None


if __name__ == "__main__":
    main()

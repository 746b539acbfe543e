# amaranth: UnusedElaboratable=no
"""Multipliers from logic: products are those of hard ones, in as many cycles."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest
from amaranth.back import verilog
from amaranth.hdl import Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.sim import Simulator

from secateur.boards.flow.ecp5 import SOFT_LUTS, TOOLS
from secateur.hw.core.carry import sum_of_products
from secateur.hw.core.lane import Lane
from secateur.hw.core.multiply import MULTIPLY_LATENCY, Multiplier


def run(dut, bench) -> None:
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def yosys(folder: Path, top: Elaboratable, ports: list | None, script: str) -> tuple[int, str]:
    """Status and output of a script on the Verilog of ``top``."""
    (folder / "top.v").write_text(verilog.convert(top, name="top", ports=ports, emit_src=False))
    command = [TOOLS.locate("yosys"), "-q", "-p", f"read_verilog top.v; {script}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("soft", [False, True])
def test_products(soft: bool) -> None:
    rng = random.Random(1)
    dut = Multiplier(soft=soft)
    pairs = [(a, b) for a in (-256, -255, -1, 0, 1, 255) for b in range(-2048, 2048, 3)]
    pairs += [(a, b) for a in range(-256, 256) for b in (-2048, -1, 0, 2047)]
    pairs += [(rng.randint(-256, 255), rng.randint(-2048, 2047)) for _ in range(2000)]

    async def bench(ctx) -> None:
        for tick in range(len(pairs) + MULTIPLY_LATENCY):
            if tick >= MULTIPLY_LATENCY:
                a, b = pairs[tick - MULTIPLY_LATENCY]
                assert ctx.get(dut.product) == a * b, (a, b)
            a, b = pairs[min(tick, len(pairs) - 1)]
            ctx.set(dut.operand, a)
            ctx.set(dut.weight, b)
            await ctx.tick()

    run(dut, bench)


class Chain(Elaboratable):
    """A carry chain beside the sum that it is to be; ``fault`` inverts a bit of that."""

    def __init__(self, subtract: bool, fault: bool) -> None:
        self.subtract, self.fault = subtract, fault
        self.first, self.second, self.bits = Signal(signed(9)), Signal(signed(10)), Signal(2)
        self.ok = Signal()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        total = Signal(signed(11))
        terms = (self.first, self.bits[0]), (self.second, self.bits[1])
        m.submodules.chain = sum_of_products(total, *terms, subtract=self.subtract)
        one, two = (Mux(bit, value, 0) for value, bit in terms)
        wanted = (one - two if self.subtract else one + two) ^ (self.fault << 7)
        m.d.comb += self.ok.eq(total == Value.cast(wanted)[:11].as_signed())
        return m


@pytest.mark.parametrize("subtract", [False, True])
def test_carry_chains_are_sums(subtract: bool, tmp_path: Path) -> None:
    """For all operands, with yosys' model of the CCU2C."""
    for fault in (False, True):
        top = Chain(subtract, fault)
        ports = [top.first, top.second, top.bits, top.ok]
        models = "read_verilog +/ecp5/ccu2c_sim.vh +/ecp5/common_sim.vh"
        prove = "prep -top top -flatten; sat -verify -prove ok 1 top"
        status, log = yosys(tmp_path, top, ports, f"{models}; {prove}")
        assert (status == 0) != fault, log
        assert ("proof did fail" in log) == fault, log


@pytest.mark.parametrize(("family", "luts"), [("ecp5", SOFT_LUTS), ("generic", None)])
def test_logic_is_all_that_they_take(family: str, luts: int | None, tmp_path: Path) -> None:
    script = "synth_ecp5 -top top; tee -q -o stat.json stat -json"
    status, log = yosys(tmp_path, Multiplier(family=family, soft=True), None, script)
    assert status == 0, log
    cells = json.loads((tmp_path / "stat.json").read_text())["design"]["num_cells_by_type"]
    assert set(cells) - {"$scopeinfo"} <= {"CCU2C", "LUT4", "PFUMX", "TRELLIS_FF"}
    if luts is not None:
        assert cells.get("LUT4", 0) + 2 * cells["CCU2C"] == luts


def test_a_lane_of_both_is_a_lane_of_one() -> None:
    """Whatever a lane is told, sums are the same in every cycle."""
    rng = random.Random(2)
    m = Module()
    lanes = [Lane(n=4, bels=bels) for bels in (None, [None], [])]
    m.submodules += lanes

    async def bench(ctx) -> None:
        seen = 0
        for _ in range(600):
            last = rng.random() < 0.2
            control = {
                "select": rng.randrange(4),
                **{name: rng.randrange(2) for name in ("broadcast", "signed", "compare")},
                "weights": [rng.randint(-2048, 2047) for _ in range(4)],
                **{name: rng.randrange(2) for name in ("latch", "gated")},
                "last": last,
            }
            word = [rng.randrange(256) for _ in range(4)]
            for lane in lanes:
                ctx.set(lane.control, control)
                ctx.set(lane.word, word)
                ctx.set(lane.enable, 1)
            await ctx.tick()
            first, *others = [[ctx.get(total) for total in lane.shadow] for lane in lanes]
            assert others == [first] * 2
            seen += first != [0] * 4
        assert seen > 50

    run(m, bench)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="bel must be None for a multiplier from logic, not 'X'"):
        Multiplier(soft=True, bel="X")

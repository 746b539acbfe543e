# amaranth: UnusedElaboratable=no
"""The top of a board: its PLL, its gate, its lights, its constraints."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from amaranth.sim import Simulator

from secateur.boards.catalogue.board import Board, BoardError
from secateur.boards.catalogue.catalogue import BOARDS
from secateur.boards.flow.design import Design
from secateur.boards.flow.ecp5 import clocking, to_lpf
from secateur.boards.flow.top import LockFilter
from secateur.boards.flow.vivado import to_xdc
from secateur.hw.spec import Geometry

SMALL = Geometry(n=2, p=1, weight_words=64, bank_words=16, tables=0)
INIT = list(range(64))


def cell(verilog: str, kind: str) -> dict[str, str]:
    """Parameters and pins of the only instance of a module."""
    begins = [found.start() for found in re.finditer(rf"^  {kind} ", verilog, re.MULTILINE)]
    assert len(begins) == 1
    text = verilog[begins[0] : verilog.index(";", begins[0])]
    return dict(re.findall(r"\.(\w+)\(([^()]*)\)", text))


def number(text: str) -> int:
    return int(text.split("'")[1].lstrip("sd"), 10) if "'" in text else int(text)


@pytest.mark.parametrize("name", ["ulx3s-25f", "orangecrab-25f", "ecpix5-45f"])
def test_pll_and_gate(name: str) -> None:
    board = BOARDS[name]
    verilog = Design(board=board, geometry=SMALL).verilog(INIT)
    pll, gate = cell(verilog, "EHXPLLL"), cell(verilog, "DCCA")
    detector = Fraction(board.oscillator, number(pll["CLKI_DIV"]))
    assert detector * number(pll["CLKFB_DIV"]) == board.clock
    assert 400e6 <= board.clock * number(pll["CLKOP_DIV"]) <= 800e6
    assert pll["FEEDBK_PATH"] == '"CLKOP"'
    assert pll["CLKI"] == "clk"
    assert pll["CLKFB"] == pll["CLKOP"] == gate["CLKI"]
    assert pll["CLKOP"] == "made"  # as the constraints call it
    assert gate["CLKO"] not in ("clk", pll["CLKOP"])
    assert verilog.count("MULT18X18D #(") == SMALL.multipliers


def test_lock_must_be_held() -> None:
    dut = LockFilter(cycles=20)

    async def bench(ctx) -> None:
        async def cycles_to_go(limit: int) -> int:
            for cycle in range(limit):
                if ctx.get(dut.go):
                    return cycle
                await ctx.tick()
            return limit

        assert await cycles_to_go(50) == 50
        ctx.set(dut.locked, 1)
        assert await cycles_to_go(15) == 15
        ctx.set(dut.locked, 0)
        await ctx.tick()
        ctx.set(dut.locked, 1)
        assert await cycles_to_go(50) == 22
        ctx.set(dut.locked, 0)
        await ctx.tick().repeat(3)
        assert not ctx.get(dut.go)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("name", ["ulx3s-25f", "orangecrab-25f"])
def test_lights_are_inverted_where_the_board_is(name: str) -> None:
    text = Design(board=BOARDS[name], geometry=SMALL).verilog(INIT)
    top = text[text.index("module top(") : text.index("endmodule")]
    for port in ("running", "error"):
        # The link's own output, by its port in the instance, or what is made of it.
        (light,) = re.findall(rf"\.{port}\((.*?) ?\)", top)
        inverted = BOARDS[name].pins[port].inverted
        assert (light == port) == (not inverted)
        if inverted:
            assert f"assign {port} = ~ {light}".replace(" ", "") in top.replace(" ", "")


def test_constraints() -> None:
    assert to_lpf(BOARDS["ecpix5-45f"], 140_000_000).splitlines() == [
        'FREQUENCY PORT "clk" 100 MHZ;',
        'FREQUENCY NET "made" 175 MHZ;',
        'LOCATE COMP "clk" SITE "K23";',
        'IOBUF PORT "clk" IO_TYPE=LVCMOS33;',
        'LOCATE COMP "rx" SITE "R26";',
        'IOBUF PORT "rx" IO_TYPE=LVCMOS33 PULLMODE=UP;',
        'LOCATE COMP "tx" SITE "R24";',
        'IOBUF PORT "tx" IO_TYPE=LVCMOS33 PULLMODE=UP;',
        'LOCATE COMP "running" SITE "R21";',
        'IOBUF PORT "running" IO_TYPE=LVCMOS33 PULLMODE=UP;',
        'LOCATE COMP "error" SITE "T23";',
        'IOBUF PORT "error" IO_TYPE=LVCMOS33 PULLMODE=UP;',
    ]
    xdc = to_xdc(BOARDS["arty-a7-100t"]).splitlines()
    assert xdc[:2] == [
        "create_clock -name clk -period 10.000 [get_ports {clk}]",
        "set_property -dict {PACKAGE_PIN E3 IOSTANDARD LVCMOS33} [get_ports {clk}]",
    ]


def test_arty_has_no_primitives() -> None:
    text = Design(board=BOARDS["arty-a7-100t"], geometry=SMALL).verilog(INIT)
    (ports,) = re.findall(r"\nmodule top\((.*)\);", text)
    assert sorted(ports.split(", ")) == ["clk", "error", "running", "rx", "tx"]
    assert not re.search(r"DP16KD|MULT18X18D|EHXPLLL|DCCA", text)


def refuse(board: Board, message: str, **settings: object) -> None:
    with pytest.raises(BoardError, match=message):
        Design(board=board, **settings)  # type: ignore[arg-type]


def test_refusals() -> None:
    ulx3s, arty = BOARDS["ulx3s-25f"], BOARDS["arty-a7-100t"]
    refuse(ulx3s, r"ulx3s-25f: a PLL cannot make 151 MHz from 25 MHz exactly", clock=151_000_000)
    refuse(ulx3s, r"ulx3s-25f: baud must be", clock=12_500_000)
    refuse(arty, r"clock must be the oscillator's, 100 MHz, not 120", clock=120_000_000)
    large = Geometry(n=16, p=14, weight_words=64, bank_words=16)
    many = r"ulx3s-25f: 16 x 14 needs 224 multipliers, the LFE5U-25F has 28 and logic for 178"
    refuse(ulx3s, many, geometry=large)
    with pytest.raises(ValueError, match="cycles must be at least 2, not 1"):
        LockFilter(cycles=1)
    assert clocking(ulx3s, 150_000_000)[1] == 150

"""Accumulators stand beside their adders, and rare flip-flops find a place."""

import json
from pathlib import Path

import pytest
from amaranth.back import verilog
from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from secateur.boards.flow import ecp5
from secateur.boards.flow.packing import order_flip_flops, restore_names
from secateur.hw.core.lane import Lane


def adder(first: int, second: int, total: int) -> dict[str, object]:
    ports = {"A0": [first], "B0": [second], "S0": [total]}
    return {"type": "CCU2C", "connections": ports}


def register(data: int, output: int, **control: object) -> dict[str, object]:
    return {"type": "TRELLIS_FF", "connections": {"DI": [data], "Q": [output], **control}}


def test_accumulators_come_last_in_order_of_names_then_the_rarest(tmp_path: Path) -> None:
    """nextpnr visits the last name first."""
    rare, common = {"LSR": [30], "CE": [31]}, {"LSR": ["0"]}
    cells = {
        "accumulator": register(5, 7, **common),
        "adder": adder(7, 3, 5),
        "plain": adder(3, 9, 11),
        "rare": register(11, 12, **rare),
        "shadow": register(5, 9, **common),
        "usual": register(11, 13, **common),
    }
    file = tmp_path / "top.json"
    file.write_text(json.dumps({"modules": {"top": {"cells": cells, "ports": {}}}}))
    assert order_flip_flops(file) == 1
    found = json.loads(file.read_text())["modules"]["top"]
    assert found["ports"] == {}
    plain = restore_names({name: name for name in sorted(found["cells"])})
    assert list(plain) == ["adder", "plain", "shadow", "usual", "rare", "accumulator"]
    assert list(plain.values()) == list(plain)
    new = zip(plain, sorted(found["cells"]), strict=True)
    assert {name: found["cells"][renamed] for name, renamed in new} == cells


class Pins(wiring.Component):
    """A lane behind two pins."""

    serial: In(1)
    out: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.lane = lane = Lane(n=8, family="ecp5")
        ports = [Value.cast(port) for port in (lane.word, lane.control, lane.enable)]
        bits = Signal(sum(map(len, ports)))
        sums, shifted = Signal(192), Signal(192)
        m.d.sync += [
            bits.eq(Cat(self.serial, bits)),
            sums.eq(Value.cast(lane.shadow)),
            shifted.eq(sums ^ Cat(shifted[1:], Const(0, 1))),
        ]
        m.d.comb += [Cat(ports).eq(bits), self.out.eq(shifted[0])]
        return m


@pytest.mark.long
def test_accumulators_of_a_lane_stand_beside_their_adders(tmp_path: Path) -> None:
    (tmp_path / "top.v").write_text(verilog.convert(Pins(), name="top"))
    ecp5.synthesise(tmp_path)
    placed = ["--25k", "--package", "CABGA381", "--json", "top.json", "--timing-allow-fail"]
    ecp5.TOOLS.run(["nextpnr-ecp5", *placed, "--no-route", "--write", "placed.json"], tmp_path)
    module = json.loads((tmp_path / "placed.json").read_text())["modules"]["top"]
    bel = {}
    driver = {}
    for name, cell in module["cells"].items():
        bel[name] = cell["attributes"].get("NEXTPNR_BEL", "")
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "output" and bits:
                driver[bits[0]] = name
    outputs = {
        bit
        for name, net in module["netnames"].items()
        if "accumulator" in name
        for bit in net["bits"]
    }
    pairs = [
        (bel[name], bel[driver[cell["connections"]["DI"][0]]])
        for name, cell in module["cells"].items()
        if cell["type"] == "TRELLIS_FF" and set(cell["connections"].get("Q", ())) & outputs
    ]
    assert len(pairs) == 8 * 24
    assert all(register.replace(".FF", ".K") == beside for register, beside in pairs)


FEW = """
module top(
  input clk, input [7:0] d, input a, input b, input r, input s,
  output reg [3:0] few, output reg [7:0] many
);
  always @(posedge clk) begin
    if (a) few <= d[3:0];
    if (r) few <= 0;
    if (b) many <= d;
    if (s) many <= 0;
  end
endmodule
"""


def test_fewer_than_five_flip_flops_share_no_set_and_no_clock_enable(tmp_path: Path) -> None:
    (tmp_path / "top.v").write_text(FEW)
    ecp5.synthesise(tmp_path)
    module = json.loads((tmp_path / "top.json").read_text())["modules"]["top"]
    for name, shared in (("few", False), ("many", True)):
        bits = set(module["netnames"][name]["bits"])
        cells = [c for c in module["cells"].values() if set(c["connections"].get("Q", ())) & bits]
        assert len(cells) == len(bits)
        controls = [c["connections"].get(port, ["0"])[0] for c in cells for port in ("CE", "LSR")]
        assert {isinstance(control, int) for control in controls} == {shared}

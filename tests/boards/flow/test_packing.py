"""Accumulators stand beside their adders."""

import json
from pathlib import Path

import pytest
from amaranth.back import verilog
from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from secateur.boards.flow import ecp5
from secateur.boards.flow.packing import yield_to_loops
from secateur.hw.core.lane import Lane


def adder(first: int, second: int, total: int) -> dict[str, object]:
    ports = {"A0": [first], "B0": [second], "S0": [total]}
    return {"type": "CCU2C", "connections": ports}


def register(data: int, output: int) -> dict[str, object]:
    return {"type": "TRELLIS_FF", "connections": {"DI": [data], "Q": [output]}}


def test_only_what_competes_with_a_loop_is_renamed(tmp_path: Path) -> None:
    cells = {
        "adder": adder(7, 3, 5),
        "accumulator": register(5, 7),
        "shadow": register(5, 9),
        "plain": adder(3, 9, 11),  # no loop: both may stand where they like
        "one": register(11, 12),
        "two": register(11, 13),
        "count": adder(20, 3, 21),  # a loop alone
        "counter": register(21, 20),
    }
    file = tmp_path / "top.json"
    file.write_text(json.dumps({"modules": {"top": {"cells": cells, "ports": {}}}}))
    assert yield_to_loops(file) == 1
    found = json.loads(file.read_text())["modules"]["top"]
    renamed = (set(found["cells"]) - set(cells)).pop()
    assert found["cells"] == {k: v for k, v in cells.items() if k != "shadow"} | {
        renamed: cells["shadow"]
    }
    assert renamed == min(found["cells"])
    assert found["ports"] == {}


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

"""Other families' synthesis: memories are in block RAM, and multipliers are the part's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from secateur.boards.flow.tools import Tools
from secateur.hw.spec import Geometry
from secateur.hw.verilog import to_verilog

GEOMETRY = Geometry(n=8, p=2, weight_words=2048, bank_words=1024)
TABLE_CODES, TABLES = 256, 8
#: Command of yosys, multiplier, and the kinds of block RAM with their bits.
FAMILIES = {
    "xilinx": ("synth_xilinx -family xc7", "DSP48E1", {"RAMB18E1": 18432, "RAMB36E1": 36864}),
    "gowin": (
        "synth_gowin -family gw2a",
        "MULT18X18",
        {name: 18432 for name in ("SPX9", "SDPX9B", "DPX9B", "SDPB", "DPB", "SP", "pROM")},
    ),
    "intel": ("synth_intel_alm -family cyclonev", "MISTRAL_MUL18X18", {"MISTRAL_M10K": 10240}),
}


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_memories_and_multipliers_are_found(family: str, tmp_path: Path) -> None:
    command, multiplier, rams = FAMILIES[family]
    (tmp_path / "secateur.v").write_text(to_verilog(GEOMETRY, family="generic"))
    # LUTs do not matter here; yosys 0.70 as a wheel stops in ABC9 for Xilinx.
    steps = f"{command} -top secateur -run begin:map_luts"
    script = f"read_verilog -sv secateur.v; {steps}; tee -q -o stat.json stat -json"
    Tools("yosys").run(["yosys", "-q", "-p", script], tmp_path)
    cells = json.loads((tmp_path / "stat.json").read_text())["design"]["num_cells_by_type"]
    assert cells[multiplier] == GEOMETRY.multipliers
    weights = GEOMETRY.weight_words * GEOMETRY.word_bits
    banks = GEOMETRY.p * GEOMETRY.bank_words * 8 * GEOMETRY.n
    tables = TABLES * TABLE_CODES * 8
    held = sum(bits * cells.get(name, 0) for name, bits in rams.items())
    assert held >= weights + banks + tables, cells

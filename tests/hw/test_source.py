"""The Verilog as others read it: its head, its ports, its memories, and other tools' lint."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pyslang
import pyslang.driver
import pytest
from amaranth.back.verilog import convert

from secateur.boards.flow.ecp5 import TOOLS
from secateur.hw.memory.fifo import CreditFifo
from secateur.hw.source import CHUNK, fill_memories, in_any_memory
from secateur.hw.spec import Geometry
from secateur.hw.verilog import to_files, to_verilog

GEOMETRY = Geometry(n=2, p=1, weight_words=300, bank_words=64, tables=0)
WORDS = [word * 7919 % (1 << 24) for word in range(1, 251)]


def yosys(folder: Path, script: str) -> dict[str, int]:
    """Cells by type after a script."""
    command = [TOOLS.locate("yosys"), "-q", "-p", f"{script}; tee -q -o stat.json stat -json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "stat.json").read_text())["design"]["num_cells_by_type"]


def test_a_rom_is_one_cell_or_short_blocks(tmp_path: Path) -> None:
    """yosys takes time by the square of the words in a block, and none by those of a file."""
    cells = {}
    for apart in (True, False):
        folder = tmp_path / str(apart)
        folder.mkdir()
        for name, text in to_files(GEOMETRY, WORDS, apart=apart).items():
            (folder / name).write_text(text)
        found = yosys(folder, "read_verilog secateur.v; hierarchy -top secateur; proc")
        cells[apart] = sum(number for kind, number in found.items() if "meminit" in kind)
    assert cells[True] == cells[False] - GEOMETRY.weight_words + 1
    for block in re.findall(
        r"^  initial begin\n(.*?)^  end$", to_verilog(GEOMETRY, WORDS), re.M | re.S
    ):
        assert block.count(";") <= CHUNK


def test_a_path_is_a_parameter(tmp_path: Path) -> None:
    """Another path reaches the memory through all modules; the words are those of the ROM."""
    files = to_files(GEOMETRY, WORDS, apart=True)
    assert list(files) == ["secateur.v", "memory_0.hex"]
    (tmp_path / "secateur.v").write_text(files["secateur.v"])
    (tmp_path / "other.hex").write_text(files["memory_0.hex"])
    read = 'read_verilog -defer secateur.v; chparam -set MEMORY_0 "other.hex" secateur'
    yosys(
        tmp_path, f"{read}; hierarchy -top secateur; proc; flatten; opt_clean; write_json top.json"
    )
    (module,) = json.loads((tmp_path / "top.json").read_text())["modules"].values()
    (data,) = (
        cell["connections"]["DATA"]
        for cell in module["cells"].values()
        if "meminit" in cell["type"] and len(cell["connections"]["DATA"]) == 24 * 300
    )
    value = int("".join(reversed(data)), 2)
    words = [value >> 24 * index & 0xFFFFFF for index in range(300)]
    assert words == WORDS + [0] * (300 - len(WORDS))


def test_two_memories_have_two_files() -> None:
    memory = (
        "  reg [7:0] {0} [1:0];\n"
        "  initial begin\n    {0}[0] = 8'h01;\n    {0}[1] = 8'h{1};\n  end\n"
    )
    text = (
        "module top(a);\n  \\low  one (\n    .a(a)\n  );\nendmodule\n"
        "module \\low (a);\n" + memory.format("x", "02") + memory.format("y", "03") + "endmodule\n"
    )
    found, files = fill_memories(text, apart="low")
    assert files == {"memory_0.hex": "01\n02\n", "memory_1.hex": "01\n03\n"}
    given = "#(.MEMORY_0(MEMORY_0), .MEMORY_1(MEMORY_1))"
    assert f"  \\low  {given} one (\n" in found
    assert found.count('  parameter MEMORY_1 = "memory_1.hex";\n') == 2


@pytest.mark.parametrize(
    ("interface", "divisor", "first"),
    [
        ("stream", None, ["clk", "rst", "image__payload"]),
        ("axi", None, ["aclk", "aresetn", "s_axi_awaddr"]),
        ("wishbone", None, ["clk", "rst", "wb_cyc"]),
        ("uart", 8, ["clk", "rst", "rx"]),
    ],
)
def test_the_file_says_what_it_is(interface: str, divisor: int | None, first: list[str]) -> None:
    text = to_verilog(GEOMETRY, WORDS, interface=interface, divisor=divisor, origin="ME 1.0: me -o")
    head = text[: text.index("\n\n")]
    assert all(line.startswith("//") for line in head.splitlines())
    assert "// Written by ME 1.0: me -o.\n" in head
    data = b"".join(word.to_bytes(3, "little") for word in WORDS)
    assert f"SHA-256 {hashlib.sha256(data).hexdigest()}." in head
    ports = re.search(r"^module secateur\((.*?)\);", text, re.M | re.S)[1].replace(",", " ").split()
    assert ports[: len(first)] == first
    body = text[text.index("module secateur(") :].partition("endmodule")[0]
    declared = re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\S+);$", body, re.MULTILINE)
    listed = re.findall(r"^//   (input|output) +(\d+)  (\S+)$", head, re.MULTILINE)
    told = {(kind, int(bits) - 1, name) for kind, bits, name in listed}
    clocks = {("input", 0, "clk"), ("input", 0, "rst")} if interface != "axi" else set()
    assert told | clocks == {(kind, int(top or 0), name) for kind, top, name in declared}


def test_only_ecp5_asks_for_memories_of_luts() -> None:
    assert "ram_style" not in to_verilog(GEOMETRY)
    assert 'ram_style = "distributed"' in to_verilog(GEOMETRY, family="ecp5")


@pytest.mark.parametrize("interface", ["stream", "axi", "uart"])
def test_slang_has_nothing_to_say(interface: str, tmp_path: Path) -> None:
    divisor = 8 if interface == "uart" else None
    geometry = Geometry(n=4, p=2, weight_words=256, bank_words=64)
    (tmp_path / "secateur.v").write_text(to_verilog(geometry, interface=interface, divisor=divisor))
    for standard in ("1364-2005", "1800-2017"):
        assert slang(tmp_path / "secateur.v", standard)


def slang(file: Path, standard: str) -> bool:
    """Whether slang reads a file without an error or a warning."""
    driver = pyslang.driver.Driver()
    driver.addStandardArgs()
    options = f"--std {standard} -Wcase-default -Werror"
    assert driver.parseCommandLine(f"slang {options} {file}")
    assert driver.processOptions()
    parsed = driver.parseAllSources()
    driver.reportCompilation(driver.createCompilation(), True)
    return parsed and driver.reportDiagnostics(True)


def test_slang_finds_a_case_that_names_too_little(tmp_path: Path) -> None:
    file = tmp_path / "top.v"
    body = "always @* case (a) 1'b0: y = 1'b1; endcase"
    file.write_text(f"module top(input a, output reg y); {body} endmodule\n")
    assert not slang(file, "1800-2017")


@pytest.mark.long
@pytest.mark.parametrize(
    "family",
    [
        "ice40", "gatemate", "efinix", "quicklogic -family pp3", "quicklogic -family qlf_k6n10f",
        "gowin", "xilinx", "nexus", "intel_alm", "anlogic", "lattice -family xo2",
    ],
)  # fmt: skip
def test_queues_fit_any_part(family: str, tmp_path: Path) -> None:
    """Also parts without RAM of LUTs: then they take block RAM or flip-flops."""
    text = convert(CreditFifo(shape=72, depth=16), name="top", emit_src=False)
    assert "ram_style" in text
    (tmp_path / "top.v").write_text(in_any_memory(text))
    assert yosys(tmp_path, f"read_verilog top.v; synth_{family} -top top")

"""Sources for boards whose tools are the vendor's: Verilog, constraints and a script for Vivado.

Nobody has run the script here; what is tested is that the parts agree with each other.
"""

from __future__ import annotations

from pathlib import Path

from secateur.boards.flow.build import write_atomically
from secateur.boards.flow.design import Design
from secateur.boards.flow.image import Image

_SCRIPT = """\
# vivado -mode batch -source build.tcl
# Writes secateur.bit, or fails if the clock is missed.
set part {part}
read_verilog top.v
read_xdc top.xdc
synth_design -top top -part $part
opt_design
place_design
phys_opt_design
route_design
report_utilization -file utilization.txt
report_timing_summary -file timing.txt
if {{[get_property SLACK [get_timing_paths -delay_type max]] < 0}} {{
    error "the clock of {clock:g} MHz is missed; see timing.txt"
}}
write_bitstream -force secateur.bit
"""


def write_sources(
    design: Design, stream: bytes | None, name: str, folder: Path
) -> dict[str, object]:
    """Write ``top.v``, ``top.xdc`` and ``build.tcl`` with an image in ROM, or None for a RAM;
    returns their list.

    Raises
    ------
    BoardError : the image does not fit
    """
    board = design.board
    image = None if stream is None else Image.of(stream, design.geometry, name)
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "top.v": design.verilog(None if image is None else image.words),
        "top.xdc": to_xdc(design),
        "build.tcl": _SCRIPT.format(part=f"{board.device}{board.package}", clock=board.clock / 1e6),
    }
    for file, text in contents.items():
        write_atomically(folder / file, text)
    return {
        "board": board.name,
        "image": None if image is None else {"name": image.name, "words": len(image.words)},
        "files": [str(folder / file) for file in contents],
        "next": f"cd {folder} && vivado -mode batch -source build.tcl",
    }


def to_xdc(design: Design) -> str:
    """Pins and the clock."""
    board = design.board
    lines = [f"create_clock -name clk -period {1e9 / board.oscillator:.3f} [get_ports {{clk}}]"]
    for port, pin in board.pins.items():
        settings = {"PACKAGE_PIN": pin.ball} | pin.attributes
        text = " ".join(f"{key} {value}" for key, value in settings.items())
        lines.append(f"set_property -dict {{{text}}} [get_ports {{{port}}}]")
    lines += [
        "set_false_path -from [get_ports {rx}]",
        "set_false_path -to [get_ports {tx running error}]",
        "set_property CFGBVS VCCO [current_design]",
        "set_property CONFIG_VOLTAGE 3.3 [current_design]",
    ]
    return "\n".join(lines) + "\n"

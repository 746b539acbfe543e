"""The program of a LiteX SoC's processor: c/main.c, the C driver, the code for LiteX's DMA."""

from __future__ import annotations

import subprocess
from pathlib import Path

import litex
import numpy as np

from tests.boards.soc.litex_soc import Made
from tests.support.c_driver import ROOT

COMPILER = "riscv64-unknown-elf-gcc"
SOC = ROOT / "boards" / "soc"
DRIVER = ROOT / "boards" / "driver" / "c"
_HERE = Path(__file__).parent / "c"
_LITEX = Path(litex.__file__).parent / "soc"
_CPU = _LITEX / "cores" / "cpu" / "vexriscv"
_FLAGS = (
    # Those that LiteX has for the processor; what a firmware needs; no calls of memset.
    "-march=rv32i2p0_m", "-mabi=ilp32", "-std=gnu99", "-Os", "-ffreestanding", "-nostdlib",
    "-fno-tree-loop-distribute-patterns", "-Wall", "-Wextra", "-Werror",
)  # fmt: skip


def put(folder: Path, files: dict[str, str]) -> None:
    """Write files to a folder, which is made if it is missing."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def compile_firmware(
    folder: Path, made: Made, image: bytes, inputs: np.ndarray, result_bytes: int
) -> str:
    """The contents of LiteX's ROM: a program that runs an image with inputs.

    Parameters
    ----------
    folder : for the files
    made : the SoC
    image, inputs, result_bytes : what the program loads and runs; it also loads an image with a
        wrong byte
    """
    damaged = image[:-3] + bytes([image[-3] ^ 1]) + image[-2:]
    sizes = {"INPUTS": len(inputs), "INPUT_BYTES": inputs[0].size, "RESULT_BYTES": result_bytes}
    lines = [f"#define {name} {value}" for name, value in sizes.items()]
    for name, data in (("image", image), ("damaged", damaged), ("inputs", inputs.tobytes())):
        values = ", ".join(map(str, data))
        lines.append(f"static const uint8_t {name}[] __attribute__((aligned(16))) = {{{values}}};")
    put(folder, {"case.h": "\n".join([*lines, ""])})
    put(folder / "generated", made.headers)
    sources = [_CPU / "crt0.S", _HERE / "main.c", DRIVER / "secateur.c", SOC / "secateur_litex.c"]
    places = [folder, _CPU, _LITEX / "software" / "include", DRIVER, SOC]
    linked = ["-T", _HERE / "firmware.ld", "-o", "firmware.elf"]
    for command in (
        [COMPILER, *_FLAGS, *(f"-I{place}" for place in places), *sources, "-lgcc", *linked],
        [COMPILER.replace("gcc", "objcopy"), "-O", "binary", "firmware.elf", "firmware.bin"],
    ):
        subprocess.run(command, cwd=folder, check=True)
    program = (folder / "firmware.bin").read_bytes()
    words = np.frombuffer(program + bytes(-len(program) % 4), "<u4")
    return "".join(f"{word:08x}\n" for word in words)

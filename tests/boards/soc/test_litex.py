"""The engine in a LiteX SoC: its Verilog, its DMA over a simulated bus, and a processor."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from secateur.hw.spec import Geometry
from secateur.hw.verilog import to_files, to_verilog
from secateur.sim import verilator
from secateur.sim.golden import parse, run
from tests.boards.soc.firmware import COMPILER, compile_firmware, put
from tests.boards.soc.litex_soc import ANSWERS, HOST, UART, Made, make
from tests.support.c_driver import FLAGS, OK, REFUSED, ROOT, STOPPED
from tests.support.long import long
from tests.support.programs import random_program

HERE = Path(__file__).parent
SOC = ROOT / "boards" / "soc"
DRIVER = ROOT / "boards" / "driver" / "c"


def engine(folder: Path, n: int, p: int, init: list[int] | None = None) -> tuple[Geometry, Path]:
    """An engine's Verilog in a folder."""
    geometry = Geometry(n=n, p=p, weight_words=1024, bank_words=64)
    files = to_files(geometry, init, interface="wishbone", apart=True)
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return geometry, folder / "secateur.v"


def case(folder: Path, geometry: Geometry) -> tuple[bytes, np.ndarray, np.ndarray, int]:
    """A random program with two layers that give results: image, inputs, results, cycles."""
    sample = random_program(10, geometry, layers=3, several=True)
    inputs = sample.inputs(3)
    expected = run(parse(sample.image, geometry), inputs, sequential=True)
    np.savez(
        folder / "case.npz", n=geometry.n, image=np.frombuffer(sample.image, np.uint8),
        inputs=inputs, results=expected.results, cycles=expected.cycles,
    )  # fmt: skip
    return sample.image, inputs, expected.results, expected.cycles


def visible(names: Iterable[str]) -> str:
    """Verilator's control file with the signals of the bench that cocotb sees."""
    public = [f'public_flat_rw -module "bench" -var "{name}"' for name in names]
    return "\n".join(["`verilator_config", *public, ""])


def lint(made: Made, folder: Path) -> subprocess.CompletedProcess[str]:
    put(folder, {"soc.v": made.verilog, **made.memories})
    command = ["verilator", "--lint-only", "-Wall", "-Wno-fatal", "--top-module", "soc", "soc.v"]
    return subprocess.run(
        command,
        cwd=folder,
        env=verilator.environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("n", "options"),
    [long(2, {}), long(16, {"bus_data_width": 64}), (8, {"bus_standard": "axi-lite"})],
)
def test_ports_of_the_engine_have_their_widths(n: int, options: dict, tmp_path: Path) -> None:
    _, verilog = engine(tmp_path / "engine", n, 1)
    found = lint(make(verilog, None, **options), tmp_path / "soc")
    assert found.returncode == 0, found.stderr
    assert re.findall(r".*(?:port connection|PINMISSING|UNDRIVEN).*", found.stderr) == []


def test_contents_of_a_rom_are_beside_the_engine(tmp_path: Path) -> None:
    words = list(range(100))
    _, verilog = engine(tmp_path / "engine", 4, 1, words)
    paths = re.findall(r'\.MEMORY_\d+ *\("(.*)"\)', make(verilog, None).verilog)
    assert paths
    assert all(Path(path).is_absolute() and Path(path).is_file() for path in paths)


def test_another_interface_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "secateur.v"
    file.write_text(to_verilog(Geometry(n=4, p=1, weight_words=256, bank_words=64)))
    with pytest.raises(ValueError, match=r"--interface wishbone`, not '.*secateur\.v'"):
        make(file, None)


def build_host(made: Made) -> Path:
    """The simulator of a bench with the ports of the SoC, all visible to cocotb."""
    ports = {"clk": 1, "rst": 1}
    ports |= {f"host_{name}": bits for name, bits in (HOST | ANSWERS).items()}
    ports |= {f"serial_{name}": bits for name, bits in UART.items()}
    driven = {f"host_{name}" for name in ANSWERS} | {
        f"serial_{name}" for name in ("source_valid", "source_data", "sink_ready")
    }
    declared = ",\n  ".join(
        f"{'output' if name in driven else 'input'} wire [{bits - 1}:0] {name}"
        for name, bits in ports.items()
    )
    connected = ", ".join(f".{name}({name})" for name in ports)
    bench = f"module bench (\n  {declared}\n);\n  soc dut ({connected});\nendmodule\n"
    return verilator.build(made.verilog + bench, visible(ports))


@pytest.mark.long
def test_the_dma_in_verilator(tmp_path: Path) -> None:
    check_dma(8, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(
    ("n", "options"),
    [
        (2, {}),
        (4, {}),
        (16, {}),
        (8, {"bus_data_width": 64}),
        (4, {"bus_data_width": 64}),
        (8, {"bus_standard": "axi-lite"}),
    ],
)
def test_other_buses_in_verilator(n: int, options: dict, tmp_path: Path) -> None:
    check_dma(n, tmp_path, **options)


def check_dma(n: int, tmp_path: Path, **options) -> None:
    geometry, verilog = engine(tmp_path / "engine", n, 1)
    made = make(verilog, None, **options)
    case(tmp_path, geometry)
    put(tmp_path, made.memories | {"registers.txt": str(made.registers)})
    put(tmp_path / "generated", made.headers)
    sources = [DRIVER / "secateur.c", SOC / "secateur_litex.c", HERE / "c" / "native.c"]
    folders = [f"-I{folder}" for folder in (DRIVER, SOC, HERE / "c", tmp_path)]
    command = ["gcc", *FLAGS, *folders, "-shared", "-fPIC", *map(str, sources), "-o", "driver.so"]
    subprocess.run(command, cwd=tmp_path, check=True)
    bench = "tests.boards.soc.litex_bench"
    width = min(n, options.get("bus_data_width", 32) // 8)
    # LiteX's bridges between buses do not pass on that an access is refused.
    refusals = "lost" if options else "seen"
    settings = {
        "SECATEUR_STALL": "0", "SECATEUR_DMA_BYTES": str(width), "SECATEUR_REFUSALS": refusals,
    }  # fmt: skip
    verilator.execute(build_host(made), tmp_path, bench, settings)


@pytest.mark.long
@pytest.mark.skipif(
    shutil.which(COMPILER) is None,
    reason=f"needs {COMPILER}: Debian's package gcc-riscv64-unknown-elf",
)
@pytest.mark.parametrize("n", [4, 8])
def test_a_processor_runs_the_c_driver(n: int, tmp_path: Path) -> None:
    geometry, verilog = engine(tmp_path / "engine", n, 1)
    made = make(verilog, "vexriscv")
    image, inputs, results, cycles = case(tmp_path, geometry)
    rom = compile_firmware(tmp_path, made, image, inputs, results[0].size)
    put(tmp_path, made.memories | {"soc_rom.init": rom})
    bench = (HERE / "litex_bench.v").read_text()
    program = verilator.build(made.verilog + bench, visible(["clk", "rst", "finished"]))
    verilator.execute(program, tmp_path, "tests.boards.soc.cpu_bench", {})

    def line(word: str, code: int, spent: int = 0, data: np.ndarray | None = None) -> str:
        shown = "" if data is None else data.tobytes().hex()
        return f"{word} {code:x} {spent:08x} {shown}"

    assert (tmp_path / "console.txt").read_text().split("\n") == [
        line("open", OK),
        line("damaged", STOPPED),
        line("holds", REFUSED),
        line("refused", OK),
        line("stopped", STOPPED),
        line("load", OK),
        *[line("infer", OK, cycles, row) for row in results],
        line("restart", OK),
        line("batch", OK, cycles, results),
        line("restart", OK),
        line("interrupt", OK, cycles, results),
        line("restart", OK),
        line("registers", OK, cycles, results[0]),
        "",
    ]

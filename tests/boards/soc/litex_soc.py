"""A LiteX SoC with the engine, as Verilog: memories, UART, a processor or a master of a test."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from litex.build.generic_platform import GenericPlatform, Pins, Subsignal
from litex.gen import LiteXModule
from litex.soc.integration.export import get_csr_header, get_mem_header, get_soc_header
from litex.soc.integration.soc_core import SoCCore
from litex.soc.interconnect import wishbone
from migen import ClockDomain

from secateur.boards.soc.secateur_litex import add_secateur

# LiteX puts an object here that prints and sleeps when anything looks at all modules.
sys.modules.pop("litex.soc.interconnect.stream_sim", None)

UART = {
    "source_valid": 1, "source_ready": 1, "source_data": 8,
    "sink_valid": 1, "sink_ready": 1, "sink_data": 8,
}  # fmt: skip
HOST = {"cyc": 1, "stb": 1, "we": 1, "adr": 30, "dat_w": 32, "sel": 4}
ANSWERS = {"dat_r": 32, "ack": 1, "err": 1}
REGISTERS = 0x8000_0000


@dataclass(frozen=True)
class Made:
    """A SoC.

    Attributes
    ----------
    verilog : of LiteX, the engine and the processor, top module ``soc``
    memories : contents by the names of the files that the Verilog reads
    headers : C headers of the addresses, by their names
    registers : address of the engine's registers
    """

    verilog: str
    memories: dict[str, str]
    headers: dict[str, str]
    registers: int


class _Clock(LiteXModule):
    def __init__(self, platform: GenericPlatform) -> None:
        self.cd_sys = ClockDomain()
        self.comb += [
            self.cd_sys.clk.eq(platform.request("clk")),
            self.cd_sys.rst.eq(platform.request("rst")),
        ]


class _Soc(SoCCore):
    def __init__(self, platform: GenericPlatform, engine: Path, cpu: str | None, **options) -> None:
        rom = {} if cpu is None else {"integrated_rom_size": 0x8000}
        super().__init__(
            platform, 50e6, cpu_type=cpu, uart_name="sim", with_timer=False,
            integrated_main_ram_size=0x4000, **rom, **options,
        )  # fmt: skip
        self.clock = _Clock(platform)
        # Without a processor LiteX would choose the address of its own registers.
        add_secateur(self, engine, origin=REGISTERS if cpu is None else None)
        if cpu is None:
            pads, bus = platform.request("host"), wishbone.Interface()
            self.bus.add_master("host", bus)
            self.comb += [getattr(bus, name).eq(getattr(pads, name)) for name in HOST]
            self.comb += [getattr(pads, name).eq(getattr(bus, name)) for name in ANSWERS]


def make(engine: Path, cpu: str | None, **options) -> Made:
    """The SoC with the Verilog of an engine.

    Parameters
    ----------
    engine : path of ``secateur.v``
    cpu : LiteX's name of a processor; None: the pads ``host`` are a master of the bus
    **options : of LiteX's SoCCore
    """

    def pads(name: str, signals: dict[str, int]) -> tuple:
        return (name, 0, *[Subsignal(part, Pins(bits)) for part, bits in signals.items()])

    single = [(name, 0, Pins(1)) for name in ("clk", "rst")]
    platform = GenericPlatform("", [*single, pads("serial", UART), pads("host", HOST | ANSWERS)])
    soc = _Soc(platform, engine, cpu, **options)
    soc.finalize()
    out = platform.get_verilog(soc, name="soc")
    # LiteX's comments have the date.
    top = re.sub(r"^//.*\n", "", out.main_source, flags=re.MULTILINE)
    return Made(
        verilog="\n".join([top, *[Path(file).read_text() for file, *_ in platform.sources]]),
        memories=dict(out.data_files),
        headers={
            "csr.h": get_csr_header(soc.csr_regions, soc.constants),
            "mem.h": get_mem_header(soc.mem_regions),
            "soc.h": get_soc_header(soc.constants),
        },
        registers=soc.bus.regions["secateur"].origin,
    )

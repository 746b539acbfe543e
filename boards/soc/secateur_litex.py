# SPDX-License-Identifier: Apache-2.0
"""The engine in a LiteX SoC: registers on its bus, tensors by LiteX's own DMA.

This file needs LiteX and nothing of Secateur: import it, or copy it beside your SoC.
"""

from __future__ import annotations

import re
from pathlib import Path

from litex.gen import LiteXModule
from litex.soc.cores.dma import WishboneDMAReader, WishboneDMAWriter
from litex.soc.integration.soc import SoCRegion
from litex.soc.interconnect import stream, wishbone
from litex.soc.interconnect.csr_eventmanager import EventManager, EventSourceLevel
from migen import C, Cat, ClockSignal, Instance, ResetInserter, ResetSignal, Signal

#: Bytes of the registers' region.
REGION = 0x100
_WORD = re.compile(r"^ *input \[(\d+):0\] s_axis_tdata;", re.MULTILINE)
_BUS = re.compile(r"^ *input wb_cyc;", re.MULTILINE)
_MEMORY = re.compile(r"^// Parameter (\w+): path of (\S+), for \$readmemh", re.MULTILINE)


class Secateur(LiteXModule):
    """An engine that ``secateur verilog --interface wishbone`` has written.

    An enabled DMA moves ``length`` bytes from or to ``base``: whole words of N bytes, of one
    inference or of several. ``base`` is a multiple of N, or of the bus's bytes if these are fewer.
    A disabled DMA loses what it holds: keep both enabled until the results are in memory. Results
    wait in the engine until their DMA is enabled. The processor is little-endian.

    Parameters
    ----------
    platform : gets the Verilog as a source
    verilog : path of ``secateur.v``; files of a ROM are beside it
    data_width, address_width : bits of the bus of the DMAs, which may be narrower: no word of the
        DMA is wider than a word of the engine

    Members
    -------
    registers : wishbone.Interface  slave, REGION bytes: docs/registers.md; a refused access ends
        with ``ack`` and ``err``
    input : WishboneDMAReader  master ``input.bus``; CSRs base, length, enable, done, loop, offset;
        ``done`` says that all has been read from memory
    result : WishboneDMAWriter  master ``result.bus``; the same CSRs; ``done`` says that all results
        are in memory
    ev : EventManager  ``engine``: the engine's ``irq``; ``result``: ``done`` of the results
    """

    def __init__(self, platform, verilog: str | Path, *, data_width=32, address_width=32):
        path = Path(verilog).absolute()
        text = path.read_text()
        word = _WORD.search(text)
        if word is None or not _BUS.search(text):
            raise ValueError(
                f"verilog must be an engine of `secateur verilog --interface wishbone`, "
                f"not {str(verilog)!r}"
            )
        bits = int(word[1]) + 1
        width = min(bits, data_width)
        ports = {"data_width": width, "address_width": address_width, "addressing": "word"}
        self.registers = wishbone.Interface(data_width=32, address_width=32, addressing="word")
        # Byte 0 of a bus word is its lowest, as in the engine's words. LiteX calls this "big"; with
        # "little" its DMA would reverse the bytes of every word.
        reader = WishboneDMAReader(wishbone.Interface(**ports), endianness="big")
        reader.add_csr()
        self.input = ResetInserter()(reader)
        self.result = WishboneDMAWriter(wishbone.Interface(**ports), endianness="big")
        # By default, a DMA that is not enabled would throw results away.
        self.result.add_ctrl(ready_on_idle=0)
        self.result.add_csr()
        self.widen = ResetInserter()(stream.Converter(width, bits))
        self.narrow = ResetInserter()(stream.Converter(bits, width))
        self.ev = EventManager()
        self.ev.engine = EventSourceLevel(description="The engine's interrupt.")
        self.ev.result = EventSourceLevel(description="All results are in memory.")
        self.ev.finalize()
        self.ack = Signal()
        self.comb += [
            # Some processors, VexRiscv among them, and bridges of LiteX wait for `ack` alone.
            self.registers.ack.eq(self.ack | self.registers.err),
            self.input.reset.eq(~self.input.enable),
            self.widen.reset.eq(~self.input.enable),
            self.narrow.reset.eq(~self.result.enable),
            self.input.source.connect(self.widen.sink),
            self.narrow.source.connect(self.result.sink),
            self.ev.result.trigger.eq(self.result.done),
        ]
        parameters = {f"p_{name}": str(path.parent / file) for name, file in _MEMORY.findall(text)}
        self.specials += Instance("secateur", **parameters, **self._registers(), **self._streams())
        platform.add_source(str(path))

    def _registers(self) -> dict:
        """Clock, registers and interrupt of the engine."""
        bus = self.registers
        return {
            "i_clk": ClockSignal(),
            "i_rst": ResetSignal(),
            "i_wb_cyc": bus.cyc,
            "i_wb_stb": bus.stb,
            "i_wb_we": bus.we,
            "i_wb_adr": Cat(C(0, 2), bus.adr[:6]),
            "i_wb_dat_w": bus.dat_w,
            "i_wb_sel": bus.sel,
            "o_wb_dat_r": bus.dat_r,
            "o_wb_ack": self.ack,
            "o_wb_err": bus.err,
            "o_irq": self.ev.engine.trigger,
        }

    def _streams(self) -> dict:
        """The tensors; lengths say where they end."""
        return {
            "i_s_axis_tdata": self.widen.source.data,
            "i_s_axis_tvalid": self.widen.source.valid,
            "o_s_axis_tready": self.widen.source.ready,
            "i_s_axis_tlast": C(0, 1),
            "o_m_axis_tdata": self.narrow.sink.data,
            "o_m_axis_tvalid": self.narrow.sink.valid,
            "i_m_axis_tready": self.narrow.sink.ready,
            "o_m_axis_tlast": Signal(),
        }


def add_secateur(soc, verilog: str | Path, *, origin: int | None = None) -> Secateur:
    """Make an engine the part ``secateur`` of a SoC: registers, DMAs and interrupt.

    Parameters
    ----------
    soc : a LiteX SoC
    verilog : see ``Secateur``
    origin : address of the registers; None: LiteX chooses one where the processor does not cache
    """
    bus = getattr(soc, "dma_bus", soc.bus)
    engine = Secateur(
        soc.platform, verilog, data_width=bus.data_width, address_width=bus.address_width
    )
    soc.add_module("secateur", engine)
    region = SoCRegion(origin=origin, size=REGION, cached=False)
    soc.bus.add_slave("secateur", engine.registers, region)
    bus.add_master("secateur_input", engine.input.bus)
    bus.add_master("secateur_result", engine.result.bus)
    if soc.irq.enabled:
        soc.irq.add("secateur", use_loc_if_exists=True)
    return engine

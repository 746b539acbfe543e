"""The engine behind a UART: a board adds pins and a clock."""

from __future__ import annotations

from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.engine import Engine
from secateur.hw.flash import Flash
from secateur.hw.link.link import Link
from secateur.hw.memory.flash_port import FlashPort
from secateur.hw.memory.flash_reader import FLASH_PORTS, FlashReader
from secateur.hw.memory.sdram import SDRAM_PORTS
from secateur.hw.memory.sdram_source import SdramSource
from secateur.hw.register_slice import Stage
from secateur.hw.sdram import Sdram
from secateur.hw.soc.soc import add_registers, check_no_ring
from secateur.hw.spec import Status


class UartEngine(wiring.Component):
    """An ``Engine`` with its registers (``docs/registers.md``) behind the link (``link.md``).

    Tensors pass through the registers INPUT and RESULT; MODE.REGISTERS must be set for that.

    Parameters
    ----------
    geometry, init, family, bels : of the engine
    divisor : cycles of a bit on the line, ``uart.divisor_for(clock_hz, baud)``
    flash : fills the ring, if the engine has one
    sdram : the image of the flash is copied to it, and the ring is filled from there

    Members
    -------
    rx : In(1)  the line from the host, high at rest; asynchronous
    tx : Out(1)  the line to the host, high at rest
    running : Out(1)  an inference runs; for a LED
    error : Out(1)  the engine has stopped with an error; for a LED
    cs_n, sck, drive, value, level : lines of the flash, see FlashReader
    sdram_command, sdram_bank, sdram_address, sdram_mask, sdram_drive, sdram_value, sdram_level :
        lines of the SDRAM, see SdramController
    """

    def __init__(
        self,
        geometry: spec.Geometry,
        *,
        divisor: int,
        init=None,
        family="generic",
        bels=None,
        flash: Flash | None = None,
        sdram: Sdram | None = None,
    ):
        if sdram is not None and flash is None:
            raise ValueError(f"sdram must be None without a flash, not {sdram!r}")
        if flash is None:
            check_no_ring(geometry, "uart")
        elif not geometry.ring:
            raise ValueError(f"flash must be None without a ring, not {flash!r}")
        self.flash, self.sdram = flash, sdram
        self.engine = Engine(geometry, init=init, family=family, bels=bels)
        self.link = Link(divisor=divisor, family=family)
        lights = {"running": Out(1), "error": Out(1)}
        lines = dict(FLASH_PORTS) if flash is not None else {}
        if sdram is not None:
            lines |= {f"sdram_{name}": port for name, port in SDRAM_PORTS.items()}
        super().__init__({"rx": In(1), "tx": Out(1, init=1), **lights, **lines})

    def elaborate(self, platform) -> Module:
        m = Module()
        engine, link = self.engine, self.link
        staged = not engine.compact
        registers, outlet = add_registers(m, engine, staged=staged, flash=self.flash)
        m.submodules.link = link
        if engine.compact:
            wiring.connect(m, registers.word, engine.input)
            wiring.connect(m, link.request, registers.request)
            wiring.connect(m, registers.response, link.response)
        else:
            for name, source, sink in (
                ("request", link.request, registers.request),
                ("response", registers.response, link.response),
            ):
                m.submodules[f"{name}_stage"] = stage = Stage(source.payload.shape())
                wiring.connect(m, source, stage.input)
                wiring.connect(m, stage.output, sink)
        m.d.comb += [
            outlet.by_register.eq(1),
            outlet.ready.eq(1),
            link.rx.eq(self.rx),
            self.tx.eq(link.tx),
            self.running.eq(engine.status.state == Status.RUNNING),
            self.error.eq(engine.status.state == Status.ERROR),
        ]
        if self.flash is not None:
            self._connect_flash(m, registers)
        return m

    def _connect_flash(self, m: Module, registers) -> None:
        """The image from flash; a reset begins with its first byte, a restart does not."""
        engine = self.engine
        block = engine.family == "ice40"
        reader = FlashReader(geometry=engine.geometry, flash=self.flash, block=block)
        resets = Signal()
        with m.If(registers.control.reset):
            m.d.sync += resets.eq(1)
        with m.Elif(~registers.quiet):
            m.d.sync += resets.eq(0)
        hold = registers.flash_hold if self.flash.slots is not None else 0
        m.submodules.reader = ResetInserter(resets | hold)(reader)
        if self.sdram is None:
            wiring.connect(m, reader.image, engine.image)
        else:
            source = SdramSource(geometry=engine.geometry, sdram=self.sdram)
            m.submodules.source = ResetInserter(resets | hold)(source)
            wiring.connect(m, reader.image, source.input)
            wiring.connect(m, source.image, engine.image)
            self._connect_lines(m, source, SDRAM_PORTS, "sdram_")
        self._connect_lines(m, reader, FLASH_PORTS)
        if self.flash.slots is not None:
            self._connect_host(m, registers)

    def _connect_lines(self, m: Module, source, lines: dict, prefix: str = "") -> None:
        """Lines of a source, which are ports of its own."""
        for name, port in lines.items():
            own, inner = getattr(self, prefix + name), getattr(source, name)
            m.d.comb += inner.eq(own) if port.flow is In else own.eq(inner)

    def _connect_host(self, m: Module, registers) -> None:
        """The lines of the flash are the host's while it holds them."""
        m.submodules.port = port = FlashPort()
        m.d.comb += [
            port.select.eq(registers.flash_select),
            port.send.eq(registers.flash_send),
            port.byte.eq(registers.flash_byte),
            port.take.eq(registers.flash_take),
            registers.flash_busy.eq(port.busy),
            registers.flash_word.eq(port.word),
            port.level.eq(self.level),
        ]
        with m.If(registers.flash_hold):
            m.d.comb += [
                getattr(self, name).eq(getattr(port, name))
                for name in ("cs_n", "sck", "drive", "value")
            ]

"""The engine behind a UART: a board adds pins and a clock."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.engine import Engine
from secateur.hw.link.link import Link
from secateur.hw.soc.register_slice import Stage
from secateur.hw.soc.soc import add_registers, check_no_ring
from secateur.hw.spec import Status


class UartEngine(wiring.Component):
    """An ``Engine`` with its registers (``docs/registers.md``) behind the link (``link.md``).

    Tensors pass through the registers INPUT and RESULT; MODE.REGISTERS must be set for that.

    Parameters
    ----------
    geometry, init, family, bels : of the engine
    divisor : cycles of a bit on the line, ``uart.divisor_for(clock_hz, baud)``

    Members
    -------
    rx : In(1)  the line from the host, high at rest; asynchronous
    tx : Out(1)  the line to the host, high at rest
    running : Out(1)  an inference runs; for a LED
    error : Out(1)  the engine has stopped with an error; for a LED
    """

    def __init__(
        self, geometry: spec.Geometry, *, divisor: int, init=None, family="generic", bels=None
    ):
        check_no_ring(geometry, "uart")
        self.engine = Engine(geometry, init=init, family=family, bels=bels)
        self.link = Link(divisor=divisor, family=family)
        super().__init__({"rx": In(1), "tx": Out(1, init=1), "running": Out(1), "error": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        engine, link = self.engine, self.link
        registers, outlet = add_registers(m, engine, staged=not engine.compact)
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
        return m

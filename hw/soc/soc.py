"""The engine for a system on a chip: registers on AXI4-Lite or Wishbone, tensors on AXI4-Stream."""

from __future__ import annotations

from amaranth.hdl import ClockDomain, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.engine import Engine
from secateur.hw.flash import Flash
from secateur.hw.register_slice import Stage
from secateur.hw.soc.axi_lite import AXI_LITE_PORTS, AxiLite
from secateur.hw.soc.axi_read import AXI_READ_PORTS, AxiReader
from secateur.hw.soc.outlet import Outlet
from secateur.hw.soc.regfile import RegisterFile
from secateur.hw.soc.wishbone import WISHBONE_PORTS, Wishbone

#: Prefix, ports and bridge of a bus by its name.
BUSES = {
    "axi": ("s_axi_", AXI_LITE_PORTS, AxiLite),
    "wishbone": ("wb_", WISHBONE_PORTS, Wishbone),
}


def check_no_ring(geometry: spec.Geometry, what: str) -> None:
    """Refuse an engine whose words come in every inference where no source is.

    Raises
    ------
    ValueError : the geometry has a ring
    """
    if geometry.ring:
        raise ValueError(f"geometry must have no ring with {what}, not {geometry.ring!r} words")


def stream_ports(n: int) -> dict:
    """The two AXI4-Streams."""
    return {
        "s_axis_tdata": In(8 * n),
        "s_axis_tvalid": In(1),
        "s_axis_tready": Out(1),
        "s_axis_tlast": In(1),
        "m_axis_tdata": Out(8 * n),
        "m_axis_tvalid": Out(1),
        "m_axis_tready": In(1),
        "m_axis_tlast": Out(1),
    }


def add_registers(
    m: Module, engine: Engine, *, staged: bool = False, flash: Flash | None = None
) -> tuple[RegisterFile, Outlet]:
    """Make the engine, its registers and its outlet parts of ``m``, connected with each other.

    Parameters
    ----------
    m : module of the top level
    engine : to be connected
    staged : words written to INPUT, and results, pass a ``Stage``, which keeps the paths short and
        halves the rate; the input is then connected as well
    flash : the image is in one, as if in ROM: nothing is to be loaded

    Returns
    -------
    tuple : registers and outlet. Left open are the registers' ``request`` and ``response``, the
        input (``word``), the results (``by_register``, and ``data`` to ``ready`` of the outlet) and
        ``irq``.
    """
    m.submodules.engine = engine
    m.submodules.registers = registers = RegisterFile(
        geometry=engine.geometry, rom=flash is not None or engine.init is not None, flash=flash
    )
    m.submodules.outlet = outlet = Outlet(
        width=8 * engine.geometry.n, count_bits=len(registers.result_beats)
    )
    wiring.connect(m, registers.control, engine.control)
    wiring.connect(m, engine.status, registers.status)
    if not engine.geometry.ring:
        wiring.connect(m, registers.image, engine.image)
    if staged:
        for name, source, sink in (
            ("input", registers.word, engine.input),
            ("result", engine.result, outlet.result),
        ):
            m.submodules[f"{name}_stage"] = stage = Stage(8 * engine.geometry.n)
            wiring.connect(m, source, stage.input)
            wiring.connect(m, stage.output, sink)
            m.d.comb += stage.clear.eq(registers.quiet)
    else:
        wiring.connect(m, engine.result, outlet.result)
    wiring.connect(m, outlet.beat, registers.beat)
    m.d.comb += [
        outlet.quiet.eq(registers.quiet),
        outlet.beats.eq(registers.result_beats),
        outlet.begin.eq(registers.new_beats),
        registers.stalled.eq(outlet.valid),
    ]
    return registers, outlet


class Soc(wiring.Component):
    """An ``Engine`` with the registers of ``docs/registers.md``, as ``soc.md`` describes it.

    Parameters
    ----------
    geometry, init, family, bels : of the engine
    bus : "axi" (clock ``aclk``, reset ``aresetn``, low) or "wishbone" (``clk`` and ``rst``)

    Members
    -------
    s_axi_* or wb_* : the registers
    s_axis_* : In(AXI4-Stream)  the input tensor; ``tlast`` is ignored
    m_axi_* : Out(AXI4, reads only)  the image, see AxiReader; with a ring
    m_axis_* : Out(AXI4-Stream)  results; ``tlast`` comes with the last beat of an inference if
        RESULT_BEATS is set
    irq : Out(1)  level
    """

    def __init__(
        self, geometry: spec.Geometry, *, bus: str, init=None, family="generic", bels=None
    ):
        if bus not in BUSES:
            raise ValueError(f"bus must be {' or '.join(BUSES)}, not {bus!r}")
        if bus != "axi":
            check_no_ring(geometry, bus)
        self.engine = Engine(geometry, init=init, family=family, bels=bels)
        self.bus = bus
        reads = {f"m_axi_{name}": port for name, port in AXI_READ_PORTS.items()}
        prefix, ports, _ = BUSES[bus]
        clocks = {"aclk": In(1), "aresetn": In(1)} if bus == "axi" else {}
        super().__init__(
            {
                **clocks,
                **{prefix + name: port for name, port in ports.items()},
                **stream_ports(geometry.n),
                **(reads if geometry.ring else {}),
                "irq": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        engine = self.engine
        registers, outlet = add_registers(m, engine)
        if self.bus == "axi":
            m.domains.sync = clock = ClockDomain()
            m.d.comb += [clock.clk.eq(self.aclk), clock.rst.eq(~self.aresetn)]
        prefix, ports, bridge_of = BUSES[self.bus]
        m.submodules.bridge = bridge = bridge_of()
        for name, port in ports.items():
            own, inner = getattr(self, prefix + name), getattr(bridge, name)
            m.d.comb += inner.eq(own) if port.flow is In else own.eq(inner)
        wiring.connect(m, bridge.request, registers.request)
        wiring.connect(m, registers.response, bridge.response)

        if engine.geometry.ring:
            self._connect_source(m, registers)
        by_register = registers.by_register
        m.d.comb += [
            engine.input.valid.eq(Mux(by_register, registers.word.valid, self.s_axis_tvalid)),
            engine.input.payload.eq(Mux(by_register, registers.word.payload, self.s_axis_tdata)),
            registers.word.ready.eq(engine.input.ready & by_register),
            self.s_axis_tready.eq(engine.input.ready & ~by_register),
            outlet.by_register.eq(by_register),
            outlet.ready.eq(self.m_axis_tready),
            self.m_axis_tdata.eq(outlet.data),
            self.m_axis_tvalid.eq(outlet.valid),
            self.m_axis_tlast.eq(outlet.last),
            self.irq.eq(registers.irq),
        ]
        return m

    def _connect_source(self, m: Module, registers: RegisterFile) -> None:
        """The image from memory; a reset begins with its first byte, a restart does not."""
        m.submodules.reader = reader = AxiReader()
        resets = Signal()
        with m.If(registers.control.reset):
            m.d.sync += resets.eq(1)
        with m.Elif(~registers.quiet):
            m.d.sync += resets.eq(0)
        wiring.connect(m, reader.image, self.engine.image)
        m.d.comb += [
            reader.enable.eq((registers.source_bytes != 0) & ~resets),
            reader.base.eq(registers.source_base),
            reader.size.eq(registers.source_bytes),
            self.engine.image_failed.eq(reader.failed),
        ]
        for name, port in AXI_READ_PORTS.items():
            own, inner = getattr(self, f"m_axi_{name}"), getattr(reader, name)
            m.d.comb += inner.eq(own) if port.flow is In else own.eq(inner)

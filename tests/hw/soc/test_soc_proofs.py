"""Proofs of the handshakes of the buses, whatever master and engine do, from reset on.

The bridges are proven against naive models; a register file that answers at any time stands behind
them. Each proof is shown to be able to fail: the same top with a fault in its model must not pass.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from amaranth.hdl import Assert, Assume, Cat, Elaboratable, Module, Mux, Signal

from secateur.hw.soc.axi_lite import AXI_LITE_PORTS, SLVERR, AxiLite
from secateur.hw.soc.outlet import Outlet
from secateur.hw.soc.wishbone import Wishbone
from tests.hw.proofs import prove

pytestmark = pytest.mark.long

#: Cycles of an access if neither side waits: taken, begun, requested, answered.
EAGER_CYCLES = 4


def before(m: Module, value, name: str):
    """The value of a cycle ago, 0 in the first."""
    past = Signal(len(value), name=f"{name}_before")
    m.d.sync += past.eq(value)
    return past


def stays(m: Module, valid, ready, payload, name: str) -> None:
    """What waits is neither withdrawn nor changed."""
    waited = Signal(name=f"{name}_waited")
    m.d.sync += waited.eq(valid & ~ready)
    past = before(m, payload, name)
    with m.If(waited):
        m.d.comb += [Assert(valid), Assert(payload == past)]


def latest(m: Module, taken, value, name: str):
    """What was taken last."""
    register = Signal(len(value), name=f"{name}_latest")
    with m.If(taken):
        m.d.sync += register.eq(value)
    return register


def owed(m: Module, come, gone, name: str):
    """How many have come and not gone."""
    count = Signal(3, name=f"{name}_owed")
    m.d.sync += count.eq(count + come - gone)
    m.d.comb += [Assert(count <= 2), Assert(~gone | (count != 0) | come)]
    return count


class Behind:
    """A register file that takes requests and answers them whenever it likes, one at a time."""

    def __init__(self, bridge, eager: bool) -> None:
        self.bridge, self.eager = bridge, eager
        self.inputs = [bridge.request.ready, bridge.response.payload.as_value()]
        self.inputs.append(bridge.response.valid)

    def elaborate(self, m: Module):
        """Returns strobes: requested, answered."""
        request, response = self.bridge.request, self.bridge.response
        busy = Signal()
        requested, answered = Signal(), Signal()
        m.d.comb += [
            requested.eq(request.valid & request.ready),
            answered.eq(response.valid & response.ready),
            Assume(~response.valid | busy),
            Assume(~request.ready | ~busy),
            Assert(response.ready),
        ]
        m.d.sync += busy.eq((busy | requested) & ~answered)
        if self.eager:
            m.d.comb += [Assume(busy | request.ready), Assume(~busy | response.valid)]
        stays(m, request.valid, request.ready, request.payload.as_value(), "request")
        return requested, answered, busy


class AxiLiteTop(Elaboratable):
    """The AXI4-Lite bridge between any master, even one that breaks the rules, and ``Behind``."""

    def __init__(self, fault: bool, eager: bool) -> None:
        self.fault, self.eager = fault, eager
        self.bridge = AxiLite()
        self.behind = Behind(self.bridge, eager)
        ports = [name for name in AXI_LITE_PORTS if AXI_LITE_PORTS[name].flow.name == "In"]
        self.inputs = [getattr(self.bridge, name) for name in ports] + self.behind.inputs

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.bridge = bus = self.bridge
        requested, answered, busy = self.behind.elaborate(m)
        request, response = bus.request.payload, bus.response.payload
        stays(m, bus.bvalid, bus.bready, bus.bresp, "b")
        stays(m, bus.rvalid, bus.rready, Cat(bus.rdata, bus.rresp), "r")

        aw, w, ar = bus.awvalid & bus.awready, bus.wvalid & bus.wready, bus.arvalid & bus.arready
        address = latest(m, aw, bus.awaddr, "aw")
        written = latest(m, w, Cat(bus.wdata, bus.wstrb), "w")
        wanted = latest(m, ar, bus.araddr, "ar")
        counts = {
            "aw": owed(m, aw, requested & request.write, "aw"),
            "w": owed(m, w, requested & request.write, "w"),
            "ar": owed(m, ar, requested & ~request.write, "ar"),
        }
        with m.If(bus.request.valid & request.write):
            m.d.comb += [
                Assert((counts["aw"] != 0) & (counts["w"] != 0)),
                Assert(request.address == address[2:] ^ self.fault),
                Assert(Cat(request.data, request.strobe) == written),
            ]
        with m.If(bus.request.valid & ~request.write):
            m.d.comb += [Assert(counts["ar"] != 0), Assert(request.address == wanted[2:])]

        # A response for each request, with what was answered.
        is_write = latest(m, requested, request.write, "write")
        result = latest(m, answered & ~is_write, response.as_value(), "result")
        refused = latest(m, answered & is_write, response.error, "refused")
        b, r = bus.bvalid & bus.bready, bus.rvalid & bus.rready
        b_owed = owed(m, requested & request.write, b, "b")
        r_owed = owed(m, requested & ~request.write, r, "r")
        m.d.comb += [
            Assert(b_owed == (bus.bvalid | (busy & is_write))),
            Assert(r_owed == (bus.rvalid | (busy & ~is_write))),
        ]
        with m.If(bus.bvalid):
            m.d.comb += Assert(bus.bresp == Mux(refused, SLVERR, 0))
        with m.If(bus.rvalid):
            data = Cat(bus.rdata, bus.rresp == SLVERR)
            m.d.comb += [Assert(data == result), Assert(~bus.rresp[0])]
        if self.eager:  # if nobody waits, a write alone and a read alone end in time
            m.d.comb += [Assume(bus.bready), Assume(bus.rready)]
            for name, waits, ends in (
                ("write", (counts["aw"] != 0) & (counts["w"] != 0), b),
                ("read", counts["ar"] != 0, r),
            ):
                age = Signal(5, name=f"{name}_age")
                with m.If(waits & ~ends):
                    m.d.sync += age.eq(age + 1)
                with m.Else():
                    m.d.sync += age.eq(0)
                # the other kind may go first
                m.d.comb += Assert(age <= (1 if self.fault else 2 * EAGER_CYCLES))
        return m


@pytest.mark.parametrize("fault", [False, True])
def test_axi_lite(fault: bool, tmp_path: Path) -> None:
    """Bounded, 24 cycles: stable responses, one an access, each access as the master made it."""
    top = AxiLiteTop(fault, eager=False)
    passed, log = prove(top, top.inputs, tmp_path, mode="bmc", depth=24)
    assert passed == (not fault), log[-2000:]


@pytest.mark.parametrize("fault", [False, True])
def test_axi_lite_ends_in_time(fault: bool, tmp_path: Path) -> None:
    """Bounded: every run of 24 cycles from reset."""
    top = AxiLiteTop(fault, eager=True)
    passed, log = prove(top, top.inputs, tmp_path, mode="bmc", depth=24)
    assert passed == (not fault), log[-2000:]


class WishboneTop(Elaboratable):
    """The Wishbone bridge between a master that may give up at any time and ``Behind``."""

    def __init__(self, fault: bool, eager: bool) -> None:
        self.fault, self.eager = fault, eager
        self.bridge = bus = Wishbone()
        self.behind = Behind(bus, eager)
        self.inputs = [bus.cyc, bus.stb, bus.we, bus.adr, bus.dat_w, bus.sel, *self.behind.inputs]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.bridge = bus = self.bridge
        requested, answered, _ = self.behind.elaborate(m)
        selected, ends = Signal(), Signal()
        access = Cat(bus.we, bus.adr, bus.dat_w, bus.sel)
        waited = Signal()
        m.d.comb += [selected.eq(bus.cyc & bus.stb), ends.eq(bus.ack | bus.err)]
        m.d.sync += waited.eq(selected & ~ends)
        past = before(m, access, "access")
        with m.If(waited & selected):  # a master may give up, but not change its mind
            m.d.comb += Assume(access == past)
        # Of the access that is under way: it was requested, and answered.
        asked, told = Signal(), Signal()
        with m.If(~selected | ends):
            m.d.sync += [asked.eq(0), told.eq(0)]
        with m.Else():
            fresh = requested & (latest_access(m, bus) == access) & waited
            m.d.sync += [asked.eq(asked | fresh), told.eq(told | (answered & asked))]
        result = latest(m, answered, bus.response.payload.as_value(), "result")
        m.d.comb += [Assert(~ends | selected), Assert(~(bus.ack & bus.err))]
        with m.If(ends):
            m.d.comb += [
                Assert(asked & told),
                Assert(bus.dat_r == result[:32]),
                Assert(bus.err == (result[32] ^ self.fault)),
            ]
        if self.eager:
            age = Signal(5)
            m.d.sync += age.eq(Mux(selected & ~ends, age + 1, 0))
            # an access that was given up may still be under way
            m.d.comb += Assert(age <= (1 if self.fault else 2 * EAGER_CYCLES))
        return m


def latest_access(m: Module, bus: Wishbone):
    """The request as the master's signals would show it."""
    payload = bus.request.payload
    address = Cat(bus.adr[:2], payload.address)
    return Cat(payload.write, address, payload.data, payload.strobe)


@pytest.mark.parametrize("fault", [False, True])
def test_wishbone(fault: bool, tmp_path: Path) -> None:
    """Bounded, 24 cycles: what ends was requested as it is, and ends as it was answered."""
    top = WishboneTop(fault, eager=False)
    passed, log = prove(top, top.inputs, tmp_path, mode="bmc", depth=24)
    assert passed == (not fault), log[-2000:]


@pytest.mark.parametrize("fault", [False, True])
def test_wishbone_ends_in_time(fault: bool, tmp_path: Path) -> None:
    """Bounded: every run of 24 cycles from reset."""
    top = WishboneTop(fault, eager=True)
    passed, log = prove(top, top.inputs, tmp_path, mode="bmc", depth=24)
    assert passed == (not fault), log[-2000:]


class OutletTop(Elaboratable):
    """The outlet beside a box of one beat; the engine withdraws, commands come at any time."""

    WIDTH, COUNT = 4, 3

    def __init__(self, fault: bool) -> None:
        self.fault = fault
        self.outlet = out = Outlet(width=self.WIDTH, count_bits=self.COUNT)
        self.inputs = [
            out.result.valid, out.result.payload, out.quiet, out.by_register, out.beats,
            out.begin, out.ready, out.beat.ready,
        ]  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.outlet = out = self.outlet
        # A change of the beats is a beginning, and comes with or before it.
        unchanged = out.beats == before(m, out.beats, "beats")
        m.d.comb += Assume(unchanged | before(m, out.begin, "begin"))
        stays(m, out.valid, out.ready, Cat(out.data, out.last), "stream")
        comes = out.result.valid & out.result.ready
        box = Signal(self.WIDTH)
        streamed, registered, last = Signal(), Signal(), Signal()
        number = Signal(self.COUNT + 1)  # of the beat that comes, in its inference
        final = number + 1 == out.beats
        with m.If(out.ready):
            m.d.sync += streamed.eq(0)
        with m.If(out.beat.ready | out.quiet):
            m.d.sync += registered.eq(0)
        with m.If(comes):
            m.d.sync += [
                box.eq(out.result.payload),
                streamed.eq(~out.by_register),
                registered.eq(out.by_register),
                last.eq(final),
                number.eq(Mux(final, 0, number + 1)),
            ]
        with m.If(out.quiet | out.begin | (out.beats == 0)):
            m.d.sync += number.eq(0)
        m.d.comb += [
            Assert(~comes | ~streamed | out.ready),
            Assert(~comes | ~registered | out.beat.ready),
            Assert(~(comes & out.quiet)),
            Assert(out.valid == (streamed & (registered if self.fault else 1))),
            Assert(out.beat.valid == (registered & ~out.quiet)),
            Assert(~(streamed & registered)),
            Assert(~(out.valid | out.beat.valid) | (out.data == box)),
        ]
        with m.If(out.valid):
            m.d.comb += Assert(out.last == last)
        return m


@pytest.mark.parametrize("fault", [False, True])
def test_outlet_never_withdraws(fault: bool, tmp_path: Path) -> None:
    """Bounded: every run of 24 cycles from reset, three inferences of 7 beats."""
    top = OutletTop(fault)
    passed, log = prove(top, top.inputs, tmp_path, mode="bmc", depth=24)
    assert passed == (not fault), log[-2000:]

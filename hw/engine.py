"""The top: image in, tensors in, results out."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, ResetInserter, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.compact.serial_array import SerialArray, check_compact
from secateur.hw.compact.serial_drain import SERIAL_RESULTS, SerialDrain
from secateur.hw.core.array import Array
from secateur.hw.core.bank import OffsetGenerator
from secateur.hw.core.drain import Drain
from secateur.hw.front.address import AddressGenerator
from secateur.hw.front.fetch import Fetcher
from secateur.hw.front.issue import RESET_WAY, Issue
from secateur.hw.front.loader import Loader
from secateur.hw.memory.memory import check_family
from secateur.hw.memory.spram import SpramMemory
from secateur.hw.memory.weight_memory import WeightMemory
from secateur.hw.spec import Error, Reg, Status

STATUS = wiring.Signature(
    {
        "state": Out(Status),
        "error": Out(Error),
        "cycles": Out(32),
        "inferences": Out(16),
        "upset": Out(1),
        "scrubs": Out(16),
    }
)
#: More than the array is long, and as many parts as there are.
RESET_CYCLES = 63
#: Cycles after a command until the engine has obeyed it; results before that are old.
SETTLE_CYCLES = RESET_CYCLES + RESET_WAY
CONTROL = wiring.Signature({"reset": Out(1), "restart": Out(1)})


def trace_signature(n: int) -> wiring.Signature:
    """Pixels and input words as they pass the write bus, or leave as results."""
    return wiring.Signature(
        {
            "valid": Out(1),
            "result": Out(1),
            "layer": Out(8),
            "m": Out(16),
            "data": Out(8 * n),
        }
    )


class Engine(wiring.Component):
    """The array with its weight memory, as ``docs/stream.md`` describes it.

    Parameters
    ----------
    geometry : sizes
    init : image without metadata, as a list of stream words: the weight memory is a ROM;
        None: it is a RAM that takes an image from ``image``
    family : one of spec.FAMILIES; "ice40" is iCE40 UltraPlus, always compact and without a ROM
    bels : sites of the multipliers, lane after lane, or None
    compact : few cells instead of a high clock, see ``serial_array``; as many cycles.
        None: for ice40

    Members
    -------
    image : In, stream of the bytes of an image, taken while ``status.state`` is LOADING
    input : In, stream of input words: N bytes, lane 0 in the low bits
    result : Out, stream of pixels of N bytes
    status : Out; ``cycles`` of the last inference, ``inferences`` that have ended modulo 2**16.
        Cycles in which the engine waits for the host are not counted. ``upset``: the weight memory
        has changed since the image was accepted; ``scrubs``: how often it has been read since then,
        from first to last word, modulo 2**16
    control : In, ``reset``: forget everything; load, and check, the image anew. ``restart``: keep
        the image, forget all else: the inference that runs, results on their way, all tensors,
        those that live from one inference to the next among them
    trace : Out, what goes over the write bus and into results; layer 0 is the input
    """

    def __init__(
        self, geometry: spec.Geometry, *, init=None, family="generic", bels=None, compact=None
    ):
        if not isinstance(geometry, spec.Geometry):
            raise ValueError(f"geometry must be a Geometry, not {geometry!r}")
        if init is not None and not geometry.header_words < len(init) <= geometry.weight_words:
            raise ValueError(
                f"init must hold {geometry.header_words + 1} to {geometry.weight_words} words, "
                f"not {len(init)!r}"
            )
        self.geometry, self.init = geometry, init
        self.family, self.bels = check_family(family), bels
        self.compact = family == "ice40" if compact is None else compact
        if self.compact:
            check_compact(geometry)
            if family not in ("generic", "ice40"):
                raise ValueError(f"compact is for generic and ice40, not {family}")
            if bels is not None:
                raise ValueError("bels must be None in a compact engine")
        elif family == "ice40":
            raise ValueError("compact must not be False on ice40")
        if family == "ice40" and init is not None:
            raise ValueError("init must be None on ice40: its weight memory is no ROM")
        n = geometry.n
        super().__init__(
            {
                "image": In(stream.Signature(8)),
                "input": In(stream.Signature(8 * n)),
                "result": Out(stream.Signature(8 * n)),
                "status": Out(STATUS),
                "control": In(CONTROL),
                "trace": Out(trace_signature(n)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        geometry = self.geometry
        m.submodules.memory = memory = self._memory()
        latency, compact = memory.latency, self.compact
        parts = {
            "loader": Loader(
                geometry=geometry, latency=latency, rom=self.init is not None, compact=compact
            ),
            "fetcher": Fetcher(geometry=geometry, latency=latency, compact=compact),
            "issue": Issue(
                geometry=geometry, results=SERIAL_RESULTS if compact else None, compact=compact
            ),
            "address": AddressGenerator(geometry=geometry, output=not compact),
        }
        if compact:
            array = SerialArray(geometry=geometry, family=self.family)
            parts["drain"] = SerialDrain(geometry=geometry, family=self.family)
        else:
            array = Array(geometry=geometry, family=self.family, bels=self.bels)
            parts["offsets"] = OffsetGenerator(p=geometry.p)
            parts["drain"] = Drain(geometry=geometry, family=self.family)
        loader, fetcher, issue = parts["loader"], parts["fetcher"], parts["issue"]
        reset, resets = self._resets(m, len(parts))
        for name, part in parts.items():
            m.submodules[name] = ResetInserter(reset if part is loader else next(resets))(part)
        # The array has no reset: its accumulators are cleared until an image is accepted.
        clear = Signal(init=1)
        m.d.sync += clear.eq(next(resets) | ~loader.accepted)
        m.submodules.array = array
        m.d.comb += array.clear.eq(clear)
        self._connect_memory(m, memory, loader, fetcher)
        self._connect_array(m, array, parts)

        wiring.connect(m, wiring.flipped(self.image), loader.image)
        wiring.connect(m, wiring.flipped(self.input), issue.input)
        wiring.connect(m, parts["drain"].results, wiring.flipped(self.result))
        trace = parts["drain"].trace
        m.d.comb += [getattr(self.trace, name).eq(trace[name]) for name in trace.shape().members]
        m.d.comb += [
            self.status.error.eq(Mux(loader.error != Error.NONE, loader.error, issue.error)),
            self.status.cycles.eq(issue.cycles),
            self.status.inferences.eq(issue.inferences),
            self.status.upset.eq(loader.upset),
            self.status.scrubs.eq(loader.scrubs),
        ]
        with m.If(self.status.error != Error.NONE):
            m.d.comb += self.status.state.eq(Status.ERROR)
        with m.Elif(loader.loading):
            m.d.comb += self.status.state.eq(Status.LOADING)
        with m.Elif(~loader.accepted):
            m.d.comb += self.status.state.eq(Status.CHECKING)
        with m.Elif(issue.running):
            m.d.comb += self.status.state.eq(Status.RUNNING)
        with m.Else():
            m.d.comb += self.status.state.eq(Status.WAITING)
        return m

    def _memory(self):
        width, depth = self.geometry.word_bits, self.geometry.weight_words
        if self.family == "ice40":
            return SpramMemory(width=width, depth=depth)
        return WeightMemory(width=width, depth=depth, init=self.init, family=self.family)

    def _resets(self, m: Module, count: int):
        """Resets from flip-flops of their own, on a way from part to part, one cycle each.

        They are held until words that they overtook have left the datapath, whose registers have
        no resets. Returns that of the loader, for ``reset`` only, and an iterator of the others.
        """
        left = Signal(range(RESET_CYCLES + 1))
        whole = Signal()
        with m.If(self.control.reset | self.control.restart):
            m.d.sync += left.eq(RESET_CYCLES)
            m.d.sync += whole.eq(whole | self.control.reset)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.Else():
            m.d.sync += whole.eq(0)

        def way():
            source = left != 0
            for index in range(count):
                passed_on, reset = Signal(name=f"reset_way{index}"), Signal(name=f"reset{index}")
                m.d.sync += [passed_on.eq(source), reset.eq(passed_on)]
                yield reset
                source = passed_on

        reset = Signal()
        m.d.sync += reset.eq((left != 0) & whole)
        return reset, way()

    @staticmethod
    def _connect_memory(m: Module, memory, loader, fetcher) -> None:
        enable = Signal()
        m.d.sync += enable.eq(loader.accepted)
        m.d.comb += [
            memory.write_en.eq(loader.write_en),
            memory.write_addr.eq(loader.write_addr),
            memory.write_data.eq(loader.write_data),
            memory.read_addr.eq(Mux(fetcher.mem_read, fetcher.mem_addr, loader.read_addr)),
            loader.busy.eq(fetcher.mem_read),
            loader.read_data.eq(memory.read_data),
            fetcher.mem_data.eq(memory.read_data),
            fetcher.enable.eq(enable),
            fetcher.last.eq(loader.last),
        ]

    @staticmethod
    def _connect_array(m: Module, array: Array, parts: dict) -> None:
        issue, address, drain = parts["issue"], parts["address"], parts["drain"]
        registers = issue.registers
        wiring.connect(m, parts["fetcher"].output, issue.fetched)
        for part in (address, drain):
            m.d.comb += [part.registers.eq(registers), part.init.eq(issue.init)]
        for part in (address, drain, array):
            m.d.comb += [part.valid.eq(issue.valid), part.word.eq(issue.word)]
        m.d.comb += [
            issue.enable.eq(parts["fetcher"].enable),
            issue.limit.eq(parts["loader"].limit),
            issue.released.eq(drain.released),
            drain.layer.eq(issue.layer),
            drain.host.eq(issue.host),
            drain.entry.eq(issue.entry),
            array.address.eq(address.address),
            array.access.eq(address.access),
            array.write.eq(drain.write),
        ]
        if "offsets" not in parts:
            m.d.comb += [array.registers.eq(registers), drain.sum.eq(array.sum)]
            return
        offsets = parts["offsets"]
        m.d.comb += [
            drain.sums.eq(array.sums),
            array.lanes.eq(registers[Reg.LANES]),
            array.window.eq(registers[Reg.OUT_W]),
            array.size.eq(registers[Reg.OUT_S]),
            array.shift.eq(offsets.shift),
            array.offset.eq(offsets.offset),
            offsets.start.eq(issue.offsets),
            offsets.columns.eq(registers[Reg.OFF_PC]),
            offsets.column_step.eq(registers[Reg.OFF_DC]),
            offsets.row_step.eq(registers[Reg.OFF_DR]),
        ]

"""The top: image in, tensors in, results out."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, ResetInserter, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.compact.serial_array import check_compact
from secateur.hw.compact.serial_datapath import SerialDatapath
from secateur.hw.core.datapath import Datapath, ParallelDatapath
from secateur.hw.front.address import AddressGenerator
from secateur.hw.front.fetch import Fetcher
from secateur.hw.front.issue import Issue
from secateur.hw.front.loader import Loader
from secateur.hw.front.ring.loader import RingLoader
from secateur.hw.front.writes import RESET_WAY
from secateur.hw.memory.memory import check_family
from secateur.hw.memory.spram import SpramMemory
from secateur.hw.memory.weight_memory import WeightMemory
from secateur.hw.pipeline import ResetWay, delay
from secateur.hw.ring import memory_words
from secateur.hw.spec import Error, Reg, Status

#: ``state`` and ``error``; ``cycles`` of the last inference, without those in which the engine
#: waited for the host, and without ``memory_wait``, those in which it waited for words of its ring;
#: ``inferences`` that have ended, modulo 2**16; ``upset``: the weight memory, or what came from a
#: source, has not been the accepted image since; ``scrubs``: how often it has been read since then,
#: from its first to its last word, modulo 2**16; ``image_crc``: the CRC-32 of the image, once
#: accepted.
STATUS = wiring.Signature(
    {
        "state": Out(Status),
        "error": Out(Error),
        "cycles": Out(32),
        "memory_wait": Out(32),
        "inferences": Out(16),
        "upset": Out(1),
        "scrubs": Out(16),
        "image_crc": Out(32),
    }
)
#: ``reset``: forget everything, then load and check the image again. ``restart``: keep the image
#: and forget everything else: the inference that runs, results on their way, and all tensors, also
#: those that live from one inference to the next.
CONTROL = wiring.Signature({"reset": Out(1), "restart": Out(1)})

#: More than the array is long, and as many parts as there are.
RESET_CYCLES = 63
#: Cycles after a command until the engine has executed it; results before that are old.
SETTLE_CYCLES = RESET_CYCLES + RESET_WAY


def trace_signature(n: int) -> wiring.Signature:
    """Pixels and input words as they pass the write bus, or leave as results.

    Members
    -------
    valid : Out(1)  there is one
    input : Out(1)  it is an input word, of this inference or of the next
    result : Out(1)  it leaves as a result
    layer : Out(8)  of a pixel; layers since the input
    m : Out(16)  its word in the map
    data : Out(8 * n)  its bytes
    """
    return wiring.Signature(
        {
            "valid": Out(1),
            "input": Out(1),
            "result": Out(1),
            "layer": Out(8),
            "m": Out(16),
            "data": Out(8 * n),
        }
    )


class Engine(wiring.Component):
    """The array with its weight memory, as ``stream.md`` describes it.

    Parameters
    ----------
    geometry : sizes
    init : image without metadata, as a list of stream words: the weight memory is a ROM;
        None: it is a RAM that takes an image from ``image``
    family : one of spec.FAMILIES; "ice40" is iCE40 UltraPlus, always compact and without a ROM
    bels : sites of the hard multipliers, lane after lane, or None for any; multipliers past the end
        of the list are from logic, with the same cycles. None in place of a list: all are hard
    compact : few cells instead of a high clock, in as many cycles; None: for ice40

    Members
    -------
    image : In(stream)  bytes of an image, taken while ``status.state`` is LOADING; with a ring
        again and again, see RingLoader
    input : In(stream)  input words: N bytes, lane 0 in the low bits
    result : Out(stream)  pixels of N bytes
    status : Out(STATUS)  what the engine does, see there
    control : In(CONTROL)  commands, see there
    trace : Out(trace_signature(n))  all pixels and input words
    image_failed : In(1)  the source has failed: stop with an error; with a ring

    Raises
    ------
    ValueError : a parameter is out of range, or two do not go together
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
        if init is not None and geometry.ring:
            raise ValueError("init must be None with a ring: its words come from outside")
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
            raise ValueError("init must be None on ice40: its weight memory is not a ROM")
        n = geometry.n
        super().__init__(
            {
                "image": In(stream.Signature(8)),
                "input": In(stream.Signature(8 * n)),
                "result": Out(stream.Signature(8 * n)),
                "status": Out(STATUS),
                "control": In(CONTROL),
                "trace": Out(trace_signature(n)),
                **({"image_failed": In(1)} if geometry.ring else {}),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        geometry, memory, datapath = self.geometry, self._memory(), self._datapath()
        front = datapath.front
        loader = self._loader(memory.latency, front.scrub)
        fetcher = Fetcher(
            geometry=geometry,
            latency=memory.latency,
            rotate=2 if geometry.ring else front.rotate,  # one count of waits for all engines
            block=front.block_queue,
        )
        issue = Issue(geometry=geometry, results=datapath.results, latency=front.issue)
        address = AddressGenerator(geometry=geometry, latency=front.address)

        # The blocks, in the order in which data flow.
        whole, way = self._resets(m)
        if geometry.ring:
            self._connect_ring(m, loader, fetcher, issue, way.end)
            m.d.comb += loader.failed.eq(self.image_failed)
        # The loader writes an image into the weight memory.
        m.submodules.loader = ResetInserter(whole)(loader)
        m.submodules.memory = memory
        wiring.connect(m, wiring.flipped(self.image), loader.image)
        # The fetcher reads its words.
        m.submodules.fetcher = ResetInserter(way.next())(fetcher)
        self._connect_memory(m, memory, loader, fetcher)
        if geometry.s > 1:
            self._connect_lanes(m, memory, fetcher, issue, address, datapath)
        # The issue stage issues one per cycle, and takes the input tensor.
        m.submodules.issue = ResetInserter(way.next())(issue)
        wiring.connect(m, fetcher.output, issue.fetched)
        wiring.connect(m, wiring.flipped(self.input), issue.input)
        # The address generator gives each word an address in the banks.
        m.submodules.address = ResetInserter(way.next())(address)
        wiring.connect(m, issue.issued, address.issued, datapath.issued)
        # The datapath multiplies, adds, requantises, looks up, and writes to its banks.
        m.submodules.datapath = datapath
        m.d.comb += [
            issue.enable.eq(fetcher.enable),
            issue.limit.eq(loader.limit),
            issue.released.eq(datapath.output.released),
            issue.soon.eq(datapath.output.soon),
            datapath.address.eq(address.address),
            datapath.access.eq(address.access),
            datapath.accepted.eq(loader.accepted),
            datapath.reset.eq(way.end),
        ]
        # Pixels of layers with results leave.
        wiring.connect(m, datapath.output.results, wiring.flipped(self.result))
        trace = datapath.output.trace
        m.d.comb += [getattr(self.trace, name).eq(trace[name]) for name in trace.shape().members]
        self._report(m, loader, issue)
        return m

    def _loader(self, latency: int, scrub: bool) -> Loader | RingLoader:
        if self.geometry.ring:
            return RingLoader(geometry=self.geometry, scrub=scrub)
        rom = self.init is not None
        return Loader(geometry=self.geometry, latency=latency, rom=rom, scrub=scrub)

    def _memory(self):
        width, depth = self.geometry.word_bits, memory_words(self.geometry)
        if self.family == "ice40" and not self.geometry.ring:
            return SpramMemory(width=width, depth=depth)
        return WeightMemory(
            width=width, depth=depth, s=self.geometry.s, init=self.init, family=self.family
        )

    def _datapath(self) -> Datapath:
        if self.compact:
            return SerialDatapath(geometry=self.geometry, family=self.family)
        return ParallelDatapath(geometry=self.geometry, family=self.family, bels=self.bels)

    def _resets(self, m: Module) -> tuple[Signal, ResetWay]:
        """Resets of the parts: the loader's, for ``reset`` only, and one for all others.

        Most registers of the datapath have no reset. Resets are therefore held until words that
        were in it have left.
        """
        left = Signal(range(RESET_CYCLES + 1))
        held = Signal()
        whole = Signal()
        with m.If(self.control.reset | self.control.restart):
            m.d.sync += [held.eq(1), left.eq(RESET_CYCLES)]
            m.d.sync += whole.eq(whole | self.control.reset)
        with m.Elif(held):
            m.d.sync += [held.eq(left != 1), left.eq(left - 1)]
        with m.Else():
            m.d.sync += whole.eq(0)
        reset = Signal()
        m.d.sync += reset.eq(held & whole)
        return reset, ResetWay(m, held)

    def _connect_memory(self, m: Module, memory, loader, fetcher: Fetcher) -> None:
        """The loader writes; fetcher and, without a ring, loader read, the fetcher first."""
        enable = Signal()
        m.d.sync += enable.eq(loader.accepted)
        m.d.comb += [
            memory.write_en.eq(loader.write_en),
            memory.write_addr.eq(loader.write_addr),
            memory.write_data.eq(loader.write_data),
            memory.read_addr.eq(fetcher.mem_addr),
            fetcher.mem_data.eq(memory.read_data),
            fetcher.enable.eq(enable),
            fetcher.last.eq(loader.last),
        ]
        if not self.geometry.ring:
            aside = fetcher.aside if self.geometry.s > 1 else 0
            m.d.comb += [
                memory.read_addr.eq(Mux(fetcher.mem_read, fetcher.mem_addr, loader.read_addr)),
                loader.busy.eq(fetcher.mem_read | aside),
                loader.read_data.eq(memory.read_data),
            ]

    @staticmethod
    def _connect_ring(m: Module, loader: RingLoader, fetcher: Fetcher, issue: Issue, flush) -> None:
        """The loader fills what the fetcher has freed."""
        m.d.comb += [
            loader.flush.eq(flush),
            loader.free.eq(fetcher.free),
            fetcher.first.eq(loader.first),
            fetcher.filled.eq(loader.filled),
            fetcher.full.eq(loader.full),
            issue.more.eq(fetcher.more),
            issue.stuck.eq(fetcher.stuck),
        ]

    def _connect_lanes(
        self,
        m: Module,
        memory: WeightMemory,
        fetcher: Fetcher,
        issue: Issue,
        address: AddressGenerator,
        datapath: Datapath,
    ) -> None:
        """Filter lanes read their words themselves, when the word of lane 0 has issued."""
        row = Signal(len(fetcher.row), reset_less=True)
        m.d.sync += row.eq(fetcher.row)
        filters = issue.issued.registers[Reg.FLAGS2][spec.FLAG2_FILTERS]
        last = issue.issued.word.layer_last & filters
        taken = delay(m, last, self.geometry.s, "taken", reset_less=False)
        m.d.comb += [
            memory.aside.eq(fetcher.aside),
            memory.row.eq(row),
            fetcher.taken.eq(taken),
            datapath.side.eq(memory.side),
            datapath.origins.eq(address.origins),
            address.own_address.eq(datapath.own_address),
        ]

    def _report(self, m: Module, loader: Loader | RingLoader, issue: Issue) -> None:
        """Drive ``status``."""
        status = self.status
        m.d.comb += [
            status.error.eq(Mux(loader.error != Error.NONE, loader.error, issue.error)),
            status.cycles.eq(issue.cycles),
            status.memory_wait.eq(issue.memory_wait),
            status.inferences.eq(issue.inferences),
            status.upset.eq(loader.upset),
            status.scrubs.eq(loader.scrubs),
            status.image_crc.eq(loader.image_crc),
        ]
        with m.If(status.error != Error.NONE):
            m.d.comb += status.state.eq(Status.ERROR)
        with m.Elif(loader.loading):
            m.d.comb += status.state.eq(Status.LOADING)
        with m.Elif(~loader.accepted):
            m.d.comb += status.state.eq(Status.CHECKING)
        with m.Elif(issue.running):
            m.d.comb += status.state.eq(Status.RUNNING)
        with m.Else():
            m.d.comb += status.state.eq(Status.WAITING)

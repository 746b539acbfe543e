"""The register file: ``registers.py`` in hardware."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.engine import CONTROL, SETTLE_CYCLES, STATUS
from secateur.hw.flash import Flash
from secateur.hw.soc import registers
from secateur.hw.soc.bridge import REQUEST, RESPONSE
from secateur.hw.soc.registers import field
from secateur.hw.spec import MAGIC, Status


class Phase(enum.Enum):
    """States of the register file."""

    IDLE = 0
    EXECUTE = 1
    SETTLE = 2
    RESPOND = 3
    TRANSFER = 4


class RegisterFile(wiring.Component):
    """Answers requests, one at a time, and passes written data on.

    Parameters
    ----------
    geometry : of the engine
    rom : the image is in ROM, and IMAGE ignores writes; or beside the engine
    flash : it is in flash

    Members
    -------
    request : In(stream of REQUEST)  accesses
    response : Out(stream of RESPONSE)  one for each request
    status : In(STATUS)  of the engine
    control : Out(CONTROL)  to the engine
    image : Out(stream)  bytes to the engine; without a ring
    source_base, source_bytes : Out(32)  registers of these names; with a ring
    word : Out(stream)  input words of N bytes that were written to INPUT
    beat : In(stream)  results of N bytes for RESULT
    stalled : In(1)  a result waits on the stream
    by_register : Out(1)  MODE.REGISTERS
    result_beats : Out  RESULT_BEATS
    new_beats : Out(1)  RESULT_BEATS is written
    quiet : Out(1)  the engine executes a command: results are old
    flash_hold : Out(1)  the lines of the flash are the host's; with a flash of two images
    flash_select, flash_send, flash_byte, flash_take : Out  to a FlashPort
    flash_busy, flash_word : In  from it
    irq : Out(1)  level
    """

    def __init__(self, *, geometry: spec.Geometry, rom: bool = False, flash: Flash | None = None):
        self.geometry, self.rom, self.flash = geometry, rom, flash
        self.slots = None if flash is None else flash.slots
        #: Registers of a source that has an address.
        self.of_source = ("SOURCE_BASE", "SOURCE_BYTES") if geometry.ring and flash is None else ()
        n = geometry.n
        to_flash = {
            "flash_hold": Out(1),
            "flash_select": Out(1),
            "flash_send": Out(1),
            "flash_byte": Out(8),
            "flash_take": Out(1),
            "flash_busy": In(1),
            "flash_word": In(32),
        }
        super().__init__(
            {
                "request": In(stream.Signature(REQUEST)),
                "response": Out(stream.Signature(RESPONSE)),
                "status": In(STATUS),
                "control": Out(CONTROL),
                "image": Out(stream.Signature(8)),
                "word": Out(stream.Signature(8 * n)),
                "beat": In(stream.Signature(8 * n)),
                "stalled": In(1),
                "by_register": Out(1),
                "result_beats": Out(field("RESULT_BEATS", "COUNT").width),
                "new_beats": Out(1),
                "quiet": Out(1),
                "irq": Out(1),
                **{name.lower(): Out(32) for name in self.of_source},
                **(to_flash if self.slots is not None else {}),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        phase = Signal(Phase)
        request = Signal(REQUEST, reset_less=True)
        response = Signal(RESPONSE, reset_less=True)
        settle = Signal(range(SETTLE_CYCLES + 1))
        settling = Signal()  # settle != 0, from a flip-flop
        m.d.comb += [
            self.request.ready.eq(phase == Phase.IDLE),
            self.response.valid.eq(phase == Phase.RESPOND),
            self.response.payload.eq(response),
            self.quiet.eq(settling),
        ]
        with m.If(settling):
            m.d.sync += [settle.eq(settle - 1), settling.eq(settle != 1)]

        execute = {name: Signal(name=f"at_{name.lower()}") for name in registers.BY_NAME}
        values, possible, image_busy = self._registers(m, execute, request)
        command = self._command(m, execute["CONTROL"], request)
        # Which register is meant, and may be read or written, is known before it is done.
        chosen = Signal(len(execute))
        done = Cat(chosen[i] & possible.get(name, 1) for i, name in enumerate(execute))

        # A sum of products, not a choice by address: that is the shorter way. The value of a write,
        # or with an error, has no meaning.
        value = Const(0, 32)
        for i, name in enumerate(execute):
            if name in values:
                value = value | Mux(chosen[i], values[name], 0)
        with m.Switch(phase):
            with m.Case(Phase.IDLE):
                m.d.sync += request.eq(self.request.payload)
                m.d.sync += chosen.eq(self._choose(self.request.payload))
                with m.If(self.request.valid):
                    m.d.sync += phase.eq(Phase.EXECUTE)
            with m.Case(Phase.EXECUTE):
                m.d.sync += [phase.eq(Phase.RESPOND), response.error.eq(~done.any())]
                m.d.comb += [execute[name].eq(done[i]) for i, name in enumerate(execute)]
                m.d.sync += response.data.eq(value)
                with m.If(command.any()):
                    m.d.sync += [phase.eq(Phase.SETTLE), settle.eq(SETTLE_CYCLES), settling.eq(1)]
                with m.If(execute["IMAGE"] & image_busy):
                    m.d.sync += phase.eq(Phase.EXECUTE)
                if self.slots is not None:
                    self._flash(m, phase, execute["FLASH"], request)
            with m.Case(Phase.SETTLE):
                with m.If(~self.quiet):
                    m.d.sync += phase.eq(Phase.RESPOND)
            if self.slots is not None:
                with m.Case(Phase.TRANSFER):
                    m.d.sync += response.data.eq(self.flash_word)
                    with m.If(~self.flash_busy):
                        m.d.sync += phase.eq(Phase.RESPOND)
            with m.Case(Phase.RESPOND):
                with m.If(self.response.ready):
                    m.d.sync += phase.eq(Phase.IDLE)
        return m

    def _registers(self, m: Module, execute: dict, request) -> tuple[dict, dict, object]:
        """All registers but CONTROL.

        Returns their values by name, whether an access to them is possible by name (those that
        always are, are not in it), and whether bytes of the image are on their way.
        """
        values = self._values()
        image_busy = self._image(m, execute["IMAGE"], request)
        values["RESULT"], result_valid = self._result(m, execute["RESULT"])
        input_ready = self._input(m, execute["INPUT"], request)
        names = ("MODE", "RESULT_BEATS", "IRQ_ENABLE")
        for name in (*names, *self.of_source):
            values[name] = self._settings(m, name, execute[name], request)
        values["IRQ_PENDING"] = self._events(m, execute["IRQ_PENDING"], request)
        values["STATUS"] = self._packed(m, "STATUS", {
            "STATE": self.status.state,
            "ERROR": self.status.error,
            "INPUT_READY": input_ready,
            "RESULT_VALID": result_valid,
            "STREAM_VALID": self.stalled,
            "UPSET": self.status.upset,
        })  # fmt: skip
        m.d.comb += [
            self.by_register.eq(values["MODE"]),
            self.result_beats.eq(values["RESULT_BEATS"]),
            self.new_beats.eq(execute["RESULT_BEATS"] & request.write),
            self.irq.eq((values["IRQ_ENABLE"] & values["IRQ_PENDING"]).any()),
        ]
        full = request.strobe[: self.geometry.n].all()
        state = self.status.state
        possible = {
            "RESULT": result_valid,
            "INPUT": input_ready & full,
            "IMAGE_CRC": (state == Status.WAITING) | (state == Status.RUNNING),
        }
        m.d.comb += [getattr(self, name.lower()).eq(values[name]) for name in self.of_source]
        if not self.of_source:
            possible |= dict.fromkeys(("SOURCE_BASE", "SOURCE_BYTES"), 0)
        if self.geometry.ring:
            possible["IMAGE"] = 0
        else:
            possible |= dict.fromkeys(registers.OF_RING, 0)
        if self.slots is None:
            possible |= dict.fromkeys(registers.OF_FLASH, 0)
        else:
            possible["FLASH"] = self.flash_hold | request.write
        return values, possible, image_busy

    def _command(self, m: Module, execute, request) -> Signal:
        """CONTROL: a written command is executed, and not kept."""
        command = Signal(2)
        m.d.comb += [
            command.eq(request.data & Mux(execute & request.strobe[0], 3, 0)),
            self.control.reset.eq(command[field("CONTROL", "RESET").low]),
            self.control.restart.eq(command[field("CONTROL", "RESTART").low]),
        ]
        return command

    @staticmethod
    def _choose(request):
        """A bit for each register: the request is for it, and one that it allows."""
        allowed = {"r": ~request.write, "w": request.write, "rw": 1}
        return Cat(
            (request.address == register.offset >> 2) & allowed[register.access]
            for register in registers.BY_NAME.values()
        )

    def _values(self) -> dict:
        geometry = self.geometry
        parts = {"N": geometry.n, "P": geometry.p, "TABLES": geometry.tables, "ROM": self.rom}
        parts |= {"S": geometry.s}
        versions = {"IMAGE": spec.VERSION, "MAP": registers.MAP_VERSION}
        constant = {"GEOMETRY": parts, "VERSION": versions}
        values = {
            name: sum(int(value) << field(name, part).low for part, value in fields.items())
            for name, fields in constant.items()
        }
        return values | {
            "ID": int.from_bytes(MAGIC, "little"),
            "WEIGHT_WORDS": geometry.weight_words,
            "BANK_WORDS": geometry.bank_words,
            "CYCLES": self.status.cycles,
            "MEMORY_WAIT": self.status.memory_wait,
            "RING_WORDS": geometry.ring,
            "INFERENCES": self.status.inferences,
            "SCRUBS": self.status.scrubs,
            "IMAGE_CRC": self.status.image_crc,
            **self._addresses(),
        }

    def _addresses(self) -> dict:
        """Where the two images are in a flash, and which one counts."""
        if self.flash is None or self.slots is None:
            return {}
        return {
            "FLASH_CHOICE": self.slots.choice,
            "FLASH_FIRST": self.flash.address,
            "FLASH_SECOND": self.slots.other,
        }

    @staticmethod
    def _packed(m: Module, name: str, parts: dict):
        value = Signal(32, name=name.lower())
        for part, signal in parts.items():
            bits = field(name, part)
            m.d.comb += value[bits.low :][: bits.width].eq(signal)
        return value

    @staticmethod
    def _settings(m: Module, name: str, execute, request):
        """A register that keeps written data, byte by byte."""
        value = Signal(registers.BY_NAME[name].width, name=name.lower())
        for index in range(0, len(value), 8):
            with m.If(execute & request.write & request.strobe[index // 8]):
                m.d.sync += value[index : index + 8].eq(request.data[index : index + 8])
        return value

    def _events(self, m: Module, execute, request):
        """Sticky events; an event that comes while it is cleared is kept.

        An error is reported once. While the engine executes a command, errors are ignored: they are
        old, or go away.
        """
        ended = Signal(16)
        told = Signal()
        upset = Signal()
        now_stopped = self.status.state == Status.ERROR
        happened = Cat(
            (self.status.inferences != ended) & ~self.quiet,
            now_stopped & ~told & ~self.quiet,
            self.status.upset & ~upset,
        )
        m.d.sync += [
            ended.eq(self.status.inferences),
            told.eq(now_stopped & (told | ~self.quiet)),
            upset.eq(self.status.upset),
        ]
        pending = Signal(len(happened))
        cleared = Mux(execute & request.write & request.strobe[0], request.data[: len(happened)], 0)
        m.d.sync += pending.eq(pending & ~cleared | happened)
        return pending

    def _flash(self, m: Module, phase, execute, request) -> None:
        """A byte to the flash, or four from it."""
        bits = {part.name: request.data[part.low] for part in registers.BY_NAME["FLASH"].fields}
        m.d.comb += [
            self.flash_byte.eq(request.data[:8]),
            self.flash_send.eq(execute & request.write & bits["SEND"]),
            self.flash_take.eq(execute & ~request.write),
        ]
        with m.If(execute & request.write):
            m.d.sync += [self.flash_hold.eq(bits["HOLD"]), self.flash_select.eq(bits["SELECT"])]
        with m.If(execute):
            m.d.sync += phase.eq(Phase.TRANSFER)

    def _image(self, m: Module, execute, request):
        """Bytes on their way to the loader; dropped unless it loads. Returns whether there are."""
        if self.rom or self.geometry.ring:
            return Const(0)
        data = Signal(32, reset_less=True)
        mask = Signal(4)
        loading = (self.status.state == Status.LOADING) & ~self.quiet
        m.d.comb += [self.image.payload.eq(data[:8]), self.image.valid.eq(mask[0] & loading)]
        busy = mask != 0
        with m.If(~loading):
            m.d.sync += mask.eq(0)
        with m.Elif(busy):
            with m.If(~mask[0] | self.image.ready):
                m.d.sync += [mask.eq(mask >> 1), data.eq(data >> 8)]
        with m.Elif(execute):
            m.d.sync += [mask.eq(request.strobe), data.eq(request.data)]
        return busy

    def _input(self, m: Module, execute, request):
        """An input word from its parts. Returns whether the next part may be written."""
        parts = max(1, self.geometry.n // 4)
        full = Signal()
        part = Signal(range(max(2, parts)))
        word = Signal(8 * self.geometry.n, reset_less=True)
        m.d.comb += [self.word.valid.eq(full & ~self.quiet), self.word.payload.eq(word)]
        with m.If(execute):
            m.d.sync += word.eq(Cat(word, request.data[: min(32, len(word))])[-len(word) :])
            m.d.sync += [part.eq(part + 1), full.eq(part == parts - 1)]
            with m.If(part == parts - 1):
                m.d.sync += part.eq(0)
        with m.If(self.quiet | self.word.valid & self.word.ready):
            m.d.sync += [full.eq(0), part.eq(0)]
        return self.by_register & ~full

    def _result(self, m: Module, execute):
        """Returns the part of a result that is read next, and whether it is there."""
        parts = max(1, self.geometry.n // 4)
        part = Signal(range(max(2, parts)))
        last = part == parts - 1
        m.d.comb += self.beat.ready.eq(execute & last)
        with m.If(execute):
            m.d.sync += part.eq(Mux(last, 0, part + 1))
        with m.If(self.quiet):
            m.d.sync += part.eq(0)
        return self.beat.payload.word_select(part, min(32, 8 * self.geometry.n)), self.beat.valid

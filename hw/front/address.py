"""Address generator: one byte address per body word, common to all lanes."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from secateur.hw import spec
from secateur.hw.interfaces import ACCESS, FAST, Kind, issued_signature, origins_layout
from secateur.hw.pipeline import delay
from secateur.hw.spec import Reg

_ENDS = data.StructLayout({"pass_last": 1, "group_last": 1, "line_last": 1, "row_last": 1})


class _Step:
    """The step of a body word, decoded; held while no body word comes."""

    def __init__(self):
        self.valid = Signal(name="valid2")  # there is a body word
        self.first = Signal(name="first2")  # it is the first of a pass
        self.row = Signal(name="row2")  # it moves to the next kernel row
        self.to_b = Signal(name="to_b2")  # it moves to source B
        self.source = Signal(name="source2")  # B, from a 0xc0 step to the end of the pass
        self.unit = Signal(name="unit2")  # the source is read by the byte
        self.move = Signal(7, name="step2")


class AddressGenerator(wiring.Component):
    """Turns the steps of the body words and the ends of passes into addresses.

    Between two registers there is never more than one adder and one multiplexer. The origins of
    the next pass have MIN_ROW_WORDS cycles to settle: all four candidates are computed always,
    the end of a pass picks one.

    Parameters
    ----------
    geometry : of the engine
    latency : cycles from a word to its address: decode, base, adder, and with 4 of them a register

    Members
    -------
    issued : In(issued_signature(n))  of the issue stage
    address : Out  byte address, ``latency`` cycles later; held while there is no body word
    access : Out(ACCESS)  with ``address``
    origins : Out(origins_layout)  a cycle after a word, those of its pass; with S > 1, as is
    own_address : In  that of lane 0 as a filter, a cycle ahead of ``address``, which becomes it
    """

    def __init__(self, *, geometry: spec.Geometry, latency: int = FAST.address):
        if latency not in (3, 4):
            raise ValueError(f"latency must be 3 or 4 cycles, not {latency!r}")
        self.geometry, self.latency = geometry, latency
        self.width = ceil_log2(geometry.bank_words * geometry.n)
        filters = {"origins": Out(origins_layout(self.width)), "own_address": In(self.width)}
        super().__init__(
            {
                "issued": In(issued_signature(geometry.n)),
                "address": Out(self.width),
                "access": Out(ACCESS),
                **(filters if geometry.s > 1 else {}),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        # Origin A is used by the first word of a pass only, but B by any word, even the last: B
        # must move one cycle later, and its sum with KR is made where it is used.
        ends = Signal(_ENDS)
        m.d.comb += [ends[name].eq(self.issued.word[name]) for name in _ENDS.members]
        late_ends = data.View(_ENDS, delay(m, ends, 1, "ends", reset_less=False))
        a = self._origin(m, "a", ends, spec.FLAG_A_ROWSTEP)
        b = self._origin(m, "b", late_ends, spec.FLAG_B_ROWSTEP)
        step = self._decode(m)
        self._add(m, step, a, b)
        self._access(m, step)
        return m

    def _decode(self, m: Module) -> _Step:
        """First step: the common byte."""
        step, word = _Step(), self.issued.word
        body = self.issued.valid & (word.kind == Kind.BODY)
        to_b = word.common[6:] == spec.STEP_SOURCE >> 6
        source = to_b | (step.source & ~word.first)
        bytewise = Signal(2)
        m.d.sync += [
            bytewise[0].eq(self._mode("A") == spec.Mode.BROADCAST),
            bytewise[1].eq(self._mode("B") == spec.Mode.BROADCAST),
            step.valid.eq(body),
            step.first.eq(body & word.first),
        ]
        with m.If(body):
            m.d.sync += [
                step.row.eq(word.common[6:] == spec.STEP_ROW >> 6),
                step.to_b.eq(to_b),
                step.source.eq(source),
                step.unit.eq(Mux(source, bytewise[1], bytewise[0])),
                step.move.eq(Mux(word.common[7], word.common & spec.STEP_FIELD, word.common)),
            ]
        return step

    def _add(self, m: Module, step: _Step, a, b) -> None:
        """Second step: where the address starts from. Third: the address.

        ``a`` and ``b`` are the origins of the sources.
        """
        regs = self.issued.registers
        a_kr = Signal(self.width)
        a_2kr = Signal(self.width)
        m.d.sync += [a_kr.eq(a + regs[Reg.A_KR]), a_2kr.eq(a + (regs[Reg.A_KR] << 1))]
        valid3, use_base3, use_row3, add_row3 = (
            Signal(name=name) for name in ("valid3", "use_base3", "use_row3", "add_row3")
        )
        delta3, base3, row_base3, row_step3 = (
            Signal(self.width, name=name) for name in ("delta3", "base3", "row_base3", "row_step3")
        )
        log_n = ceil_log2(self.geometry.n)
        m.d.sync += [
            valid3.eq(step.valid),
            use_base3.eq(step.first | step.to_b),
            use_row3.eq(step.row & ~step.first),
            add_row3.eq(step.row),
            delta3.eq(Mux(step.unit, step.move, step.move << log_n)),
            base3.eq(Mux(step.to_b, b, Mux(step.row, a_kr, a))),
            row_base3.eq(Mux(step.to_b, b + regs[Reg.B_KR], Mux(step.row, a_2kr, a_kr))),
            row_step3.eq(Mux(step.source, regs[Reg.B_KR], regs[Reg.A_KR])),
        ]
        current = Signal(self.width)
        next_row = Signal(self.width)  # next_row = kernel_row + KR
        with m.If(valid3):
            base = Mux(use_base3, base3, Mux(use_row3, next_row, current))
            m.d.sync += current.eq(base + delta3)
            with m.If(use_base3):
                m.d.sync += next_row.eq(row_base3)
            with m.Elif(add_row3):
                m.d.sync += next_row.eq(next_row + row_step3)
        if self.geometry.s > 1:
            filters = regs[Reg.FLAGS2][spec.FLAG2_FILTERS]
            m.d.comb += [self.origins.a.eq(a), self.origins.b.eq(b)]
            m.d.sync += self.address.eq(Mux(filters, self.own_address, current))
            return
        domain = m.d.sync if self.latency > 3 else m.d.comb
        domain += self.address.eq(current)

    def _mode(self, source: str):
        return self.issued.registers[Reg.FLAGS][getattr(spec, f"FLAG_{source}_MODE") :][:2]

    def _access(self, m: Module, step: _Step) -> None:
        """``access`` of the word, from the second step on."""
        flags = self.issued.registers[Reg.FLAGS]
        access3 = Signal(ACCESS)
        gates = Signal()
        m.d.sync += gates.eq(self._mode("A") == spec.Mode.GATE)
        mode = Mux(step.source, self._mode("B"), self._mode("A"))
        m.d.sync += [
            access3.broadcast.eq(step.unit),
            access3.maximum.eq(mode == spec.Mode.MAXIMUM),
            access3.signed.eq(
                Mux(step.source, flags[spec.FLAG_B_SIGNED], flags[spec.FLAG_A_SIGNED])
            ),
            access3.wshift.eq(
                Mux(step.source, flags[spec.FLAG_B_WSHIFT], flags[spec.FLAG_A_WSHIFT])
            ),
            access3.first.eq(step.first),
            access3.latch.eq(gates & ~step.source),
            access3.gated.eq(gates & step.source & step.valid),
        ]
        m.d.comb += self.access.eq(delay(m, access3, self.latency - 2, "access"))

    def _origin(self, m: Module, source: str, ends, row_flag: int):
        """The origin of a source for the next pass.

        The ends of passes, groups, lines and rows are nested: each is an end of all before it.
        """
        regs = self.issued.registers
        prefix = source.upper()

        def register(name: str):
            return regs[Reg[f"{prefix}_{name}"]]

        def signal(name: str):
            return Signal(self.width, name=f"{source}_{name}")

        origin = signal("origin")
        group, line, row = signal("group"), signal("line"), signal("row")
        next_pass, next_group, next_line, next_row = (
            signal(f"next_{name}") for name in ("pass", "group", "line", "row")
        )
        n, s = self.geometry.n, self.geometry.s
        row_step = Mux(regs[Reg.FLAGS][row_flag], n, 0)
        if s > 1:  # a row group has S rows
            filters = regs[Reg.FLAGS2][spec.FLAG2_FILTERS]
            row_step = Mux(regs[Reg.FLAGS][row_flag], Mux(filters, s * n, n), 0)
        # A layer begins as if a row had ended before it: there are cycles for it, two row headers.
        begin = Signal(name=f"{source}_begin")
        m.d.sync += [
            begin.eq(self.issued.init),
            next_pass.eq(origin + regs[Reg.A_SZ] if source == "a" else origin),
            next_group.eq(group + register("SX")),
            next_line.eq(line + register("SY")),
            next_row.eq(Mux(self.issued.init, register("BASE"), row + row_step)),
        ]
        end = {name: ends[f"{name}_last"] | begin for name in ("pass", "group", "line", "row")}
        choice = Cat(Mux(end["line"], end["row"], end["group"]), end["line"])
        candidates = [next_pass, next_group, next_line, next_row]
        for kept, name, first in (
            (origin, "pass", 0),
            (group, "group", 1),
            (line, "line", 2),
            (row, "row", 3),
        ):
            with m.If(end[name]), m.Switch(choice):
                for index in range(first, 4):
                    with m.Case(index):
                        m.d.sync += kept.eq(candidates[index])
        return origin

"""Address generator: one byte address a body word, common to all lanes."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from secateur.hw import spec
from secateur.hw.interfaces import ACCESS, ADDRESS_LATENCY, REGISTERS, Kind, word_layout
from secateur.hw.pipeline import delay
from secateur.hw.spec import Reg

_ENDS = data.StructLayout({"pass_last": 1, "group_last": 1, "line_last": 1, "row_last": 1})


class AddressGenerator(wiring.Component):
    """Turns the steps of the body words and the ends of passes into addresses.

    Between two registers there is never more than one adder and one multiplexer. The origins of
    the next pass have MIN_ROW_WORDS cycles to settle: all four candidates are computed always,
    the end of a pass picks one.

    Parameters
    ----------
    geometry : of the engine
    output : build the output register; without it, all comes a cycle earlier

    Members
    -------
    registers : In, the configuration
    init : In, strobe when the registers hold a new layer
    valid, word : In, one issued word; not a stream: it is taken at once. Its END_TAGS are 0
        unless it is valid.
    address : Out, byte address, ADDRESS_LATENCY cycles later; held while there is no body word
    access : Out, with ``address``
    """

    def __init__(self, *, geometry: spec.Geometry, output: bool = True):
        self.geometry, self.output = geometry, output
        self.width = ceil_log2(geometry.bank_words * geometry.n)
        super().__init__(
            {
                "registers": In(REGISTERS),
                "init": In(1),
                "valid": In(1),
                "word": In(word_layout(geometry.n)),
                "address": Out(self.width),
                "access": Out(ACCESS),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        regs = self.registers
        body = self.valid & (self.word.kind == Kind.BODY)
        # Origin A is used by the first word of a pass only, but B by any word, even the last: B
        # must move one cycle later, and its sum with KR is made where it is used.
        ends = Signal(_ENDS)
        m.d.comb += [ends[name].eq(self.word[name]) for name in _ENDS.members]
        late_ends = data.View(_ENDS, delay(m, ends, 1, "ends", reset_less=False))
        a = self._origin(m, "a", ends, spec.FLAG_A_ROWSTEP)
        b = self._origin(m, "b", late_ends, spec.FLAG_B_ROWSTEP)
        a_kr = Signal(self.width)
        a_2kr = Signal(self.width)
        m.d.sync += [a_kr.eq(a + regs[Reg.A_KR]), a_2kr.eq(a + (regs[Reg.A_KR] << 1))]

        # First step: decode. `source` is B from a 0xc0 step to the end of the pass; `unit`: it is
        # read by the byte.
        step = self.word.common
        valid2, first2, row2, to_b2, source2, unit2 = (
            Signal(name=name) for name in ("valid2", "first2", "row2", "to_b2", "source2", "unit2")
        )
        step2 = Signal(7)
        move = step[6:] == spec.STEP_ROW >> 6
        to_b = step[6:] == spec.STEP_SOURCE >> 6
        source = to_b | (source2 & ~self.word.first)
        bytewise = Signal(2)
        m.d.sync += [
            bytewise[0].eq(self._mode("A") == spec.Mode.BROADCAST),
            bytewise[1].eq(self._mode("B") == spec.Mode.BROADCAST),
            valid2.eq(body),
            first2.eq(body & self.word.first),
        ]
        with m.If(body):
            m.d.sync += [
                row2.eq(move),
                to_b2.eq(to_b),
                source2.eq(source),
                unit2.eq(Mux(source, bytewise[1], bytewise[0])),
                step2.eq(Mux(step[7], step & spec.STEP_FIELD, step)),
            ]

        # Second step: bases and the access. Third: the addresses.
        valid3, use_base3, use_row3, add_row3 = (
            Signal(name=name) for name in ("valid3", "use_base3", "use_row3", "add_row3")
        )
        delta3, base3, row_base3, row_step3 = (
            Signal(self.width, name=name) for name in ("delta3", "base3", "row_base3", "row_step3")
        )
        log_n = ceil_log2(self.geometry.n)
        m.d.sync += [
            valid3.eq(valid2),
            use_base3.eq(first2 | to_b2),
            use_row3.eq(row2 & ~first2),
            add_row3.eq(row2),
            delta3.eq(Mux(unit2, step2, step2 << log_n)),
            base3.eq(Mux(to_b2, b, Mux(row2, a_kr, a))),
            row_base3.eq(Mux(to_b2, b + regs[Reg.B_KR], Mux(row2, a_2kr, a_kr))),
            row_step3.eq(Mux(source2, regs[Reg.B_KR], regs[Reg.A_KR])),
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
        domain = m.d.sync if self.output else m.d.comb
        domain += self.address.eq(current)

        self._access(m, valid2, first2, source2, unit2)
        return m

    def _mode(self, source: str):
        return self.registers[Reg.FLAGS][getattr(spec, f"FLAG_{source}_MODE") :][:2]

    def _access(self, m: Module, valid2, first2, source2, unit2) -> None:
        """``access`` of the word in the second step."""
        flags = self.registers[Reg.FLAGS]
        access3 = Signal(ACCESS)
        gates = Signal()
        m.d.sync += gates.eq(self._mode("A") == spec.Mode.GATE)
        mode = Mux(source2, self._mode("B"), self._mode("A"))
        m.d.sync += [
            access3.broadcast.eq(unit2),
            access3.maximum.eq(mode == spec.Mode.MAXIMUM),
            access3.signed.eq(Mux(source2, flags[spec.FLAG_B_SIGNED], flags[spec.FLAG_A_SIGNED])),
            access3.wshift.eq(Mux(source2, flags[spec.FLAG_B_WSHIFT], flags[spec.FLAG_A_WSHIFT])),
            access3.first.eq(first2),
            access3.latch.eq(gates & ~source2),
            access3.gated.eq(gates & source2 & valid2),
        ]
        m.d.comb += self.access.eq(delay(m, access3, ADDRESS_LATENCY - 3 + self.output, "access"))

    def _origin(self, m: Module, source: str, ends, row_flag: int):
        """The origin of a source for the next pass.

        The ends of passes, groups, lines and rows are nested: each is an end of all before it.
        """
        regs = self.registers
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
        row_step = Mux(regs[Reg.FLAGS][row_flag], self.geometry.n, 0)
        # A layer begins as if a row had ended before it: there are cycles for it, two row headers.
        begin = Signal(name=f"{source}_begin")
        m.d.sync += [
            begin.eq(self.init),
            next_pass.eq(origin + regs[Reg.A_SZ] if source == "a" else origin),
            next_group.eq(group + register("SX")),
            next_line.eq(line + register("SY")),
            next_row.eq(Mux(self.init, register("BASE"), row + row_step)),
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

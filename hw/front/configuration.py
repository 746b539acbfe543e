"""The register file that configuration words write, and tests of its contents."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.interfaces import LATE, REGISTERS, Kind, word_layout, writes_register
from secateur.hw.spec import Reg


class Configuration(wiring.Component):
    """The 16-bit registers of ``spec.Reg``, as configuration words write them.

    Tests of whole registers are kept in flip-flops, one cycle late: sixteen bits are too many for a
    path that does something else as well.

    Parameters
    ----------
    geometry : of the engine
    latency : cycles from ``word`` to ``registers``: 2, or 1 without registers in between

    Members
    -------
    valid : In(1)  a word issues, or has issued
    word : In(word_layout(n))  that word
    loading : In(1)  the registers are those of a LOAD, which uses few of them
    wiped : In(1)  the banks are wiped; until then the output window is as large as the banks
    next_entry : In(1)  strobe: register TABLE moves on by 1
    hand_over : In(1)  strobe: ``late`` becomes ``registers``
    registers : Out(REGISTERS)  the configuration
    late : Out(REGISTERS)  see LATE; 0 unless layers overlap
    clear_some : Out(1)  the window is to be cleared, and not empty
    clear_one : Out(1)  the window has one word
    input_one : Out(1)  a LOAD takes one word
    bad : Out(1)  a count is 0, LANES exceeds P, or the lanes do not have a source's mode
    """

    def __init__(self, *, geometry: spec.Geometry, latency: int = 2):
        if latency not in (1, 2):
            raise ValueError(f"latency must be 1 or 2 cycles, not {latency!r}")
        self.geometry, self.latency = geometry, latency
        self._first = [0] * spec.REGISTERS
        self._first[Reg.OUT_S] = geometry.bank_words
        super().__init__(
            {
                "valid": In(1),
                "word": In(word_layout(geometry.n)),
                "loading": In(1),
                "wiped": In(1),
                "next_entry": In(1),
                "hand_over": In(1),
                "registers": Out(REGISTERS, init=self._first),
                "late": Out(REGISTERS),
                "clear_some": Out(1),
                "clear_one": Out(1),
                "input_one": Out(1),
                "bad": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        registers = self.registers
        was_wiped = Signal()
        m.d.sync += was_wiped.eq(self.wiped)
        with m.If(self.wiped & ~was_wiped):
            m.d.sync += registers[Reg.OUT_S].eq(0)
        with m.If(self.next_entry):
            m.d.sync += registers[Reg.TABLE].eq(registers[Reg.TABLE] + 1)
        if spec.overlaps(self.geometry.p):
            for register in LATE:
                kept = Signal(16, name=f"late_{register.name}", init=self._first[register])
                m.d.comb += self.late[register].eq(kept)
                with m.If(self.hand_over):
                    m.d.sync += kept.eq(registers[register])
        is_zero = self._write(m)
        zero = is_zero[Reg.GX]
        for register in (Reg.GY, Reg.GZ, Reg.LANES):
            zero = zero | (is_zero[register] & ~self.loading)
        size, flags = registers[Reg.OUT_S], registers[Reg.FLAGS]
        m.d.sync += [
            self.clear_some.eq((size != 0) & flags[spec.FLAG_CLEAR]),
            self.clear_one.eq(size == 1),
            self.input_one.eq(registers[Reg.GX] == 1),
            self.bad.eq(zero | ((self._too_many_lanes() | self._no_mode()) & ~self.loading)),
        ]
        return m

    def _write(self, m: Module) -> dict:
        """Write the file; returns, for the registers that must not be 0, whether they are."""
        n = self.geometry.n
        lanes = Signal(8 * n, reset_less=True)
        zeros = Signal(n // 2, reset_less=True)
        domain = m.d.sync if self.latency > 1 else m.d.comb
        domain += lanes.eq(self.word.lanes)
        domain += [
            zeros[lane].eq(self.word.lanes.as_value().word_select(lane, 16) == 0)
            for lane in range(n // 2)
        ]
        is_zero = {
            register: Signal(init=1, name=f"zero_{register.name}")
            for register in (Reg.GX, Reg.GY, Reg.GZ, Reg.LANES)
        }
        config = self.valid & (self.word.kind == Kind.CONFIG)
        for register in Reg:
            enable = Signal(name=f"write_{register.name}")
            domain += enable.eq(config & writes_register(self.word.common, register, n))
            with m.If(enable):
                lane = register % (n // 2)
                m.d.sync += self.registers[register].eq(lanes.word_select(lane, 16))
                if register in is_zero:
                    m.d.sync += is_zero[register].eq(zeros[lane])
        return is_zero

    def _no_mode(self):
        """Whether a source has a mode that the lanes lack: MAXIMUM or GATE."""
        if self.geometry.extended:
            return 0
        modes = (spec.FLAG_A_MODE, spec.FLAG_B_MODE)
        return Cat(self.registers[Reg.FLAGS][mode + 1] for mode in modes).any()

    def _too_many_lanes(self):
        """LANES against P, by a table: a comparison of 16 bits is a carry as long."""
        lanes, p = self.registers[Reg.LANES], self.geometry.p
        low = lanes[: p.bit_length()]
        table = Const(-1 << (p + 1), 1 << len(low))
        return lanes[len(low) :].any() | table.bit_select(low, 1)

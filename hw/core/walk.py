"""The drain walk: which map word each drained pixel is, and whether it exists."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.interfaces import REGISTERS
from secateur.hw.spec import Reg

#: Cycles from ``group`` to the first ``step``: input register, the group's state, output register.
WALK_LATENCY = 3
_MOST_LANES = 16


class _Left:
    """A down counter that stops at 0, with registered flags for 'none left' and 'the last one'.

    ``value`` is static: its own flags are registered once.
    """

    def __init__(self, m: Module, name: str, value):
        self._m, self._value = m, value
        self.left = Signal(16, name=f"{name}_left")
        self.some = Signal(name=f"{name}_some")
        self.last = Signal(name=f"{name}_last")
        self._some, self._one = Signal(name=f"{name}_is_some"), Signal(name=f"{name}_is_one")
        m.d.sync += [self._some.eq(value != 0), self._one.eq(value == 1)]

    def update(self, load, step) -> None:
        m = self._m
        with m.If(load):
            m.d.sync += [
                self.left.eq(self._value),
                self.some.eq(self._some),
                self.last.eq(self._one),
            ]
        with m.Elif(step & self.some):
            m.d.sync += [
                self.left.eq(self.left - 1),
                self.some.eq(~self.last),
                self.last.eq(self.left == 2),
            ]


class Walk(wiring.Component):
    """Nested counters, one pixel in ``pace`` cycles, without a multiplier.

    Parameters
    ----------
    pace : cycles from one step of a group to the next

    Members
    -------
    registers : In, the configuration
    init : In, strobe when the registers hold a new layer, at least 4 cycles before ``group``
    group : In, strobe: LANES steps follow; groups are LANES * pace, and MIN_ROW_WORDS, cycles apart
    line_last, row_last : In, of this group, with ``group``
    step, m, exists : Out, a drained pixel; the first one WALK_LATENCY cycles after ``group``
    """

    def __init__(self, *, pace: int = 1):
        if pace < 1:
            raise ValueError(f"pace must be at least 1 cycle, not {pace!r}")
        self.pace = pace
        super().__init__(
            {
                "registers": In(REGISTERS),
                "init": In(1),
                "group": In(1),
                "line_last": In(1),
                "row_last": In(1),
                "step": Out(1),
                "m": Out(16),
                "exists": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        regs = self.registers
        linear = regs[Reg.FLAGS][spec.FLAG_LINEAR]
        base, base_row, fresh, group, end_line, end_row = self._between_groups(m)
        pixel = self._pixel(m, group)

        # Within a group, or in the linear walk within a row.
        begin = Signal()
        begins = Signal()
        linear_begin = Signal()
        current = Signal(16)
        current_row = Signal(16)
        m.d.sync += [
            begins.eq(~linear | fresh),
            begin.eq(self.group & begins),
            linear_begin.eq(self.group & begins & linear),
        ]
        columns = _Left(m, "columns", regs[Reg.PC])
        rows = _Left(m, "rows", regs[Reg.PR])
        turn = pixel & columns.last
        columns.update(begin | turn, pixel)
        rows.update(begin, turn)
        with m.If(begin):
            m.d.sync += [current.eq(base), current_row.eq(base_row)]
        with m.Elif(turn):
            m.d.sync += [current.eq(current_row), current_row.eq(current_row + regs[Reg.D_PR])]
        with m.Elif(pixel):
            m.d.sync += current.eq(current + regs[Reg.D_PC])

        # Tiles count groups and lines down from CLAST and RLAST, the linear walk steps from CLAST.
        # Tiles have time: their events are registered.
        new_row, new_line, new_group = (
            Signal(name=name) for name in ("new_row", "new_line", "new_group")
        )
        m.d.sync += [
            new_row.eq(self.init | end_row),
            new_line.eq(~linear & (self.init | end_row | end_line)),
            new_group.eq(~linear & group),
        ]
        stepwise = linear & pixel
        columns_valid = _Left(m, "columns_valid", regs[Reg.CLAST])
        rows_valid = _Left(m, "rows_valid", regs[Reg.RLAST])
        columns_valid.update(
            new_line | linear_begin | (stepwise & columns.last), new_group | stepwise
        )
        rows_valid.update(new_row, new_line)
        column_now = Signal()
        row_now = Signal()  # of the group being drained
        with m.If(group):
            m.d.sync += [column_now.eq(columns_valid.some), row_now.eq(rows_valid.some)]
        m.d.sync += [
            self.step.eq(pixel),
            self.m.eq(current),
            self.exists.eq(
                Mux(
                    linear,
                    columns_valid.some & rows.some,
                    (column_now | ~columns.last) & (row_now | ~rows.last),
                )
            ),
        ]
        return m

    def _between_groups(self, m: Module):
        """Where the coming group begins, and the events of groups, a cycle after ``group``."""
        regs = self.registers
        # `base` is the first word of the coming group; the others are candidates.
        base, base_row, line, row = (
            Signal(16, name=name) for name in ("base", "base_row", "line", "row")
        )
        next_group, next_line, next_row = (
            Signal(16, name=name) for name in ("next_group", "next_line", "next_row")
        )
        fresh = Signal()  # the coming group is the first of its row
        m.d.sync += [
            base_row.eq(base + regs[Reg.D_PR]),
            next_group.eq(base + regs[Reg.D_GX]),
            next_line.eq(line + regs[Reg.D_GY]),
            next_row.eq(row + 1),
        ]
        group, end_line, end_row = (Signal(name=name) for name in ("now", "end_line", "end_row"))
        row_last = Signal()
        m.d.sync += [
            group.eq(self.group),
            row_last.eq(self.row_last),
            end_line.eq(self.group & self.line_last),
            end_row.eq(self.group & self.row_last),
        ]
        with m.If(self.init):
            m.d.sync += [signal.eq(regs[Reg.OUT_BASE]) for signal in (base, line, row)]
        with m.Elif(end_row):
            m.d.sync += [signal.eq(next_row) for signal in (base, line, row)]
        with m.Elif(end_line):
            m.d.sync += [signal.eq(next_line) for signal in (base, line)]
        with m.Elif(group):
            m.d.sync += base.eq(next_group)
        with m.If(self.init | group):
            m.d.sync += fresh.eq(self.init | row_last)
        return base, base_row, fresh, group, end_line, end_row

    def _pixel(self, m: Module, group):
        """High while a pixel of the group is drained: ``LANES`` times, every ``pace`` cycles."""
        pixel = Signal()
        lanes_left = Signal(range(_MOST_LANES + 1))
        more = lanes_left != 1
        with m.If(group):
            m.d.sync += [pixel.eq(1), lanes_left.eq(self.registers[Reg.LANES])]
        with m.Elif(pixel):
            m.d.sync += [lanes_left.eq(lanes_left - 1), pixel.eq(more if self.pace == 1 else 0)]
        if self.pace > 1:
            wait = Signal(self.pace - 1)
            m.d.sync += wait.eq(Cat(pixel & more, wait))
            with m.If(wait[-1]):
                m.d.sync += pixel.eq(1)
        return pixel

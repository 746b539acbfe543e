"""The drain walk: which map word each drained pixel is, and whether it exists."""

from __future__ import annotations

from typing import NamedTuple

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.interfaces import GROUP, REGISTERS
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


class _Between(NamedTuple):
    """Where the next group begins, and the events of groups, a cycle after ``group``."""

    base: Signal  # first word of the next group
    base_row: Signal  # and of the row of pixels below it
    fresh: Signal  # the next group is the first of its row
    now: Signal
    end_line: Signal
    end_row: Signal


class Walk(wiring.Component):
    """Which map word each drained pixel is: nested counters, without a multiplier.

    Parameters
    ----------
    pace : cycles from one step of a group to the next, at least 1
    s : lanes that may be filters

    Members
    -------
    registers : In(REGISTERS)  the configuration
    init : In(1)  strobe when the registers hold a new layer, at least 4 cycles before ``group``
    group : In(GROUP)  LANES steps follow; groups are at least LANES * pace cycles apart, and at
        least MIN_ROW_WORDS
    step : Out(1)  a drained pixel; the first one comes WALK_LATENCY cycles after ``group``
    m : Out(16)  its word in the map
    exists : Out(1)  it is one of the map
    soon : Out(1)  there is a step two cycles later
    """

    def __init__(self, *, pace: int = 1, s: int = 1):
        if pace < 1:
            raise ValueError(f"pace must be at least 1 cycle, not {pace!r}")
        self.pace, self.s = pace, s
        super().__init__(
            {
                "registers": In(REGISTERS),
                "init": In(1),
                "group": In(GROUP),
                "step": Out(1),
                "m": Out(16),
                "exists": Out(1),
                "soon": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        regs = self.registers
        linear = regs[Reg.FLAGS][spec.FLAG_LINEAR]
        counts = linear | self._filters
        between = self._between_groups(m)
        pixel = self._pixel(m, between.now)

        # Within a group, or in the linear walk within a row.
        begin = Signal()
        begins = Signal()
        linear_begin = Signal()
        current = Signal(16)
        current_row = Signal(16)
        m.d.sync += [
            begins.eq(~linear | between.fresh),
            begin.eq(self.group.valid & begins),
            linear_begin.eq(self.group.valid & begins & counts),
        ]
        columns = _Left(m, "columns", regs[Reg.PC])
        rows = _Left(m, "rows", regs[Reg.PR])
        turn = pixel & columns.last
        columns.update(begin | turn, pixel)
        rows.update(begin, turn)
        with m.If(begin):
            m.d.sync += [current.eq(between.base), current_row.eq(between.base_row)]
        with m.Elif(turn):
            m.d.sync += [current.eq(current_row), current_row.eq(current_row + regs[Reg.D_PR])]
        with m.Elif(pixel):
            m.d.sync += current.eq(current + regs[Reg.D_PC])

        m.d.sync += [
            self.step.eq(pixel),
            self.m.eq(current),
            self.exists.eq(self._exists(m, between, pixel, linear_begin, columns, rows)),
        ]
        return m

    def _exists(self, m: Module, between: _Between, pixel, begin, columns: _Left, rows: _Left):
        """Whether the pixel is one of the map.

        Tiles count groups and lines down from CLAST and RLAST, the linear walk and that of filter
        lanes steps from CLAST at ``begin``. Tiles have time: their events are registered.
        """
        regs = self.registers
        linear, filters = regs[Reg.FLAGS][spec.FLAG_LINEAR], self._filters
        counts = linear | filters
        new_row, new_line, new_group = (
            Signal(name=name) for name in ("new_row", "new_line", "new_group")
        )
        m.d.sync += [
            new_row.eq(self.init | between.end_row),
            new_line.eq(~counts & (self.init | between.end_row | between.end_line)),
            new_group.eq(~counts & between.now),
        ]
        stepwise = counts & pixel
        columns_valid = _Left(m, "columns_valid", regs[Reg.CLAST])
        rows_valid = _Left(m, "rows_valid", regs[Reg.RLAST])
        columns_valid.update(new_line | begin | (stepwise & columns.last), new_group | stepwise)
        rows_valid.update(new_row, new_line)
        column_now = Signal()
        row_now = Signal()  # of the group being drained
        with m.If(between.now):
            m.d.sync += [column_now.eq(columns_valid.some), row_now.eq(rows_valid.some)]
        tile = (column_now | ~columns.last) & (row_now | ~rows.last)
        if self.s > 1:
            before = Signal()  # the rows are not the layer's last
            with m.If(self.group.valid):
                m.d.sync += before.eq(~self.group.final)
            late = Signal()
            with m.If(between.now):
                m.d.sync += late.eq(before)
            tile = Mux(filters, columns_valid.some | late, tile)
        return Mux(linear, columns_valid.some & rows.some, tile)

    @property
    def _filters(self):
        """Whether the lanes are filters."""
        return self.registers[Reg.FLAGS2][spec.FLAG2_FILTERS] if self.s > 1 else Const(0)

    def _between_groups(self, m: Module) -> _Between:
        regs = self.registers
        # `base` is the first word of the next group; the others are candidates.
        base, base_row, line, row = (
            Signal(16, name=name) for name in ("base", "base_row", "line", "row")
        )
        next_group, next_line, next_row = (
            Signal(16, name=name) for name in ("next_group", "next_line", "next_row")
        )
        fresh = Signal()
        m.d.sync += [
            base_row.eq(base + regs[Reg.D_PR]),
            next_group.eq(base + regs[Reg.D_GX]),
            next_line.eq(line + regs[Reg.D_GY]),
            next_row.eq(row + (Mux(self._filters, self.s, 1) if self.s > 1 else 1)),
        ]
        group, end_line, end_row = (Signal(name=name) for name in ("now", "end_line", "end_row"))
        row_last = Signal()
        m.d.sync += [
            group.eq(self.group.valid),
            row_last.eq(self.group.row_last),
            end_line.eq(self.group.valid & self.group.line_last),
            end_row.eq(self.group.valid & self.group.row_last),
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
        return _Between(base, base_row, fresh, group, end_line, end_row)

    def _pixel(self, m: Module, group):
        """High while a pixel of the group is drained: ``LANES`` times, every ``pace`` cycles."""
        pixel = Signal()
        lanes_left = Signal(range(_MOST_LANES + 1))
        more = lanes_left != 1
        m.d.comb += self.soon.eq(group | (pixel & more))
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

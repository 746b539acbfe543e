"""The controller of an SDR SDRAM: one row at a time, open for as long as an access lasts."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw.pipeline import delay
from secateur.hw.sdram import (
    ADDRESS_BITS,
    ALL_BANKS,
    BANK_BITS,
    BURST,
    COLUMN_BITS,
    DATA_BITS,
    ROW_BITS,
    Command,
    Sdram,
)

#: A half-word's address: column, bank, row, from the lowest bit on.
_PLACE = data.StructLayout({"column": COLUMN_BITS, "bank": BANK_BITS, "row": ROW_BITS})

#: Lines of an SDRAM.
SDRAM_PORTS = {
    "command": Out(3, init=Command.NOP),
    "bank": Out(BANK_BITS),
    "address": Out(ROW_BITS),
    "mask": Out(1, init=1),
    "drive": Out(1),
    "value": Out(DATA_BITS),
    "level": In(DATA_BITS),
}


#: What the controller is asked for: to write ``data``, or to read the column at ``address`` and as
#: many as ``more`` behind it; ``tag`` comes back with the last of them.
ACCESS = data.StructLayout(
    {"write": 1, "address": ADDRESS_BITS, "more": range(BURST), "tag": 1, "data": DATA_BITS}
)


class _State(enum.Enum):
    START = 0
    IDLE = 1
    OPEN = 2
    CLOSE = 3


class SdramController(wiring.Component):
    """Sends an SDRAM what it needs at power-up, refreshes it, reads it and writes it.

    Each access opens a row, reads columns of it in consecutive cycles or writes one, and closes the
    row again. Between two of them goes a REFRESH, if one is due. The columns of an access are of
    one row. What is read comes ``sdram.data_cycles + 1`` cycles behind its column, and cannot be
    stopped.

    All lines leave from flip-flops, and the pins have another one each way. The clock of the SDRAM
    rises between two edges of the controller's.

    Parameters
    ----------
    sdram : its times

    Members
    -------
    request : In(stream of ACCESS)  taken with its last column
    read_en : Out(1)  a half-word comes
    read_data : Out  that half-word
    read_last : Out(1)  it is the last of an access with a tag
    command : Out(3)  RAS#, CAS# and WE#, the last one lowest
    bank, address : Out  with the command
    mask : Out(1)  the SDRAM drives no data, and takes none
    drive : Out(1)  the controller drives data
    value, level : Out, In  data, to the SDRAM and from it
    """

    def __init__(self, *, sdram: Sdram):
        self.sdram = sdram
        super().__init__(
            {
                "request": In(stream.Signature(ACCESS)),
                "read_en": Out(1),
                "read_data": Out(DATA_BITS),
                "read_last": Out(1),
                **SDRAM_PORTS,
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        sdram, access = self.sdram, self.request.payload
        place = data.View(_PLACE, access.address)
        row = sdram.cycles(sdram.trc)
        waits = [step.cycles for step in sdram.start]
        waits += [row, sdram.open_cycles, sdram.close_cycles, sdram.shut_cycles]
        left = Signal(range(max(waits)))  # cycles in which nothing may be sent yet
        state = Signal(_State, init=_State.START)
        column = Signal(COLUMN_BITS)
        done = Signal(range(BURST))  # columns of the access
        last = done == access.more
        reads = Signal()
        due = self._refresh(m, state, left)
        m.d.sync += [self.command.eq(Command.NOP), self.drive.eq(0), self.value.eq(access.data)]
        with m.If(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.Elif(state == _State.START):
            self._start(m, state, left)
        with m.Elif(state == _State.IDLE):
            m.d.sync += [column.eq(place.column), done.eq(0)]
            with m.If(due):
                m.d.sync += [self.command.eq(Command.REFRESH), left.eq(row - 1)]
            with m.Elif(self.request.valid):
                m.d.sync += [
                    self.command.eq(Command.ACTIVATE),
                    self.bank.eq(place.bank),
                    self.address.eq(place.row),
                    left.eq(sdram.open_cycles - 1),
                    state.eq(_State.OPEN),
                ]
        with m.Elif(state == _State.OPEN):
            m.d.comb += [self.request.ready.eq(last), reads.eq(~access.write)]
            m.d.sync += [
                self.command.eq(Mux(access.write, Command.WRITE, Command.READ)),
                self.drive.eq(access.write),
                self.address.eq(column),
                column.eq(column + 1),
                done.eq(done + 1),
            ]
            with m.If(last):
                m.d.sync += [left.eq(sdram.close_cycles - 1), state.eq(_State.CLOSE)]
        with m.Else():
            m.d.sync += [
                self.command.eq(Command.PRECHARGE),
                self.address.eq(ALL_BANKS),
                left.eq(sdram.shut_cycles - 1),
                state.eq(_State.IDLE),
            ]
        behind = delay(
            m, Cat(reads, last & access.tag), sdram.data_cycles + 1, "behind", reset_less=False
        )
        m.d.comb += [
            self.read_en.eq(behind[0]),
            self.read_last.eq(behind[1]),
            self.read_data.eq(self.level),
        ]
        return m

    def _start(self, m: Module, state, left) -> None:
        """One step of the beginning after the other."""
        steps = self.sdram.start
        at = Signal(range(len(steps) + 1))
        layout = data.StructLayout({"command": 3, "address": ROW_BITS, "left": left.shape()})
        table = Array(
            Const.cast(
                layout.const(
                    {"command": step.command, "address": step.address, "left": step.cycles - 1}
                )
            )
            for step in steps
        )
        step = data.View(layout, table[at])
        m.d.sync += [
            self.command.eq(step.command),
            self.bank.eq(0),
            self.address.eq(step.address),
            left.eq(step.left),
            at.eq(at + 1),
        ]
        with m.If(at == len(steps) - 1):
            m.d.sync += [state.eq(_State.IDLE), self.mask.eq(0)]

    def _refresh(self, m: Module, state, left) -> Signal:
        """Whether a REFRESH is due; at constant rate, however late one goes out."""
        timer = Signal(range(self.sdram.refresh_cycles))
        due = Signal()
        with m.If((state == _State.IDLE) & (left == 0)):
            m.d.sync += due.eq(0)
        with m.If(timer == 0):
            m.d.sync += [timer.eq(self.sdram.refresh_cycles - 1), due.eq(1)]
        with m.Else():
            m.d.sync += timer.eq(timer - 1)
        return due

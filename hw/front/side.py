"""Parts of the fetcher: signals of its address side, counters of passes, registers of words."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data

from secateur.hw.interfaces import Kind, word_layout


class AddressSide:
    """Signals of the address side that the data side reads or writes."""

    def __init__(self, width: int, first: int):
        tags = {"valid": 1, "pas": 1, "group": 1, "line": 1, "row": 1, "turn": 1}
        tags = data.StructLayout(tags)
        self.go = Signal()  # a word is read in this cycle
        self.address = Signal(width, init=first)
        self.tags = Signal(tags)  # of the word that is read
        self.match = Signal()  # it is the last of a pass
        self.loop_start = Signal(width, init=first)
        self.final_row = Signal()  # the pass is the last one over its row
        self.loop = Signal()  # it is followed by another pass
        self.armed = Signal()  # the row's ends are known
        self.at_last = Signal()  # the word is the program's last
        self.expect = Signal(Kind)  # the kind of the next word on the data side
        self.arm = Signal()  # its word was the second header word of a row
        self.body_start = Signal(width)
        self.body_before_end = Signal(width)
        # Of filter lanes only: S words are a step, read in bank 0.
        self.step = Signal(width, init=1)
        self.filters = Signal()
        self.named = Signal()  # rows name their tables: their counts are shorter
        self.last_row = Signal()  # of the layer, once armed
        self.held = Signal()  # the layer has been read; lanes still use the other banks
        self.turn = Signal()  # changes at every jump: words that were read before are dropped
        # Passes to do, and whether it is one, by level.
        self.left = {name: Signal(16, name=f"left_{name}") for name in ("x", "y", "z")}
        self.final = {name: Signal(name=f"final_{name}") for name in self.left}


def count_passes(m: Module, end, load, left: dict, final: dict, copies: dict) -> None:
    """Add nested down counters, one event per pass: z inside x inside y.

    Parameters
    ----------
    m : module that they become part of
    end : strobe: a pass ends
    load : strobe: the passes of a row are known
    left : the counters, by name
    final : whether each is at 1
    copies : what they begin with
    """
    carry = end
    for name in ("z", "x", "y"):
        with m.If(load):
            m.d.sync += left[name].eq(copies[name])
        with m.Elif(carry):
            m.d.sync += left[name].eq(Mux(final[name], copies[name], left[name] - 1))
        carry = carry & final[name]


def rotate(m: Module, *, n: int, registers: int, raw, valid):
    """Two registers; between them, a configuration word is rotated. Returns both.

    Parameters
    ----------
    m : module that they become part of
    n : lanes
    registers : 2; with 1 the first is a wire
    raw : a word of ``word_layout(n)``
    valid : there is one
    """
    lanes16 = n // 2
    select = Signal(range(max(lanes16, 2)))
    held = Signal(word_layout(n), reset_less=True)
    turned = Signal(word_layout(n), reset_less=True)
    held_valid = Signal()
    turned_valid = Signal()
    domain = m.d.sync if registers > 1 else m.d.comb
    domain += [held.eq(raw), held_valid.eq(valid)]
    m.d.sync += [turned.eq(held), turned_valid.eq(held_valid)]
    domain += select.eq(Mux(raw.kind == Kind.CONFIG, raw.common, 0))
    if lanes16 > 1:
        lanes = held.lanes.as_value()
        with m.Switch(select):
            for shift in range(1, lanes16):
                with m.Case(shift):
                    m.d.sync += turned.lanes.eq(lanes.rotate_left(16 * shift))
    return held_valid, held, turned_valid, turned

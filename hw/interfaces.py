"""The wires between the blocks of the engine, and their timing."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Value
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from secateur.hw import spec
from secateur.hw.spec import Reg


class Kind(enum.Enum, shape=2):
    """Kinds of stream words."""

    CONFIG = 0
    HEAD_A = 1
    HEAD_B = 2
    BODY = 3


#: Tags that end something.
END_TAGS = ("pass_last", "group_last", "line_last", "row_last", "layer_last")


def word_layout(n: int) -> data.StructLayout:
    """A fetched word. The tags from ``pass_last`` on are those of body words, 0 in others.

    ``lanes`` of a configuration word are rotated so that register k is at k mod N/2.
    """
    return data.StructLayout(
        {
            "lanes": data.ArrayLayout(8, n),
            "common": 8,
            "kind": Kind,
            # BODY: of a pass; HEAD_B: the row is shorter than MIN_ROW_WORDS; CONFIG: table entries
            "first": 1,
            "pass_last": 1,
            "group_last": 1,
            "line_last": 1,  # last group along x, last pass, last word
            "row_last": 1,
            "layer_last": 1,
        }
    )


def writes_register(common, register: int, n: int):
    """Whether a configuration word writes a register.

    Parameters
    ----------
    common : the word's common byte
    register : a ``spec.Reg``
    n : lanes
    """
    index = common[:6]
    return index.matches(*range(max(0, register - n // 2 + 1), register + 1))


#: How a word's operand is read. All fields but ``gated`` are held while no body word comes.
ACCESS = data.StructLayout(
    {
        "broadcast": 1,
        "maximum": 1,
        "signed": 1,
        "wshift": 1,
        "first": 1,  # of a pass
        "latch": 1,  # the operand becomes the gate
        "gated": 1,  # the gate is the weight
    }
)

REGISTERS = data.ArrayLayout(16, spec.REGISTERS)

#: Registers that drain, write bus and banks use.
LATE = (
    *(Reg.OFF_PC, Reg.OFF_DC, Reg.OFF_DR, Reg.OUT_W, Reg.OUT_S, Reg.OUT_BASE),
    *(Reg.LANES, Reg.PC, Reg.PR, Reg.D_PC, Reg.D_PR, Reg.D_GX, Reg.D_GY, Reg.CLAST, Reg.RLAST),
    *(Reg.FLAGS, Reg.FLAGS2, Reg.CLIP),
)

#: The end of a group of pixels: which other ends it is, too; and whether it is one of the layer's
#: last row or row group.
GROUP = data.StructLayout({"valid": 1, "line_last": 1, "row_last": 1, "final": 1})


def group_end(word, final=0) -> data.View:
    """The GROUP that an issued word ends; not valid if it ends none.

    Parameters
    ----------
    word : with the tags of ``word_layout``
    final : whether its row is the layer's last
    """
    return data.View(GROUP, Cat(word.group_last, word.line_last, word.row_last, Value.cast(final)))


def origins_layout(width: int) -> data.StructLayout:
    """Byte addresses from which a pass begins, of both sources."""
    return data.StructLayout({"a": width, "b": width})


def header_layout(n: int) -> data.StructLayout:
    """A header word of a row on its way to the drain: the first or the second.

    ``table`` is that which the second names.
    """
    return data.StructLayout({"valid": 1, "second": 1, "lanes": 8 * n, "table": 3})


def write_layout(n: int) -> data.StructLayout:
    """The write bus. ``data`` come some cycles after the rest, see ``Bank``."""
    return data.StructLayout(
        {
            "valid": 1,
            "local": 1,  # m counts from the window's first word: a clear
            "ahead": 1,  # a word of the next input, for the window that banks have kept
            "m": 16,
            "data": data.ArrayLayout(8, n),
        }
    )


def host_layout(n: int) -> data.StructLayout:
    """A write by LOAD or CLEAR, all fields at the same time."""
    return write_layout(n)


def trace_layout(n: int) -> data.StructLayout:
    """Pixels and input words as they pass; ``layer`` counts STARTs since LOAD."""
    fields = {"valid": 1, "input": 1, "result": 1, "layer": 8, "m": 16}
    return data.StructLayout(fields | {"data": data.ArrayLayout(8, n)})


def table_write_layout() -> data.StructLayout:
    """One entry on its way into all memories: ``address`` is 256 * table + code."""
    return data.StructLayout({"valid": 1, "address": 16, "data": 8})


def issued_signature(n: int) -> wiring.Signature:
    """From the issue stage to the blocks behind it.

    Members
    -------
    valid : Out(1)  a word has issued
    word : Out(word_layout(n))  that word; its END_TAGS are 0 unless it is valid
    registers : Out(REGISTERS)  the configuration of the words that issue
    init : Out(1)  strobe: the registers of a layer are settled
    late : Out(REGISTERS)  the configuration of the pixels that drain: those of LATE
    late_init : Out(1)  strobe: ``late`` is that of another layer, or of a LOAD
    keep : Out(1)  strobe: words of the next input go to the window that ``late`` has now
    host : Out(host_layout(n))  writes of LOAD and CLEAR, and of zeros after a reset
    entry : Out(table_write_layout())  entries of tables
    layer : Out(8)  STARTs since the last LOAD, in step with ``late``
    """
    return wiring.Signature(
        {
            "valid": Out(1),
            "word": Out(word_layout(n)),
            "registers": Out(REGISTERS),
            "init": Out(1),
            "late": Out(REGISTERS),
            "late_init": Out(1),
            "keep": Out(1),
            "host": Out(host_layout(n)),
            "entry": Out(table_write_layout()),
            "layer": Out(8),
        }
    )


def output_signature(n: int) -> wiring.Signature:
    """Pixels that leave the engine, or are seen on their way.

    Members
    -------
    results : Out(stream)  N bytes; the issue stage makes sure that there is room
    released : Out(2)  results that have left or were dropped in this cycle: 0, 1 or 2
    soon : Out(1)  in the next cycle no word of an input is to be taken: it would meet a pixel
    trace : Out(trace_layout(n))  all pixels and input words
    """
    return wiring.Signature(
        {
            "results": Out(stream.Signature(8 * n)),
            "released": Out(2),
            "soon": Out(1),
            "trace": Out(trace_layout(n)),
        }
    )


def datapath_ports(geometry: spec.Geometry) -> dict[str, wiring.Member]:
    """Members of a datapath: words and their addresses in, pixels out.

    Members
    -------
    issued : In(issued_signature(n))  of the issue stage
    address : In  byte address in the banks, ``front.address`` cycles after the word
    access : In(ACCESS)  with ``address``
    accepted : In(1)  static; until then the accumulators are cleared
    reset : In(1)  the reset on its way from the blocks in front, see ``ResetWay``
    output : Out(output_signature(n))  pixels
    side : In((S - 1) x word_bits)  words of lanes from 1 on, see WeightMemory; with S > 1, as are
    origins : In(origins_layout)  see FilterLanes
    own_address : Out  byte address of lane 0 as a filter, see AddressGenerator
    """
    n, width = geometry.n, ceil_log2(geometry.bank_words * geometry.n)
    filters = {
        "side": In(data.ArrayLayout(geometry.word_bits, geometry.s - 1)),
        "origins": In(origins_layout(width)),
        "own_address": Out(width),
    }
    return {
        "issued": In(issued_signature(n)),
        "address": In(width),
        "access": In(ACCESS),
        "accepted": In(1),
        "reset": In(1),
        "output": Out(output_signature(n)),
        **(filters if geometry.s > 1 else {}),
    }


@dataclass(frozen=True, kw_only=True)
class Front:
    """The blocks in front of a datapath: many registers for a high clock, or few cells.

    Words issue in the same cycles in all engines: only the time from there to the result differs.

    Parameters
    ----------
    scrub : the loader walks over the weight memory as long as the engine runs
    block_queue : the fetcher's queue is in block RAM
    rotate : cycles from a word of the weight memory to that queue, 1 or 2
    issue : cycles from the issue of a word to ``issued.word``, 0 or 1
    address : cycles from ``issued.word`` to ``address`` and ``access``, 3 or 4
    """

    scrub: bool
    block_queue: bool
    rotate: int
    issue: int
    address: int


FAST = Front(scrub=True, block_queue=False, rotate=2, issue=1, address=4)
COMPACT = Front(scrub=False, block_queue=True, rotate=1, issue=0, address=3)

"""The contract between compiler, golden model and hardware: geometry, stream fields, timing.

Standard library only. Everything that two of the three must agree on is here and nowhere else;
``stream.md`` is the prose that goes with it.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

# --- image header ---------------------------------------------------------------------------

MAGIC = b"SECT"
VERSION = 4
#: magic, version, N, P, features, words, bank_words, cycles, CRC-32; little-endian.
HEADER = struct.Struct("<4sBBBBIIII")
#: Byte offset of the CRC-32 field. The CRC covers all ``words * (N + 1)`` bytes with this field 0.
HEADER_CRC_OFFSET = HEADER.size - 4


def crc_of(image: bytes) -> int:
    """The CRC-32 in the header of an image."""
    return int.from_bytes(image[HEADER_CRC_OFFSET : HEADER.size], "little")


def pack_features(tables: int, s: int) -> int:
    """The header's features: least number of tables, and log2 of the S that layers need."""
    return tables | (s.bit_length() - 1) << 4


def unpack_features(features: int) -> tuple[int, int]:
    """Tables and S of the header's features."""
    return features & 0xF, 1 << (features >> 4)


# --- arithmetic -----------------------------------------------------------------------------

ACC_BITS = 24  # accumulators, two's complement
BIAS_BITS = 13  # signed, in units of 2**-BIAS_FRACTION of an output code
BIAS_FRACTION = 3
SHIFT_DELTA_BITS = 3  # per lane, added to the layer's SHIFT_BASE
SHIFT_BASE_BITS = 5
SHIFT_LIMIT = (1 << SHIFT_BASE_BITS) - 1  # largest SHIFT_BASE
SHIFT_SPAN = (1 << SHIFT_DELTA_BITS) - 1  # largest difference of two lanes' shifts
BIAS_LIMIT = 1 << (BIAS_BITS - 1)  # biases are -BIAS_LIMIT..BIAS_LIMIT - 1
UNIT_LIMIT = 6  # largest power of two in a signed weight byte
WSHIFT = 4  # a source with its WSHIFT flag multiplies by weight << WSHIFT

#: Words of the largest map: their numbers have 16 bits. A layer writes none of them twice.
MAP_WORDS = 1 << 16

# --- stream words ---------------------------------------------------------------------------
# A word is N lane bytes, lane 0 first, then one common byte (the most significant).

COMMON_START = 0x80  # configuration word: the layer begins after it; row headers follow
COMMON_LOAD = 0x40  # configuration word: take GX input words from the host; configuration follows
COMMON_AHEAD = 0xC0  # both: the layer begins; from it on, words of the next input are taken
COMMON_REGISTER = 0x3F  # configuration word: index of the first register that it writes
#: Indices past the registers: N entries of a table, at byte address TABLE, which moves on by N;
#: and the mark after which every inference but the first begins.
INDEX_TABLE = 0x20
INDEX_LOOP = 0x21

ROW_LAST = 0x80  # second header word: last row of the layer
ROW_COUNT_BITS = 15  # words of the body: 8 bits in the first header word, 7 in the second
ROW_TABLE_COUNT_BITS, ROW_TABLE = 12, 4  # with FLAG2_TABLES, and the lowest bit of the table there

# Common byte of a body word: how the address moves before the access.
STEP_ADD_LIMIT = 0x80  # 0x00-0x7f: cur += step
STEP_ROW = 0x80  # 0x80-0xbf: kernel_row += KR; cur = kernel_row + (step & STEP_FIELD)
STEP_SOURCE = 0xC0  # 0xc0-0xff: source B; kernel_row = cur = origin B + (step & STEP_FIELD)
STEP_FIELD = 0x3F
# Steps count bytes in broadcast mode and words of N bytes in the lane-wise modes.

#: A row body shorter than this is padded with zero words: the fetcher learns the length of a row
#: that long before it has to turn back.
MIN_ROW_WORDS = 8


class Reg(enum.IntEnum):
    """16-bit configuration registers. A configuration word writes N/2 consecutive ones.

    The order is the one that, over the layers of residual networks, needs the fewest words:
    what changes together stands together.
    """

    OFF_PC = 0  # lane columns, for the window offsets of the output tensor
    OFF_DC = 1  # window offset in words per lane column
    OFF_DR = 2  # window offset in words per lane row
    GX = 3  # groups along x (or input words of a LOAD)
    D_PR = 4  # step of the drain walk per lane row, in words, modulo 2**16
    OUT_BASE = 5  # word address in the output map of the first pixel of row 0
    B_SX = 6  # source B: as A_SX
    B_BASE = 7  # source B: as A_BASE
    B_SY = 8  # source B: as A_SY
    A_SZ = 9  # bytes that source A moves from one pass to the next
    LANES = 10  # pixel lanes drained per group
    GZ = 11  # passes over the body that accumulate into one group
    FLAGS = 12  # FLAG_*
    A_BASE = 13  # local byte address of source A for the first group
    OUT_W = 14  # first word of the output tensor's window in every bank
    OUT_S = 15  # words in that window; 0: no bank accepts
    A_KR = 16  # source A: bytes from one kernel row to the next
    B_KR = 17  # source B: as A_KR
    D_PC = 18  # as D_PR, per lane column
    FLAGS2 = 19  # FLAG2_*
    PR = 20  # drain walk: steps of the outer level
    PC = 21  # drain walk: steps of the inner level
    CLIP = 22  # low byte: lower bound, high byte: upper bound (codes)
    D_GX = 23  # as D_PR, per group along x
    GY = 24  # group rows
    D_GY = 25  # as D_PR, per group row
    A_SX = 26  # source A: bytes from one group to the next along x
    A_SY = 27  # source A: bytes from one group row to the next
    CLAST = 28  # groups along x whose last lane column exists; or lane columns; or last rows
    RLAST = 29  # group rows whose last lane row exists
    TABLE = 30  # byte address of the next table entry: 256 * table + code


REGISTERS = 32  # the file is padded so that any word may start at any register

# FLAGS
FLAG_A_MODE = 0  # bits 1:0, the Mode of source A
FLAG_B_MODE = 2  # bits 3:2, the Mode of source B
FLAG_A_SIGNED = 4  # source A's bytes are signed
FLAG_B_SIGNED = 5  # source B: as FLAG_A_SIGNED
FLAG_A_ROWSTEP = 6  # source A moves by N bytes from one row to the next
FLAG_B_ROWSTEP = 7  # source B: as FLAG_A_ROWSTEP
FLAG_A_WSHIFT = 8  # source A's weights are multiplied by 2**WSHIFT
FLAG_B_WSHIFT = 9  # source B: as FLAG_A_WSHIFT
FLAG_LINEAR = 10  # the drain walk is linear, else in tiles
FLAG_RESULT = 11  # drained pixels go to the result stream, not to the banks
FLAG_CLEAR = 12  # START first fills the output window with the fill byte
FLAG_FILL = 13  # the fill byte is 0x80 (else 0x00)
FLAG_OUT_SIGNED = 14  # CLIP's bounds and the output codes are signed

# FLAGS2
FLAG2_SHIFT_BASE = 0  # bits 4:0, the shift of a lane whose delta is 0
FLAG2_TABLE = 5  # bits 7:5, the table that codes go through
FLAG2_LOOKUP = 8  # codes go through a table
FLAG2_MORE = 9  # with FLAG_RESULT: another layer with results follows, the inference goes on
FLAG2_FILTERS = 10  # the lanes are filters: S rows of one pixel side by side
FLAG2_TABLES = 11  # with LOOKUP: codes go through the table that their row names

TABLE_ENTRIES = 256
MAX_TABLES = 8


class Mode(enum.IntEnum):
    """How a source's activation word meets the N weights."""

    BROADCAST = 0  # one byte for all lanes
    LANEWISE = 1  # lane n takes byte n
    MAXIMUM = 2  # lane-wise; the operand is the running maximum of the pass so far
    GATE = 3  # lane-wise, source A only: the operand is also the weight of the words of source B


# --- status ---------------------------------------------------------------------------------


class Status(enum.IntEnum):
    """``status.state`` of the engine."""

    LOADING = 0  # waits for image bytes
    CHECKING = 1  # reads the weight memory and verifies header and CRC
    WAITING = 2  # image accepted; waits for an input tensor
    RUNNING = 3  # an inference runs
    ERROR = 4  # see status.error; only a reset leaves this state


class Error(enum.IntEnum):
    """``status.error`` of the engine and the reason for which the host refuses an image."""

    NONE = 0  # no error
    MAGIC = 1  # the magic differs
    VERSION = 2  # the version differs
    GEOMETRY = 3  # N, P or S differ, or tables exceed the engine's
    LENGTH = 4  # words exceed the weight memory, or do not cover the header
    BANK = 5  # bank_words exceed the banks
    CRC = 6  # the CRC-32 differs
    ROW = 7  # a row body shorter than MIN_ROW_WORDS, or a zero count in GX, GY, GZ, LANES
    WATCHDOG = 8  # more cycles than the header allows
    SOURCE = 9  # the source of the ring has failed


# --- geometry -------------------------------------------------------------------------------

ALLOWED_N = (2, 4, 8, 16)
MAX_P = 16
MAX_S = MIN_ROW_WORDS  # the drain of S filter lanes takes no longer than any row
#: Primitives of the Verilog: none, those of ECP5, none and RAMs as modules of their own, those of
#: iCE40 UltraPlus, or Gowin's multipliers.
FAMILIES = ("generic", "ecp5", "asic", "ice40", "gowin")


def _power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def words_of(data: bytes, size: int) -> list[int]:
    """Words of ``size`` bytes, the lowest byte first; what the last one lacks are zeros."""
    return [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Size of an array.

    Parameters
    ----------
    n : output-channel lanes: 2, 4, 8 or 16
    p : lanes: 1 to 16
    s : lanes that may be filters, and banks of the weight memory: 1, 2, 4 or 8, at most P
    weight_words : most words of an image, of N + 1 bytes; depth of the weight memory without a ring
    bank_words : depth of each activation bank, in words of N bytes; a power of two
    tables : tables of 256 codes for activation functions, 0 to 8
    extended : whether the lanes have the modes MAXIMUM and GATE
    ring : words of the ring that a source fills in every inference, a power of two; 0: no ring

    Raises
    ------
    ValueError : a size is out of range
    """

    n: int
    p: int
    weight_words: int
    bank_words: int
    tables: int = MAX_TABLES
    extended: bool = True
    s: int = 1
    ring: int = 0

    def __post_init__(self) -> None:
        if self.n not in ALLOWED_N:
            raise ValueError(f"n must be 2, 4, 8 or 16, not {self.n!r}")
        if not 1 <= self.p <= MAX_P:
            raise ValueError(f"p must be 1 to {MAX_P}, not {self.p!r}")
        words, banks, s = self.weight_words, self.bank_words, self.s
        if not (_power_of_two(s) and s <= min(self.p, MAX_S)):
            raise ValueError(f"s must be 1, 2, 4 or {MAX_S}, and at most p = {self.p}, not {s!r}")
        if not 64 <= words <= 1 << 20:
            raise ValueError(f"weight_words must be 64 to {1 << 20}, not {words!r}")
        if words % s:
            raise ValueError(f"weight_words must be a multiple of s = {s}, not {words!r}")
        if not (_power_of_two(banks) and banks >= 16):
            raise ValueError(f"bank_words must be a power of two from 16 on, not {banks!r}")
        if not 0 <= self.tables <= MAX_TABLES:
            raise ValueError(f"tables must be 0 to {MAX_TABLES}, not {self.tables!r}")
        if self.bank_words * self.n > 1 << 16:
            raise ValueError(
                f"bank_words * n must not exceed {1 << 16} bytes, not {self.bank_words * self.n!r}"
            )
        if self.ring and not (_power_of_two(self.ring) and 64 <= self.ring <= 1 << 16):
            raise ValueError(f"ring must be 0 or a power of two, 64 to 65536, not {self.ring!r}")

    @property
    def word_bytes(self) -> int:
        """Bytes of a stream word."""
        return self.n + 1

    @property
    def word_bits(self) -> int:
        """Bits of a stream word."""
        return 8 * (self.n + 1)

    @property
    def header_words(self) -> int:
        """Stream words that the image header takes."""
        return -(-HEADER.size // self.word_bytes)

    @property
    def multipliers(self) -> int:
        """Multipliers of the array."""
        return self.n * self.p


# --- timing: the cycles that the issue stage takes -------------------------------------------
# One stream word issues per cycle, but for the waits below. stream.md, "Cycles".


def load_tail(p: int) -> int:
    """Cycles from the last accepted input word to the next configuration word's issue."""
    return p + 2


def setup_cycles(p: int) -> int:
    """Cycles that START takes besides its own word: the registers settle, the layer is checked.

    The window offsets of the P banks are ready long before the first pixel is.
    """
    return 4


def clear_cycles(words: int) -> int:
    """Further cycles of a START with the CLEAR flag, for a window of ``words`` words."""
    return words


def tail_cycles(p: int, filters: bool = False) -> int:
    """Cycles from the issue of a layer's last word until the drain is idle.

    All its pixels have been written then. They end an inference; a CLEAR and a word of a table wait
    for that. The words of filter lanes come later.
    """
    return 2 * p + 24 + 4 * filters


def overlaps(p: int) -> bool:
    """Whether a layer is configured while the one before drains.

    The drain then has registers of its own. An engine of one or two lanes has few cells.
    """
    return p > 2


def front_cycles(p: int, filters: bool = False) -> int:
    """Cycles from the issue of a layer's last word to that of the next configuration word.

    The lanes have read the registers by then; filter lanes do so later, and their fetcher waits.
    """
    return p + 7 + 8 * filters if overlaps(p) else tail_cycles(p, filters)


def landing_cycles(p: int, filters: bool = False) -> int:
    """Least cycles from the issue of a layer's last word to that of the next header word.

    The first body word comes two cycles later. What it reads has been written, as every bank lags
    behind reads and writes alike; and the drain has its registers before the first group ends.
    """
    return max(p + 22, 2 * p + 13) + 4 * filters if overlaps(p) else tail_cycles(p, filters)


def filter_row_words(s: int) -> int:
    """Least body words, over all pixels and passes, of a row group of S rows.

    Its header words reach the drain one by one, two for each lane.
    """
    return max(MIN_ROW_WORDS, 2 * s - 2)


def table_cycles(n: int) -> int:
    """Further cycles of a configuration word that holds N entries of a table."""
    return n

"""Block RAMs of ECP5: parameters, pins and contents of a ``DP16KD``."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import ClockSignal, Const
from amaranth.utils import ceil_log2


def column_bits(depth: int) -> int:
    """Bits of a DP16KD's port in the widest mode that is deep enough.

    Raises
    ------
    ValueError : no mode has ``depth`` words
    """
    if depth > 16384:
        raise ValueError(f"depth must be at most 16384 words on ecp5, not {depth!r}")
    return {1024: 18, 2048: 9, 4096: 4, 8192: 2}.get(max(1024, 1 << ceil_log2(depth)), 1)


def shared(init: list[Const]) -> dict:
    """Parameters that both ports of a DP16KD have in common; ``init`` are the INITVALs."""
    ports = {"p_GSR": "DISABLED", "p_RESETMODE": "SYNC"}
    return ports | {f"p_INITVAL_{index:02X}": value for index, value in enumerate(init)}


def port(name: str, bits: int, address, *, write_en=0, data_in=None, data_out=None) -> dict:
    """Parameters and pins of a port of a DP16KD; one that reads has its output register.

    Parameters
    ----------
    name : "A" or "B"
    bits : width of the mode, see ``column_bits``
    address : of a word
    write_en : a signal, or 0 for a port that only reads
    data_in, data_out : signals of at most ``bits`` bits, or None

    Returns
    -------
    dict : keyword arguments of an ``Instance``
    """
    low = {18: 4, 9: 3, 4: 2, 2: 1, 1: 0}[bits]
    ports = {
        f"p_DATA_WIDTH_{name}": bits,
        f"p_REGMODE_{name}": "NOREG" if data_out is None else "OUTREG",
        f"p_WRITEMODE_{name}": "NORMAL",
        f"p_CLK{name}MUX": f"CLK{name}",
        f"i_CLK{name}": ClockSignal(),
        f"i_CE{name}": 1,
        f"i_OCE{name}": 1,
        f"i_RST{name}": 0,
        f"i_WE{name}": write_en,
    }
    ports |= {f"p_CSDECODE_{name}": "0b000"} | {f"i_CS{name}{bit}": 0 for bit in range(3)}
    for bit in range(14):
        inside = 0 <= bit - low < len(address)
        enable = bits == 18 and name == "A" and bit < 2  # byte enables
        ports[f"i_AD{name}{bit}"] = address[bit - low] if inside else write_en if enable else 0
    for bit in range(18):
        ports[f"i_DI{name}{bit}"] = 0 if data_in is None or bit >= len(data_in) else data_in[bit]
        if data_out is not None and bit < len(data_out):
            ports[f"o_DO{name}{bit}"] = data_out[bit]
    return ports


def block_fields(init: Sequence[int], bits: int, column: int, mask: int) -> list[int]:
    """The 1024 fields of 18 bits of a DP16KD that holds a column of the words.

    In widths of 4, 2 and 1 bits the 9th bit of each byte is unused.

    Parameters
    ----------
    init : words
    bits : width of the mode, see ``column_bits``
    column : first bit of the column in a word
    mask : ones in as many bits as the column has
    """
    words = [(word >> column) & mask for word in init]
    per_byte = 1 if bits >= 9 else 8 // bits
    fields = [0] * 1024
    for index, word in enumerate(words):
        if bits == 18:
            fields[index] = word
        else:
            byte, part = divmod(index, per_byte)
            fields[byte // 2] |= word << (9 * (byte % 2) + bits * part)
    return fields


def initval(init: Sequence[int], bits: int, column: int, mask: int) -> list[Const]:
    """The 64 INITVAL parameters of a DP16KD.

    Each has 16 fields of 20 bits, the low 18 of which are used.

    Parameters
    ----------
    init, bits, column, mask : as for ``block_fields``
    """
    fields = block_fields(init, bits, column, mask)
    return [
        Const(sum(f << (20 * i) for i, f in enumerate(fields[row * 16 : row * 16 + 16])), 320)
        for row in range(64)
    ]

"""The wires between the blocks of the engine."""

from __future__ import annotations

from amaranth.lib import data, enum

from secateur.hw import spec


class Kind(enum.Enum, shape=2):
    """What a stream word is."""

    CONFIG = 0
    HEAD_A = 1
    HEAD_B = 2
    BODY = 3


#: Tags that end something.
END_TAGS = ("pass_last", "group_last", "line_last", "row_last", "layer_last")


def word_layout(n: int) -> data.StructLayout:
    """A fetched word. The tags from ``pass_last`` on are those of body words, 0 in others.

    ``lanes`` of a configuration word are rotated so that register k stands at k mod N/2.
    """
    return data.StructLayout(
        {
            "lanes": data.ArrayLayout(8, n),
            "common": 8,
            "kind": Kind,
            "first": 1,  # BODY: of a pass; HEAD_B: the row is shorter than MIN_ROW_WORDS
            "pass_last": 1,
            "group_last": 1,
            "line_last": 1,  # last group along x, last pass, last word
            "row_last": 1,
            "layer_last": 1,
        }
    )


def writes_register(common, register: int, n: int):
    """Whether the configuration word with this common byte writes the register."""
    index = common[:6]
    return index.matches(*range(max(0, register - n // 2 + 1), register + 1))


#: How a word's operand is read; ``first`` is of a pass. Held, ``gated`` excepted, while no body
#: word comes.
ACCESS = data.StructLayout(
    {
        "broadcast": 1,
        "maximum": 1,
        "signed": 1,
        "wshift": 1,
        "first": 1,
        "latch": 1,  # the operand becomes the gate
        "gated": 1,  # the gate is the weight; not held
    }
)

#: Cycles from a word to its address and access: decode, base, adder, output register.
ADDRESS_LATENCY = 4

REGISTERS = data.ArrayLayout(16, spec.REGISTERS)


def write_layout(n: int) -> data.StructLayout:
    """The write bus. ``data`` come DATA_DELAY cycles after the rest, to a compact bank with it."""
    return data.StructLayout(
        {
            "valid": 1,
            "local": 1,  # m counts from the window's first word: a clear
            "m": 16,
            "data": data.ArrayLayout(8, n),
        }
    )


def host_layout(n: int) -> data.StructLayout:
    """A write by LOAD or CLEAR, all fields at the same time."""
    return write_layout(n)


def trace_layout(n: int) -> data.StructLayout:
    """Pixels and input words as they pass; ``layer`` counts STARTs since LOAD."""
    return data.StructLayout(
        {"valid": 1, "result": 1, "layer": 8, "m": 16, "data": data.ArrayLayout(8, n)}
    )


def table_write_layout() -> data.StructLayout:
    """One entry on its way into all memories: ``address`` is 256 * table + code."""
    return data.StructLayout({"valid": 1, "address": 16, "data": 8})

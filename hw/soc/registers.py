"""The register map: one source of the hardware, the C header and the documentation.

    python -m secateur.hw.soc.registers ROOT

writes ``docs/registers.md`` and ``boards/driver/c/secateur_registers.h`` below ROOT.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from secateur.hw.spec import MAGIC, VERSION, Error, Status

#: Version of this map; it changes when a register moves or means something else.
MAP_VERSION = 2
ADDRESS_BITS = 8  # of byte addresses
MARKDOWN, HEADER = Path("docs/registers.md"), Path("boards/driver/c/secateur_registers.h")


@dataclass(frozen=True)
class Field:
    """Bits of a register.

    Parameters
    ----------
    name : in capitals
    low : lowest bit
    width : bits
    text : meaning, for the documentation
    """

    name: str
    low: int
    width: int
    text: str

    @property
    def mask(self) -> int:
        """Its bits in the register."""
        return ((1 << self.width) - 1) << self.low


@dataclass(frozen=True)
class Register:
    """A register of 32 bits.

    Parameters
    ----------
    name : in capitals
    offset : byte address
    access : "r", "w" or "rw"
    text : meaning, for the documentation
    fields : named bits
    """

    name: str
    offset: int
    access: str
    text: str
    fields: tuple[Field, ...] = ()

    @property
    def width(self) -> int:
        """Bits up to the highest that is named; 32 if none is."""
        return max((part.low + part.width for part in self.fields), default=32)


REGISTERS = (
    Register(
        "ID", 0x00, "r", f"0x{int.from_bytes(MAGIC, 'little'):08x}: `{MAGIC.decode()}`, S first"
    ),
    Register(
        "VERSION",
        0x04,
        "r",
        "versions",
        (
            Field("IMAGE", 0, 8, f"of images that the engine takes: {VERSION}"),
            Field("MAP", 8, 8, f"of this map: {MAP_VERSION}"),
        ),
    ),
    Register(
        "GEOMETRY",
        0x08,
        "r",
        "the engine's size",
        (
            Field("N", 0, 8, "lanes of output channels; a word of a tensor has N bytes"),
            Field("P", 8, 8, "lanes of pixels"),
            Field("TABLES", 16, 8, "activation tables"),
            Field("ROM", 24, 1, "the image is in ROM, or in flash; nothing is to be loaded"),
            Field("S", 28, 4, "lanes that may be filters"),
        ),
    ),
    Register("WEIGHT_WORDS", 0x0C, "r", "depth of the weight memory, in words of N + 1 bytes"),
    Register("BANK_WORDS", 0x10, "r", "depth of each activation bank, in words of N bytes"),
    Register(
        "CONTROL",
        0x14,
        "w",
        "commands; the bus waits until the engine has executed them, about 80 cycles",
        (
            Field("RESET", 0, 1, "forget everything; load and check the image again"),
            Field("RESTART", 1, 1, "keep the image, forget everything else"),
        ),
    ),
    Register(
        "MODE",
        0x18,
        "rw",
        "0 after power-up",
        (
            Field(
                "REGISTERS",
                0,
                1,
                "1: tensors pass through INPUT and RESULT; 0: through the streams",
            ),
        ),
    ),
    Register(
        "RESULT_BEATS",
        0x1C,
        "rw",
        "beats of the result stream per inference, for `tlast`; write it while no inference runs: "
        "the next beat is the first of an inference",
        (Field("COUNT", 0, 24, "0, as after power-up: `tlast` is never set"),),
    ),
    Register(
        "STATUS",
        0x20,
        "r",
        "state of the engine",
        (
            Field("STATE", 0, 3, "; ".join(f"{s.value} {s.name.lower()}" for s in Status)),
            Field("ERROR", 4, 4, "; ".join(f"{e.value} {e.name.lower()}" for e in Error)),
            Field("INPUT_READY", 8, 1, "a write to INPUT is accepted"),
            Field("RESULT_VALID", 9, 1, "a read of RESULT is accepted"),
            Field("STREAM_VALID", 10, 1, "a beat of the result stream waits to be taken"),
            Field("UPSET", 11, 1, "the weight memory has changed since the image was accepted"),
        ),
    ),
    Register(
        "CYCLES",
        0x24,
        "r",
        "cycles of the last inference, without those in which the engine waited for the host",
    ),
    Register(
        "INFERENCES",
        0x28,
        "r",
        "inferences that have ended since the last command",
        (Field("COUNT", 0, 16, "modulo 2^16"),),
    ),
    Register(
        "IRQ_ENABLE",
        0x2C,
        "rw",
        "`irq` is high while an event that is enabled here is in IRQ_PENDING",
        (
            Field("DONE", 0, 1, "as below"),
            Field("STOPPED", 1, 1, "as below"),
            Field("UPSET", 2, 1, "as below"),
        ),
    ),
    Register(
        "IRQ_PENDING",
        0x30,
        "rw",
        "events since they were cleared; writing a 1 clears",
        (
            Field("DONE", 0, 1, "an inference has ended"),
            Field("STOPPED", 1, 1, "the engine has stopped for an error"),
            Field("UPSET", 2, 1, "the weight memory has changed since the image was accepted"),
        ),
    ),
    Register(
        "SCRUBS",
        0x34,
        "r",
        "walks over the weight memory that have ended since the image was accepted",
        (Field("COUNT", 0, 16, "modulo 2^16"),),
    ),
    Register(
        "IMAGE_CRC",
        0x38,
        "r",
        "the CRC-32 of the accepted image, that of its header. Refused while no image is accepted",
    ),
    Register(
        "MEMORY_WAIT",
        0x3C,
        "r",
        "cycles besides in which the last inference waited for words of the ring. Refused without "
        "a ring, as are the next three",
    ),
    Register("RING_WORDS", 0x4C, "r", "words of the ring"),
    Register(
        "SOURCE_BASE",
        0x50,
        "rw",
        "address of the image in memory, a multiple of 64. Write it while SOURCE_BYTES is 0",
    ),
    Register(
        "SOURCE_BYTES",
        0x54,
        "rw",
        "bytes of the image; 0, as after power-up: nothing is read. After another image: RESET",
    ),
    Register(
        "FLASH",
        0x58,
        "rw",
        "a write sends a byte to the flash of the image; a read, with HOLD, takes four, the first "
        "one lowest. The bus waits about 130 cycles. Refused without such a flash, as are the next "
        "three",
        (
            Field("BYTE", 0, 8, "what is sent; in a read part of what is taken"),
            Field("SEND", 8, 1, "BYTE is sent"),
            Field("SELECT", 9, 1, "from now on the flash is selected"),
            Field("HOLD", 10, 1, "from now on its lines are the host's: the image does not come"),
        ),
    ),
    Register("FLASH_CHOICE", 0x5C, "r", "address of the sector that says which image counts"),
    Register("FLASH_FIRST", 0x60, "r", "address of the first image"),
    Register("FLASH_SECOND", 0x64, "r", "address of the second image"),
    Register(
        "IMAGE",
        0x40,
        "w",
        "the next bytes of the image, those whose strobe is set, lowest first. They are dropped "
        "unless the engine loads, as are bytes past the image's end. The bus waits up to 5 cycles. "
        "Refused with a ring",
    ),
    Register(
        "INPUT",
        0x44,
        "w",
        "the next 4 bytes (N = 2: 2 bytes) of the input tensor, lane 0 lowest; all strobes set. "
        "Refused unless STATUS.INPUT_READY",
    ),
    Register(
        "RESULT",
        0x48,
        "r",
        "the next 4 bytes (N = 2: 2 bytes) of the result; a read takes them. Refused unless "
        "STATUS.RESULT_VALID",
    ),
)
#: Refused without a flash that holds two images.
OF_FLASH = ("FLASH", "FLASH_CHOICE", "FLASH_FIRST", "FLASH_SECOND")
#: Refused without a ring.
OF_RING = ("MEMORY_WAIT", "RING_WORDS", "SOURCE_BASE", "SOURCE_BYTES")
BY_NAME = {register.name: register for register in REGISTERS}


def field(register: str, name: str) -> Field:
    """The field ``name`` of the register of that name."""
    return next(field for field in BY_NAME[register].fields if field.name == name)


def markdown() -> str:
    """The map as a page of the documentation."""
    lines = [
        "# Registers",
        "",
        "Generated by `python -m secateur.hw.soc.registers`; do not edit.",
        "[The engine on a bus](reference/soc.md) describes",
        "their use. Registers have 32 bits; bits without a name read as zero. An access to any",
        "other address, a write to a read-only register (r) and a read of a write-only register",
        "(w) are refused: SLVERR on AXI, `wb_err` on Wishbone. Bytes whose strobe is not set are",
        "not written.",
        "",
        "| offset | register | access | bits | meaning |",
        "| --- | --- | --- | --- | --- |",
    ]
    for register in REGISTERS:
        lines.append(
            f"| 0x{register.offset:02x} | `{register.name}` | {register.access} | | "
            f"{register.text} |"
        )
        for part in register.fields:
            high = part.low + part.width - 1
            bits = f"{part.low}" if part.width == 1 else f"{high}:{part.low}"
            lines.append(f"| | `.{part.name}` | | {bits} | {part.text} |")
    return "\n".join([*lines, ""])


def header() -> str:
    """The map as a C header."""
    lines = [
        "/* The registers of the engine. Generated by `python -m secateur.hw.soc.registers`. */",
        "/* SPDX-License-Identifier: Apache-2.0 */",
        "#ifndef SECATEUR_REGISTERS_H",
        "#define SECATEUR_REGISTERS_H",
        "",
        f"#define SECATEUR_MAGIC 0x{int.from_bytes(MAGIC, 'little'):08x}u",
        f"#define SECATEUR_MAP_VERSION {MAP_VERSION}u",
        "",
        "/* Byte offsets; masks and lowest bits of fields. */",
    ]
    for register in REGISTERS:
        name = f"SECATEUR_{register.name}"
        lines.append(f"#define {name} 0x{register.offset:02x}u")
        for part in register.fields:
            lines.append(f"#define {name}_{part.name} 0x{part.mask:08x}u")
            lines.append(f"#define {name}_{part.name}_SHIFT {part.low}")
    for title, values in (("STATUS.STATE", Status), ("STATUS.ERROR", Error)):
        lines += ["", f"/* Values of {title}. */"]
        kind = title.rpartition(".")[2]
        lines += [f"#define SECATEUR_{kind}_{value.name} {value.value}u" for value in values]
    return "\n".join([*lines, "", "#endif", ""])


if __name__ == "__main__":
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    (root / MARKDOWN).write_text(markdown())
    (root / HEADER).write_text(header())

"""A board in software whose image is in a flash of two images, written from the data sheets.

The power may go while the flash erases or programs: what it was at then is neither old nor new.
"""

from __future__ import annotations

import random

from tests.boards.driver.model import Model

SECTOR, PAGE = 4096, 256
CHOICE, FIRST, SECOND, SIZE = 0x2000, 0x4000, 0x8000, 0x10000


class PowerCut(BaseException):
    """Nothing catches it: the host has lost the board."""


class Flash:
    """A chip of ``SIZE`` bytes. ``left``: changes until the power goes in the middle of one.

    ``stuck`` are addresses that stay as they are; ``name`` is what it calls itself.
    """

    def __init__(self, memory: bytes, seed: int = 0) -> None:
        self.memory, self.rng = bytearray(memory.ljust(SIZE, b"\xff")), random.Random(seed)
        self.left: int | None = None
        self.changes = self.busy = 0
        self.enabled = False
        self.stuck: set[int] = set()
        self.name = b"\xef\x40\x10"
        self.sent = bytearray()
        self.asleep = True

    def selected(self, now: bool) -> None:
        if now:
            return
        sent, self.sent = bytes(self.sent), bytearray()
        if not sent or (self.asleep and sent != b"\xab"):
            return
        command, address = sent[0], int.from_bytes(sent[1:4], "big")
        assert not self.busy or command == 0x05, "a command while it is busy"
        if command == 0xAB:
            self.asleep = False
        elif command == 0x06:
            self.enabled = True
        elif command == 0x20 and self.enabled and len(sent) == 4:
            begin = address // SECTOR * SECTOR
            self.change({at: 0xFF for at in range(begin, begin + SECTOR)})
        elif command == 0x02 and self.enabled and len(sent) > 4:
            page = address // PAGE * PAGE
            data = {page + (address + i) % PAGE: byte for i, byte in enumerate(sent[4:])}
            self.change({at: self.memory[at] & byte for at, byte in data.items()})

    def change(self, new: dict[int, int]) -> None:
        """Bytes by address; when the power goes, each bit is what it was, will be, or anything
        where it changes."""
        self.enabled, self.busy = False, self.rng.randrange(40)
        self.changes += 1
        if self.left is not None:
            self.left -= 1
        for at, byte in new.items():
            if at in self.stuck:
                continue
            if self.left == 0:
                byte ^= (byte ^ self.memory[at]) & self.rng.randrange(256)
            self.memory[at] = byte
        if self.left == 0:
            raise PowerCut

    def give(self) -> int:
        """The next byte, in a transfer whose first bytes have been sent."""
        command, position = self.sent[0], len(self.sent)
        self.sent.append(0)
        if command == 0x05:
            self.busy = max(0, self.busy - 1)
            return int(self.busy > 0)
        if self.asleep or command not in (0x03, 0x9F):
            return 0xFF
        if command == 0x9F:
            return self.name[position - 1] if position <= len(self.name) else 0
        at = int.from_bytes(self.sent[1:4], "big") + position - 4
        return self.memory[at % SIZE]


class Board(Model):
    """The device behind its link: an engine that takes the image which counts."""

    def __init__(self, flash: Flash, seed: int = 0) -> None:
        self.flash = flash
        self.held = self.select = False
        super().__init__(seed=seed, rom=b"\xff" * 64)

    def reset(self) -> None:
        """What the reader does: bytes of the choice until the first that is blank."""
        assert not self.flash.busy, "it is read while it is busy"
        choice = self.flash.memory[CHOICE : CHOICE + SECTOR]
        at = SECOND if choice.index(0xFF) % 2 else FIRST
        self.rom = bytes(self.flash.memory[at : at + 2 * SECTOR])
        super().reset()

    def put(self, offset: int, word: bytes) -> bool:
        if offset != 0x58:
            return super().put(offset, word)
        value = int.from_bytes(word, "little")
        self.held, select = bool(value >> 10 & 1), bool(value >> 9 & 1)
        if select != self.select:
            self.select = select
            self.flash.selected(select)
        if value >> 8 & 1 and self.select:
            self.flash.sent.append(value & 0xFF)
        return True

    def get(self, offset: int) -> bytes | None:
        if offset == 0x58:
            return bytes(self.flash.give() for _ in range(4)) if self.held else None
        known = {0x5C: CHOICE, 0x60: FIRST, 0x64: SECOND}
        return known[offset].to_bytes(4, "little") if offset in known else super().get(offset)

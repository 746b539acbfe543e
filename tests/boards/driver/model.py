"""A device in software, written from ``link.md`` and ``docs/registers.md``, and a bad line.

Its engine is no array: a result is a hash of the image and the input, so that any byte that is
lost, doubled or wrong anywhere gives another result.
"""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from dataclasses import dataclass

N, P, WEIGHT_WORDS, BANK_WORDS, TABLES = 8, 3, 512, 256, 4
INPUT_WORDS, BEATS = 20, 12
HEADER = struct.Struct("<4sBBBBIIII")
LOADING, WAITING, RUNNING, ERROR = 0, 2, 3, 4


def make_image(seed: int, words: int = 40, **fields: int) -> bytes:
    """An image with a right CRC; ``fields`` override n, p, tables, bank_words or cycles of its
    header."""
    body = random.Random(seed).randbytes(words * (N + 1) - HEADER.size)
    n, p = fields.get("n", N), fields.get("p", P)
    tables, bank = fields.get("tables", 1), fields.get("bank_words", 64)
    head = [
        b"SECT",
        fields.get("version", 4),
        n,
        p,
        tables,
        words,
        bank,
        fields.get("cycles", 1000 + seed),
    ]
    crc = zlib.crc32(HEADER.pack(*head, 0) + body)
    return HEADER.pack(*head, crc) + body


def expected(image: bytes, inputs: bytes) -> tuple[bytes, int]:
    """Results and cycles of an inference."""
    seed = hashlib.sha256(image + inputs).digest()
    return (seed * BEATS)[: N * BEATS], HEADER.unpack_from(image)[7]


@dataclass
class Noise:
    """Shares of bytes, on both ways, that are changed, lost, or sent twice; and how often the line
    is dead for a while."""

    flip: float = 0.0
    lose: float = 0.0
    double: float = 0.0
    cut: float = 0.0


class Model:
    """A port with the device behind it. Faults: without ``checks`` it takes frames with any CRC,
    without ``remembers`` it executes a repeated request again."""

    def __init__(
        self, noise: Noise | None = None, seed: int = 0, *, checks=True, remembers=True, rom=b""
    ) -> None:
        self.noise, self.rng = noise or Noise(), random.Random(seed)
        self.checks, self.remembers, self.rom = checks, remembers, rom
        self.dead = 0  # bytes that are still to be lost
        self.line, self.out = bytearray(), bytearray()
        self.last: tuple[int, bytes] | None = None
        self.requests = 0
        self.mode = self.upset = 0
        self.reset()

    # the port

    @property
    def in_waiting(self) -> int:
        return len(self.out)

    def read(self, size: int) -> bytes:
        part = bytes(self.out[:size])
        del self.out[:size]
        return part

    def reset_input_buffer(self) -> None:
        self.out.clear()

    def write(self, data: bytes) -> int:
        for byte in self.noisy(data):
            self.take(byte)
        return len(data)

    def noisy(self, data: bytes) -> bytes:
        found = bytearray()
        for byte in data:
            if self.rng.random() < self.noise.cut:
                self.dead = self.rng.randrange(1, 200)
            if self.dead:
                self.dead -= 1
                continue
            dice = self.rng.random()
            if dice < self.noise.lose:
                continue
            dice -= self.noise.lose
            if dice < self.noise.double:
                found.append(byte)
            elif dice < self.noise.double + self.noise.flip:
                byte ^= self.rng.randrange(1, 256)
            found.append(byte)
        return bytes(found)

    # the link

    def take(self, byte: int) -> None:
        if byte != 0xC0:
            self.line.append(byte)
            return
        whole, self.line = bytes(self.line), bytearray()
        whole = whole.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")
        content, crc = whole[:-4], whole[-4:]
        if len(content) < 3 or (self.checks and zlib.crc32(content).to_bytes(4, "little") != crc):
            return
        number, second, count = content[:3]
        words = [content[at : at + 4] for at in range(3, len(content), 4)]
        if count > 16 or len(content) != 3 + (4 * count if second & 0x80 else 0):
            return
        if self.remembers and not second & 0x40 and self.last and self.last[0] == number:
            return self.answer(self.last[1])
        done, gave, refused = 0, b"", 0
        while done < count and not refused:
            offset = (second & 0x3F) << 2
            if second & 0x80:
                refused = 0 if self.put(offset, words[done]) else 0x40
            else:
                value = self.get(offset)
                refused = 0x40 if value is None else 0
                gave += value or b""
            done += not refused
        answer = bytes([number, second, 0x80 | refused | done]) + gave
        self.last = (number, answer)
        self.requests += 1
        self.answer(answer)

    def answer(self, content: bytes) -> None:
        whole = content + zlib.crc32(content).to_bytes(4, "little")
        whole = whole.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc")
        self.out += self.noisy(b"\xc0" + whole + b"\xc0")

    # the registers and the engine

    def reset(self) -> None:
        self.image, self.state, self.error = bytearray(self.rom), LOADING, 0
        self.restart()
        self.judge()

    def restart(self) -> None:
        self.inputs, self.results = bytearray(), bytearray()
        self.cycles = self.inferences = 0

    def judge(self) -> None:
        if self.state != LOADING or len(self.image) < HEADER.size:
            return
        magic, version, n, p, _, words, *_, crc = HEADER.unpack_from(self.image)
        wrong = [magic != b"SECT", version != 4, (n, p) != (N, P), words > WEIGHT_WORDS]
        if any(wrong):
            self.state, self.error = ERROR, 1 + wrong.index(True)
        elif len(self.image) >= words * (N + 1):
            del self.image[words * (N + 1) :]
            good = zlib.crc32(self.image[:20] + bytes(4) + self.image[24:]) == crc
            self.state, self.error = (WAITING, 0) if good else (ERROR, 6)

    def put(self, offset: int, word: bytes) -> bool:
        if offset == 0x14:
            if word[0] & 1:
                self.reset()
            elif word[0] & 2:
                self.restart()
        elif offset == 0x18:
            self.mode = word[0] & 1
        elif offset == 0x40:
            if self.state == LOADING:
                self.image += word
                self.judge()
        elif offset == 0x44 and self.mode and self.state == WAITING and not self.results:
            # a pause now and then: the engine is busy
            if self.rng.random() < 0.05:
                return False
            self.inputs += word
            if len(self.inputs) == INPUT_WORDS * N:
                result, self.cycles = expected(bytes(self.image), bytes(self.inputs))
                self.results += result
                self.inputs.clear()
        else:
            return False
        return True

    def get(self, offset: int) -> bytes | None:
        state = RUNNING if self.results else self.state
        status = state | self.error << 4 | bool(self.results) << 9 | self.upset << 11
        constant = {
            0x00: int.from_bytes(b"SECT", "little"),
            0x04: 1 | 2 << 8,
            0x08: N | P << 8 | TABLES << 16 | bool(self.rom) << 24 | 1 << 28,
            0x0C: WEIGHT_WORDS,
            0x10: BANK_WORDS,
            0x18: self.mode,
            0x1C: 0,
            0x20: status,
            0x24: self.cycles,
            0x28: self.inferences,
            0x2C: 0,
            0x30: 0,
        }
        if offset == 0x38:
            return bytes(self.image[20:24]) if state in (WAITING, RUNNING) else None
        if offset == 0x48:
            if not self.results or self.rng.random() < 0.05:
                return None
            word, self.results = self.results[:4], self.results[4:]
            self.inferences = (self.inferences + (not self.results)) % 65536
            return bytes(word)
        return constant[offset].to_bytes(4, "little") if offset in constant else None

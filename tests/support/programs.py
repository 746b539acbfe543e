"""Seeded random programs for the array, made by a small assembler of their own.

Independent of the compiler (``sw/``) and of the engine. A program is valid: it begins with a LOAD,
ends with a layer of results, writes every register it uses, and no layer reads its own output
window. Only the header's cycle count is taken from the golden interpreter.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

import numpy as np

from secateur.hw import spec
from secateur.hw.spec import Geometry, Mode, Reg
from secateur.sim.golden import parse

UNLIMITED = (1 << 32) - 1


@dataclass(frozen=True)
class Sample:
    """A random program: its image and the input words of N bytes that it takes."""

    geometry: Geometry
    image: bytes
    input_words: int
    seed: int

    def inputs(self, batch: int, seed: int = 0) -> np.ndarray:
        """Random input tensors, uint8 (batch, input_words * N), a third of them zeros."""
        rng = np.random.default_rng((self.seed, seed))
        shape = (batch, self.input_words * self.geometry.n)
        data = rng.integers(0, 256, shape, dtype=np.uint8)
        extremes = np.array([0x00, 0x7F, 0x80, 0xFF], np.uint8)[rng.integers(0, 4, shape)]
        return np.choose(rng.integers(0, 3, shape), [data, extremes, np.zeros_like(data)])


def assemble(
    geometry: Geometry,
    program: list[bytes],
    *,
    cycles: int,
    bank_words: int | None = None,
    **header: int,
) -> bytes:
    """The image of a program; ``header`` overrides version, n, p or words before the CRC."""
    size = geometry.word_bytes
    assert all(len(word) == size for word in program)
    words = geometry.header_words + len(program)
    head = spec.HEADER.pack(
        spec.MAGIC,
        header.get("version", spec.VERSION),
        header.get("n", geometry.n),
        header.get("p", geometry.p),
        header.get("features", spec.pack_features(0, geometry.s)),
        header.get("words", words),
        geometry.bank_words if bank_words is None else bank_words,
        cycles,
        0,
    )
    return with_crc(head.ljust(geometry.header_words * size, b"\0") + b"".join(program))


def with_crc(image: bytes) -> bytes:
    """``image`` (without metadata) with its CRC field set right."""
    at = spec.HEADER_CRC_OFFSET
    blank = image[:at] + bytes(4) + image[at + 4 :]
    return blank[:at] + zlib.crc32(blank).to_bytes(4, "little") + blank[at + 4 :]


class Assembler:
    """Collects stream words; knows the register file as the array sees it."""

    def __init__(self, geometry: Geometry, rng: random.Random) -> None:
        self.geometry, self.rng, self.words = geometry, rng, list[bytes]()
        self.other = random.Random(rng.getstate()[1][0])  # of tables that rows name
        self.file: list[int | None] = [None] * spec.REGISTERS

    def configure(self, registers: dict[Reg, int], command: int) -> None:
        """Write what differs (and now and then what does not), then the command."""
        half, pending = self.geometry.n // 2, []
        new = list(self.file)
        for register, value in registers.items():
            new[register] = value & 0xFFFF
        index = 0
        while index < spec.REGISTERS:
            if new[index] != self.file[index] or self.rng.random() < 0.05:
                pending.append(index)
                index += half
            else:
                index += 1
        if not pending or self.rng.random() < 0.1:
            pending.append(self.rng.choice([0, 7, 24, 31, 34, 50, 63]))
        self.rng.shuffle(pending)
        for place, index in enumerate(pending):
            values = []
            for i in range(index, index + half):
                value = new[i] if i < spec.REGISTERS else None
                values.append(self.rng.randrange(1 << 16) if value is None else value)
                if i < spec.REGISTERS:
                    new[i] = values[-1]
            lanes = b"".join(value.to_bytes(2, "little") for value in values)
            common = index | (command if place == len(pending) - 1 else 0)
            self.words.append(lanes + bytes([common]))
        self.file = new

    def tables(self, count: int) -> None:
        """``count`` random entries, a multiple of N, at the TABLE register."""
        for _ in range(count // self.geometry.n):
            self.words.append(self.rng.randbytes(self.geometry.n) + bytes([spec.INDEX_TABLE]))
        at = self.file[Reg.TABLE] or 0
        self.file[Reg.TABLE] = at + count

    def loop(self) -> None:
        """The mark after which later inferences begin; its lanes mean nothing."""
        self.words.append(self.rng.randbytes(self.geometry.n) + bytes([spec.INDEX_LOOP]))

    def row(
        self,
        bias: list[int],
        delta: list[int],
        body: list[tuple[list[int], int]],
        last: bool,
        tables: int = 1,
    ) -> None:
        """A row of (N weights, common byte) body words; it may name one of some tables."""
        count = len(body)
        if (self.file[Reg.FLAGS2] or 0) >> spec.FLAG2_TABLES & 1:
            count |= self.other.randrange(tables) << spec.ROW_TABLE_COUNT_BITS
        self.words.append(bytes([b & 0xFF for b in bias] + [count & 0xFF]))
        lanes = [(b >> 8 & 0x1F) | d << 5 for b, d in zip(bias, delta, strict=True)]
        self.words.append(bytes([*lanes, count >> 8 | (spec.ROW_LAST if last else 0)]))
        self.words += [bytes([w & 0xFF for w in weights] + [step]) for weights, step in body]


def random_geometry(seed: int) -> Geometry:
    rng = random.Random(seed)
    n = rng.choice([2, 4, 4, 8, 8, 16])
    p = rng.choice([1, 2, 3, 3, 4, 4, 5, 8, rng.randint(1, 16)])
    return Geometry(n=n, p=p, weight_words=1024, bank_words=rng.choice([64, 128, 256]))


def random_program(
    seed: int,
    geometry: Geometry | None = None,
    *,
    layers: int = 4,
    several: bool = False,
    maker: type[Maker] | None = None,
) -> Sample:
    """A valid program of up to ``layers`` layers; the header holds the exact cycle count.

    With ``several``, layers before the last one may give results, too.
    """
    maker = maker or Maker
    geometry = random_geometry(seed) if geometry is None else geometry
    attempt = 0
    while True:
        rng = random.Random(f"{seed}.{attempt}")
        refills = random.Random(f"{seed}.{attempt}.refills")
        more = random.Random(f"{seed}.{attempt}.more") if several else None
        made = maker(geometry, rng, refills, more).program(rng.randint(1, layers))
        if made is not None and len(made[0]) + geometry.header_words <= geometry.weight_words:
            break
        attempt += 1
    words, input_words = made
    cycles = parse(assemble(geometry, words, cycles=UNLIMITED), geometry).cycles
    return Sample(geometry, assemble(geometry, words, cycles=cycles), input_words, seed)


def refilled_at_once(geometry: Geometry, layers: int = 4) -> Sample:
    """All pixels look up entry 0, and the word behind a layer's last writes it anew."""
    assembler = Assembler(geometry, random.Random(0))
    registers = dict.fromkeys(Reg, 0) | {Reg.OFF_PC: 1, Reg.OUT_S: 4}
    assembler.tables(spec.TABLE_ENTRIES)
    assembler.loop()
    assembler.configure(registers | {Reg.GX: 4}, spec.COMMON_LOAD)
    registers |= dict.fromkeys((Reg.GY, Reg.GZ, Reg.PR), 1) | {Reg.GX: 3, Reg.CLAST: 3}
    registers |= {Reg.PC: geometry.p, Reg.LANES: geometry.p, Reg.RLAST: 1, Reg.D_PC: 1}
    registers |= {Reg.CLIP: 0xFF00, Reg.FLAGS2: 1 << spec.FLAG2_LOOKUP}
    for index in range(layers):
        last = index == layers - 1
        changes = {Reg.OUT_W: 8 + index % 2, Reg.FLAGS: last << spec.FLAG_RESULT}
        assembler.configure(registers | changes, spec.COMMON_START)
        nothing = [0] * geometry.n
        assembler.row(nothing, nothing, [(nothing, 0)] * spec.MIN_ROW_WORDS, True)
        if not last:
            assembler.tables(geometry.n)
    image = assemble(geometry, assembler.words, cycles=10_000)
    return Sample(geometry, image, 4, 0)


class Maker:
    def __init__(
        self,
        geometry: Geometry,
        rng: random.Random,
        refills: random.Random,
        more: random.Random | None,
    ) -> None:
        self.geometry, self.rng, self.refills, self.more = geometry, rng, refills, more
        self.assembler = Assembler(geometry, rng)
        self.recent = 0  # a local word of the tensor written last
        self.filled = 0  # tables that have entries

    def program(self, layers: int) -> tuple[list[bytes], int] | None:
        taken, rng = 0, self.rng
        geometry = self.geometry
        if geometry.tables and rng.random() < 0.5:
            self.filled = rng.randint(1, min(geometry.tables, geometry.n // 2))
            self.assembler.tables(spec.TABLE_ENTRIES * self.filled)
            if rng.random() < 0.7:
                self.assembler.loop()
            self.assembler.configure({Reg.TABLE: 0}, 0)
        for _ in range(rng.choice([1, 1, 1, 2])):
            count = rng.randint(4, self.geometry.bank_words // 2)
            start = rng.randrange(self.geometry.bank_words)
            registers = self.window(start, rng.randint(count // 2, count)) | {Reg.GX: count}
            self.assembler.configure(registers, spec.COMMON_LOAD)
            taken, self.recent = taken + count, start
        for index in range(layers):
            self.refill()
            more = index < layers - 1 and self.more is not None and self.more.random() < 0.5
            if not self.layer(result=index == layers - 1 or more, more=more):
                return None
        return self.assembler.words, taken

    def refill(self) -> None:
        """Now and then, other entries in tables that are filled: some words, or a whole table."""
        rng, n = self.refills, self.geometry.n
        while self.filled and rng.random() < 0.4:
            count = n * rng.choice([1, 1, rng.randint(2, 8), spec.TABLE_ENTRIES // n])
            start = rng.randint(0, spec.TABLE_ENTRIES * self.filled - count)
            self.assembler.configure({Reg.TABLE: start}, 0)
            self.assembler.tables(count)
            self.assembler.configure({Reg.TABLE: 0}, 0)  # those at the start begin there

    def window(self, start: int, size: int) -> dict[Reg, int]:
        rng, p = self.rng, self.geometry.p
        return {
            Reg.OUT_W: start,
            Reg.OUT_S: size,
            Reg.OFF_PC: rng.choice([1, p, p + 1, rng.randint(1, p)]),
            Reg.OFF_DC: rng.choice([0, 1, 1, 2, -1, rng.randint(0, 8)]),
            Reg.OFF_DR: rng.choice([0, 1, 3, -2, rng.randint(0, 16)]),
        }

    def layer(self, *, result: bool, more: bool) -> bool:
        rng, geometry = self.rng, self.geometry
        linear, a_mode = rng.random() < 0.3, rng.choice([0, 0, 1, 1, 2, 3])
        a_mode = a_mode if geometry.extended else a_mode & 1
        b_mode = rng.choice([0, 1, 2] if a_mode == Mode.MAXIMUM else [0, 1])
        with_b = rng.random() < (0.9 if a_mode == Mode.GATE else 0.5)
        bits = rng.getrandbits(16) & ~(0xF | 1 << spec.FLAG_LINEAR | 1 << spec.FLAG_RESULT)
        flags = bits | a_mode | b_mode << spec.FLAG_B_MODE | linear << spec.FLAG_LINEAR
        flags |= result << spec.FLAG_RESULT
        registers = self.walk(linear, result) | self.sources(a_mode, b_mode)
        registers |= {Reg.FLAGS: flags, Reg.CLIP: self.clip(flags)}
        registers[Reg.FLAGS2] = rng.choice([0, 5, 7, 8, 9, 12, rng.randint(0, 31)])
        registers[Reg.FLAGS2] |= more << spec.FLAG2_MORE
        if self.filled and rng.random() < 0.5:
            table = rng.randrange(self.filled)
            registers[Reg.FLAGS2] |= 1 << spec.FLAG2_LOOKUP | table << spec.FLAG2_TABLE
            registers[Reg.FLAGS2] |= (self.assembler.other.random() < 0.7) << spec.FLAG2_TABLES
        bodies = [self.body(a_mode, with_b) for _ in range(rng.randint(1, 3))]
        window = self.free_window(self.reads(registers, bodies))
        if window is None:
            return False
        start, size = window
        self.assembler.configure(registers | self.window(start, size), spec.COMMON_START)
        for r, body in enumerate(bodies):
            bias = [rng.choice([0, rng.randint(-4096, 4095), -4096, 4]) for _ in body[0][0]]
            delta = [rng.choice([0, 0, 1, rng.randint(0, 7)]) for _ in bias]
            self.assembler.row(bias, delta, body, r == len(bodies) - 1, self.filled)
        self.recent = start
        return len(self.assembler.words) < geometry.weight_words

    def walk(self, linear: bool, result: bool) -> dict[Reg, int]:
        rng, p = self.rng, self.geometry.p
        least = int(result)
        registers = {Reg.GX: rng.randint(1, 4), Reg.GY: 1 if linear else rng.randint(1, 3)}
        registers[Reg.GZ] = rng.choice([1, 1, 1, 2, 3])
        if linear:
            registers[Reg.LANES], pc = rng.choice([p, rng.randint(1, p)]), rng.randint(1, 7)
            registers |= {Reg.PC: pc, Reg.PR: rng.randint(1, 6)}
            registers[Reg.CLAST] = rng.randint(least, pc)
        else:
            pc = rng.randint(1, p)
            pr = rng.randint(1, p // pc)
            registers |= {Reg.PC: pc, Reg.PR: pr, Reg.LANES: pr * pc}
            registers[Reg.CLAST] = rng.randint(least, registers[Reg.GX])
        registers[Reg.RLAST] = rng.randint(least, registers[Reg.GY])
        steps = (Reg.D_GX, Reg.D_GY, Reg.D_PR, Reg.D_PC)
        registers |= {step: rng.choice([0, 1, 2, -1, rng.randint(0, 12)]) for step in steps}
        registers[Reg.OUT_BASE] = rng.choice([0, 1, rng.randint(0, 20), -1])
        return registers

    def sources(self, a_mode: int, b_mode: int) -> dict[Reg, int]:
        rng, n = self.rng, self.geometry.n
        registers = {}
        for mode, names in (
            (a_mode, (Reg.A_BASE, Reg.A_KR, Reg.A_SX, Reg.A_SY, Reg.A_SZ)),
            (b_mode, (Reg.B_BASE, Reg.B_KR, Reg.B_SX, Reg.B_SY)),
        ):
            unit = n if mode != Mode.BROADCAST and rng.random() < 0.7 else 1
            base = self.recent * n + unit * rng.randint(0, 8)
            steps = [unit * rng.choice([0, 1, 2, 5, -1, -3]) for _ in names[1:]]
            registers |= dict(zip(names, [base, *steps], strict=True))
        return registers

    def clip(self, flags: int) -> int:
        low, high = (-128, 127) if flags >> spec.FLAG_OUT_SIGNED & 1 else (0, 255)
        if self.rng.random() < 0.3:
            low, high = sorted((self.rng.randint(low, high), self.rng.randint(low, high)))
        return (low & 0xFF) | (high & 0xFF) << 8

    def body(self, a_mode: int, with_b: bool) -> list[tuple[list[int], int]]:
        rng, n = self.rng, self.geometry.n
        count = rng.choice([8, 8, 9, rng.randint(8, 24), rng.randint(8, 60)])
        kind, body, source = rng.choice(["dense", "sparse", "extreme", "one"]), [], 0
        for _ in range(count):
            weights = [rng.randint(-128, 127) for _ in range(n)]
            if kind == "extreme":
                weights = [rng.choice([-128, 127]) for _ in range(n)]
            elif (kind == "sparse" and rng.random() < 0.7) or (kind == "one" and body):
                weights = [0] * n
            step = rng.choice([0, 1, 1, 1, 2, 3, rng.randint(0, 12)])
            chance = rng.random()
            if chance < 0.15:
                step = spec.STEP_ROW | rng.choice([0, 1, rng.randint(0, 12)])
            elif with_b and body and chance < 0.25 + 0.2 * source:
                step, source = spec.STEP_SOURCE | rng.choice([0, 1, rng.randint(0, 12)]), 1
            body.append((weights, step))
        if kind == "one" and a_mode != Mode.GATE:
            body.reverse()
        return body

    def reads(self, registers: dict[Reg, int], bodies: list) -> set[int]:
        """Local words that the layer reads, an upper set: row steps are taken both ways."""
        n, size, flags = self.geometry.n, self.geometry.bank_words, registers[Reg.FLAGS]
        starts = ([registers[Reg.A_BASE]], [registers[Reg.B_BASE]])
        for names in (
            ((Reg.GX, Reg.A_SX), (Reg.GY, Reg.A_SY), (Reg.GZ, Reg.A_SZ)),
            ((Reg.GX, Reg.B_SX), (Reg.GY, Reg.B_SY)),
        ):
            which = int(names[0][1] == Reg.B_SX)
            for count, step in names:
                at = starts[which]
                at[:] = {a + i * registers[step] for a in at for i in range(registers[count])}
        read = set[int]()
        for r, body in enumerate(bodies):
            source, cur, kernel_row = 0, 0, 0
            for _, step in body:
                if step >= spec.STEP_SOURCE:
                    source, kernel_row = 1, 0
                elif step >= spec.STEP_ROW:
                    kernel_row += registers[(Reg.A_KR, Reg.B_KR)[source]]
                unit = n if flags >> 2 * source & 3 else 1
                cur = cur + unit * step if step < 128 else kernel_row + unit * (step & 63)
                rowstep = r * n * (flags >> spec.FLAG_A_ROWSTEP + source & 1)
                read |= {(start + rowstep + cur) // n % size for start in starts[source]}
        return read

    def free_window(self, read: set[int]) -> tuple[int, int] | None:
        """Start and size of a random window in a gap between the words read."""
        size, rng = self.geometry.bank_words, self.rng
        free = [w for w in range(size) if w not in read]
        if not free:
            return None
        start, length = rng.choice(free), 1
        while length < size and (start + length) % size not in read:
            length += 1
        return start, rng.choice([length, rng.randint(0, length)])

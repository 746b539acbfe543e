"""Seeded random programs some of whose layers have filter lanes."""

from __future__ import annotations

from secateur.hw import spec
from secateur.hw.spec import Reg
from tests.support.programs import Maker


class FilterMaker(Maker):
    """As Maker; every other layer, roughly, has S filter lanes."""

    def layer(self, *, result: bool, more: bool) -> bool:
        if self.geometry.s == 1 or self.rng.random() < 0.4:
            return super().layer(result=result, more=more)
        rng, s = self.rng, self.geometry.s
        a_mode, b_mode, with_b = rng.randint(0, 1), rng.randint(0, 1), rng.random() < 0.5
        flags = rng.getrandbits(16) & ~(0xF | 1 << spec.FLAG_LINEAR | 1 << spec.FLAG_RESULT)
        flags |= a_mode | b_mode << spec.FLAG_B_MODE | result << spec.FLAG_RESULT
        registers = self.walk(False, result) | self.sources(a_mode, b_mode)
        registers |= {Reg.LANES: s, Reg.PC: s, Reg.PR: 1, Reg.CLAST: rng.randint(1, s)}
        registers |= {Reg.FLAGS: flags, Reg.CLIP: self.clip(flags)}
        registers[Reg.FLAGS2] = rng.choice([0, 5, 7, 8, rng.randint(0, 31)])
        registers[Reg.FLAGS2] |= more << spec.FLAG2_MORE | 1 << spec.FLAG2_FILTERS
        if self.filled and rng.random() < 0.5:
            table = rng.randrange(self.filled)
            registers[Reg.FLAGS2] |= 1 << spec.FLAG2_LOOKUP | table << spec.FLAG2_TABLE
            registers[Reg.FLAGS2] |= (self.assembler.other.random() < 0.7) << spec.FLAG2_TABLES
        pixels = registers[Reg.GX] * registers[Reg.GY] * registers[Reg.GZ]
        groups = [self.group(a_mode, with_b, pixels) for _ in range(rng.randint(1, 2))]
        window = self.free_window(self.flat_reads(registers, groups))
        if window is None:
            return False
        start, size = window
        self.assembler.configure(registers | self.window(start, size), spec.COMMON_START)
        while (self.geometry.header_words + len(self.assembler.words)) % s:
            self.assembler.words.append(rng.randbytes(self.geometry.word_bytes))
        for group in groups:
            self.write(group, last=group is groups[-1])
        self.recent = start
        return len(self.assembler.words) < self.geometry.weight_words

    def group(self, a_mode: int, with_b: bool, pixels: int) -> list[list[tuple[list[int], int]]]:
        """S bodies of one length."""
        bodies = [self.body(a_mode, with_b) for _ in range(self.geometry.s)]
        least = -(-spec.filter_row_words(self.geometry.s) // pixels)
        count = max(least, self.rng.choice([min, max])(map(len, bodies)))
        filler = ([0] * self.geometry.n, 0)
        return [([filler] * (count - len(body)) + body)[:count] for body in bodies]

    def write(self, group: list[list[tuple[list[int], int]]], last: bool) -> None:
        """A row group: rows one after the other, then all words of the same place together."""
        rng, words = self.rng, self.assembler.words
        begin = len(words)
        for body in group:
            bias = [rng.choice([0, rng.randint(-4096, 4095), -4096, 4]) for _ in body[0][0]]
            delta = [rng.choice([0, 0, 1, rng.randint(0, 7)]) for _ in bias]
            self.assembler.row(bias, delta, body, last, self.filled)
        rows = len(group[0]) + 2
        words[begin:] = [
            words[begin + s * rows + i] for i in range(rows) for s in range(len(group))
        ]

    def flat_reads(self, registers: dict[Reg, int], groups: list) -> set[int]:
        """Local words that the layer reads; moves to another kernel row go on from where it is."""
        n, kr = self.geometry.n, (registers[Reg.A_KR], registers[Reg.B_KR])
        read = set[int]()
        for index, group in enumerate(groups):
            for body in group:
                moves, source, at = [], 0, 0
                for _, step in body:
                    unit = n if registers[Reg.FLAGS] >> 2 * source & 3 else 1
                    if step >= spec.STEP_SOURCE:
                        source, at = 1, 0
                        unit = n if registers[Reg.FLAGS] >> 2 & 3 else 1
                    elif step >= spec.STEP_ROW:
                        at += kr[source]
                    at += unit * (step if step < spec.STEP_ADD_LIMIT else step & spec.STEP_FIELD)
                    moves.append((source, at))
                read |= self.words_at(registers, moves, index * self.geometry.s)
        return read

    def words_at(self, registers: dict[Reg, int], moves: list, row: int) -> set[int]:
        """Local words at (source, bytes from the origin), for all groups and passes."""
        n, size = self.geometry.n, self.geometry.bank_words
        loops = (
            (Reg.A_BASE, ((Reg.GX, Reg.A_SX), (Reg.GY, Reg.A_SY), (Reg.GZ, Reg.A_SZ))),
            (Reg.B_BASE, ((Reg.GX, Reg.B_SX), (Reg.GY, Reg.B_SY))),
        )
        read = set[int]()
        for which, (base, steps) in enumerate(loops):
            begin = registers[base]
            begin += row * n * (registers[Reg.FLAGS] >> spec.FLAG_A_ROWSTEP + which & 1)
            starts = {begin}
            for count, step in steps:
                starts = {a + i * registers[step] for a in starts for i in range(registers[count])}
            read |= {(a + to) // n % size for a in starts for s, to in moves if s == which}
        return read

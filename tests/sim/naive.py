"""A second, deliberately naive reading of stream.md: scalar loops, exact integers, Fractions.

Stands beside the golden interpreter to check it; walks the stream one word at a time, keeps the
banks as lists of bytes, and counts one cycle after the other.
"""

from __future__ import annotations

from fractions import Fraction

from secateur.hw import spec
from secateur.hw.spec import Geometry, Reg


def signed(value: int, bits: int) -> int:
    value %= 1 << bits
    return value - (1 << bits) if value >= 1 << (bits - 1) else value


class Machine:
    """Banks and registers after reset; ``infer`` runs one inference after the other."""

    def __init__(self, image: bytes, geometry: Geometry) -> None:
        size = geometry.word_bytes
        count = int.from_bytes(image[8:12], "little")
        self.words = [image[i * size : (i + 1) * size] for i in range(count)]
        self.geometry, self.n, self.p = geometry, geometry.n, geometry.p
        self.size = geometry.bank_words * geometry.n
        self.banks = [[0] * self.size for _ in range(self.p)]
        self.reg = [0] * 32
        self.table = [0] * (256 * geometry.tables)
        self.start = geometry.header_words

    def infer(self, data: bytes):
        """Returns ([(m, bytes)] by layer, cycles by layer, cycles in all)."""
        self.at, now, taken, last, began, lag = self.start, 0, 0, -1000, 0, 0
        layers, counts = [], []
        while True:
            while True:
                word = self.take()
                if word[-1] == 32:
                    now = max(now, last + 2 * self.p + 24 + lag)
                now += 1
                for i in range(self.n // 2):
                    index = (word[-1] & 0x3F) + i
                    if index < 32:
                        self.reg[index] = word[2 * i] + 256 * word[2 * i + 1]
                if word[-1] & 0x3F == 33:
                    self.start = self.at
                if word[-1] == 32:
                    for entry in word[:-1]:
                        self.table[self.reg[Reg.TABLE]] = entry
                        self.reg[Reg.TABLE] += 1
                        now += 1
                if word[-1] >= 0x40:
                    break
            if word[-1] & 0x40:
                for i in range(self.reg[Reg.GX]):
                    self.write(i, data[taken * self.n : (taken + 1) * self.n])
                    taken += 1
                now = began = spec.load_tail(self.p)
                continue
            now += spec.setup_cycles(self.p)
            if self.flag(spec.FLAG_CLEAR):
                if self.reg[Reg.OUT_S]:
                    now = max(now, last + 2 * self.p + 24 + lag)
                for i in range(self.reg[Reg.OUT_S]):
                    at = (self.reg[Reg.OUT_W] + i) * self.n
                    for bank in self.banks:
                        for n in range(self.n):
                            bank[(at + n) % self.size] = 128 * self.flag(spec.FLAG_FILL)
                    now += 1
            while self.p > 2 and now < last + lag + max(self.p + 22, 2 * self.p + 13):
                now += 1
            filters = self.reg[Reg.FLAGS2] // 1024 % 2
            pixels, last = self.filters(now) if filters else self.layer(now)
            lag = 4 * filters
            layers.append(pixels)
            now = last + (self.p + 7 + 2 * lag if self.p > 2 else 2 * self.p + 24 + lag)
            ends = self.flag(spec.FLAG_RESULT) and not self.reg[Reg.FLAGS2] // 512 % 2
            if ends:
                now = last + 2 * self.p + 24 + lag
            counts.append((now if ends else last + 1) - began)
            began = last + 1
            if self.flag(spec.FLAG_RESULT) and self.reg[Reg.FLAGS2] // 512 % 2:
                continue
            if self.flag(spec.FLAG_RESULT):
                assert self.at == len(self.words)
                assert taken * self.n == len(data)
                return layers, counts, now
            for m, values in pixels:
                self.write(m, values)

    def take(self) -> bytes:
        self.at += 1
        return self.words[self.at - 1]

    def flag(self, bit: int) -> int:
        return self.reg[Reg.FLAGS] >> bit & 1

    def write(self, m: int, values) -> None:
        reg = self.reg
        for p in range(self.p):
            off = p // reg[Reg.OFF_PC] * reg[Reg.OFF_DR] + p % reg[Reg.OFF_PC] * reg[Reg.OFF_DC]
            difference = m - off % 65536
            if 0 <= difference < reg[Reg.OUT_S]:
                for n in range(self.n):
                    at = (reg[Reg.OUT_W] + difference) * self.n + n
                    self.banks[p][at % self.size] = values[n]

    def layer(self, now: int):
        reg, pixels, r, free = self.reg, [], 0, 0
        while True:
            low, high = self.take(), self.take()
            now += 2
            count, table = self.count(low, high)
            body = [self.take() for _ in range(count)]
            bias = [signed(low[n] + 256 * (high[n] & 0x1F), 13) for n in range(self.n)]
            shift = [reg[Reg.FLAGS2] % 32 + (high[n] >> 5) for n in range(self.n)]
            step = 0
            for gy in range(reg[Reg.GY]):
                for gx in range(reg[Reg.GX]):
                    acc = [[0] * self.n for _ in range(self.p)]
                    for z in range(reg[Reg.GZ]):
                        self.one_pass(body, r, gy, gx, z, acc)
                        now += count
                    # the group's last word issues in cycle now - 1
                    now = max(now, free + 1)
                    free = now - 1 + reg[Reg.LANES]
                    for lane in range(reg[Reg.LANES]):
                        m, exists = self.place(r, gy, gx, lane, step)
                        step += 1
                        if exists:
                            codes = [
                                self.code(acc[lane][n], shift[n], bias[n], table)
                                for n in range(self.n)
                            ]
                            pixels.append((m, codes))
            if high[-1] & 0x80:
                return pixels, now - 1
            r += 1

    def filters(self, now: int):
        """S rows at once, all words of a row for lane 0, then for lane 1, ..."""
        reg, s, pixels, r, free = self.reg, self.geometry.s, [], 0, 0
        while self.at % s:
            self.at += 1
        while True:
            low, high = [self.take() for _ in range(s)], [self.take() for _ in range(s)]
            now += 2
            count = self.count(low[0], high[0])[0]
            words = [self.take() for _ in range(s * count)]
            last = high[0][-1] & 0x80
            for gy in range(reg[Reg.GY]):
                for gx in range(reg[Reg.GX]):
                    now = max(now + count * reg[Reg.GZ], free + 1)
                    free = now - 1 + s
                    for lane in range(reg[Reg.CLAST] if last else s):
                        acc = [[0] * self.n for _ in range(self.p)]
                        for z in range(reg[Reg.GZ]):
                            self.one_pass(words[lane::s], r, gy, gx, z, acc, flat=True)
                        codes, table = [], self.count(low[lane], high[lane])[1]
                        for n in range(self.n):
                            shift = reg[Reg.FLAGS2] % 32 + (high[lane][n] >> 5)
                            bias = signed(low[lane][n] + 256 * (high[lane][n] & 0x1F), 13)
                            codes.append(self.code(acc[lane][n], shift, bias, table))
                        m = reg[Reg.OUT_BASE] + r + lane * reg[Reg.D_PC]
                        m += gy * reg[Reg.D_GY] + gx * reg[Reg.D_GX]
                        pixels.append((m % 65536, codes))
            if last:
                return pixels, now - 1
            r += s

    def count(self, low, high) -> tuple[int, int]:
        """Body words of a row, and its table."""
        count, flags = low[-1] + 256 * (high[-1] & 0x7F), self.reg[Reg.FLAGS2]
        return divmod(count, 4096)[::-1] if flags >> 11 & 1 else (count, flags >> 5 & 7)

    def one_pass(self, body, r, gy, gx, z, acc, flat=False) -> None:
        reg = self.reg
        origin_a = reg[Reg.A_BASE] + gy * reg[Reg.A_SY] + gx * reg[Reg.A_SX] + z * reg[Reg.A_SZ]
        origin_b = reg[Reg.B_BASE] + gy * reg[Reg.B_SY] + gx * reg[Reg.B_SX]
        origin_a += r * self.n * self.flag(spec.FLAG_A_ROWSTEP)
        origin_b += r * self.n * self.flag(spec.FLAG_B_ROWSTEP)
        source, cur, kernel_row = "A", origin_a, origin_a
        best = [[None] * self.n for _ in range(self.p)]
        gate = [[None] * self.n for _ in range(self.p)]
        for word in body:
            common = word[-1]
            if common >= 0xC0:
                source, kernel_row = "B", origin_b
            elif common >= 0x80:
                kernel_row = cur if flat else kernel_row
                kernel_row += reg[Reg.A_KR if source == "A" else Reg.B_KR]
            second = int(source == "B")
            mode = reg[Reg.FLAGS] >> 2 * second & 3
            unit = 1 if mode == 0 else self.n
            cur = cur + unit * common if common < 0x80 else kernel_row + unit * (common & 63)
            is_signed = self.flag(spec.FLAG_A_SIGNED + second)
            scale = 16 if self.flag(spec.FLAG_A_WSHIFT + second) else 1
            for p in range(self.p):
                for n in range(self.n):
                    at = cur % self.size
                    if mode != 0:
                        at = at // self.n * self.n + n
                    operand = self.banks[p][at]
                    if is_signed:
                        operand = signed(operand, 8)
                    if mode == 2 and best[p][n] is not None:
                        operand = max(operand, best[p][n])
                    best[p][n] = operand if best[p][n] is None else max(operand, best[p][n])
                    weight = signed(word[n], 8) * scale
                    if second and reg[Reg.FLAGS] & 3 == 3:
                        weight = gate[p][n]
                    if not second and mode == 3:
                        gate[p][n] = operand
                    acc[p][n] = signed(acc[p][n] + weight * operand, 24)

    def place(self, r, gy, gx, lane, step):
        reg = self.reg
        pc = (step if self.flag(spec.FLAG_LINEAR) else lane) % reg[Reg.PC]
        pr = (step if self.flag(spec.FLAG_LINEAR) else lane) // reg[Reg.PC]
        m = reg[Reg.OUT_BASE] + r + pr * reg[Reg.D_PR] + pc * reg[Reg.D_PC]
        if self.flag(spec.FLAG_LINEAR):
            return m % 65536, pc < reg[Reg.CLAST] and pr < reg[Reg.PR]
        m += gy * reg[Reg.D_GY] + gx * reg[Reg.D_GX]
        last_column, last_row = pc == reg[Reg.PC] - 1, pr == reg[Reg.PR] - 1
        exists = not (last_column and gx >= reg[Reg.CLAST])
        return m % 65536, exists and not (last_row and gy >= reg[Reg.RLAST])

    def code(self, acc: int, shift: int, bias: int, table: int) -> int:
        # round() of a Fraction rounds half to even
        value = round(Fraction(acc, 2**shift) + Fraction(bias, 8))
        low, high = self.reg[Reg.CLIP] % 256, self.reg[Reg.CLIP] // 256
        if self.flag(spec.FLAG_OUT_SIGNED):
            low, high = signed(low, 8), signed(high, 8)
        code = min(max(value, low), high) % 256
        if self.reg[Reg.FLAGS2] >> 8 & 1:
            code = self.table[256 * table + code]
        return code

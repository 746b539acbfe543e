"""Decoder of the golden interpreter: an image becomes the work of its layers, and its cycle count.

Written from ``stream.md`` and ``hw/spec.py`` alone; it shares no code with the encoder.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np

from secateur.hw import spec
from secateur.hw.spec import Error, Geometry, Reg
from secateur.sim.program import (
    Bytes,
    ImageError,
    Layer,
    Load,
    Program,
    Row,
    Step,
    between,
    drained,
)

#: Registers of the window of a LOAD.
_WINDOW = (Reg.OUT_W, Reg.OUT_S, Reg.OFF_PC, Reg.OFF_DC, Reg.OFF_DR)
_LONG_AGO = 1 << 40  # cycles, more than any inference takes


def parse(image: bytes, geometry: Geometry) -> Program:
    """Check and decode ``image`` (with or without metadata behind it) for ``geometry``.

    Raises
    ------
    ImageError : its code is the first that applies of MAGIC, VERSION, GEOMETRY, LENGTH, BANK, CRC;
        then, in program order, ROW (also for words that are not a program by ``stream.md``,
        and for registers that contradict each other), WATCHDOG, or LENGTH for a program that does
        not end with its last layer of results
    """
    size, head = geometry.word_bytes, image[: spec.HEADER.size]
    if head[: len(spec.MAGIC)] != spec.MAGIC:
        raise ImageError(Error.MAGIC, "the image does not begin with SECT")
    if len(head) < spec.HEADER.size:
        raise ImageError(Error.LENGTH, f"{len(head)} bytes do not cover the header")
    _, version, n, p, features, words, bank_words, limit, crc = spec.HEADER.unpack(head)
    needed, s = spec.unpack_features(features)
    if version != spec.VERSION:
        raise ImageError(Error.VERSION, f"version {version}, not {spec.VERSION}")
    if (n, p) != (geometry.n, geometry.p):
        raise ImageError(Error.GEOMETRY, f"for {n} x {p}, not {geometry.n} x {geometry.p}")
    if s not in (1, geometry.s):
        raise ImageError(Error.GEOMETRY, f"for {s} filter lanes, not {geometry.s}")
    if needed > geometry.tables:
        raise ImageError(Error.GEOMETRY, f"{needed} tables of {geometry.tables}")
    if not geometry.header_words <= words <= geometry.weight_words:
        raise ImageError(Error.LENGTH, f"{words} words of at most {geometry.weight_words}")
    if bank_words > geometry.bank_words:
        raise ImageError(Error.BANK, f"{bank_words} bank words of {geometry.bank_words}")
    if len(image) < words * size:
        raise ImageError(Error.LENGTH, f"{len(image)} bytes, {words} words of {size} expected")
    at, data = spec.HEADER_CRC_OFFSET, image[: words * size]
    if zlib.crc32(data[:at] + bytes(4) + data[at + 4 :]) != crc:
        raise ImageError(Error.CRC, "the CRC does not match")
    table = np.frombuffer(data, np.uint8).reshape(words, size)
    decoder = _Decoder(table, geometry, limit)
    first, cycles = decoder.inference()
    tables = decoder.tables
    later, later_cycles = decoder.inference()
    cycles = max(cycles, later_cycles)
    if decoder.tables != tables:
        raise ImageError(
            Error.ROW, "entries of tables go elsewhere in every inference: write TABLE"
        )
    for one, other in zip(first, later, strict=True):
        _check_same(one, other)
    _check_ahead(first, later)
    interval = between(later, cycles, p)
    return Program(geometry, bank_words, limit, table, first, later, cycles, interval)


def _check_same(first: Step, later: Step) -> None:
    """All inferences must look alike to the host that sends inputs and takes results."""
    if isinstance(first, Load):
        if later.reg[Reg.GX] != first.words:
            words = f"{first.words} words, later {later.reg[Reg.GX]}"
            raise ImageError(Error.ROW, f"a LOAD takes {words}: write GX before it")
    elif isinstance(later, Layer) and not np.array_equal(drained(first), drained(later)):
        where = f"layer {first.index} drains other pixels in later inferences"
        raise ImageError(Error.ROW, f"{where}: write all registers that it uses")


def _check_ahead(first: tuple[Step, ...], later: tuple[Step, ...]) -> None:
    """Words that are taken ahead go to the window of the LOAD before."""
    opening = [step for step in first if isinstance(step, Layer) and step.opens]
    if not opening:
        return
    loads = [[step for step in steps if isinstance(step, Load)] for steps in (first, later)]
    if len(opening) > 1 or len(loads[0]) > 1:
        raise ImageError(Error.ROW, "words are taken ahead from two layers on, or of two LOADs")
    one, other = ([each.reg[k] for k in _WINDOW] for (each,) in loads)
    if one != other:
        raise ImageError(Error.ROW, "words are taken ahead, and the LOAD gets another window later")


class _Decoder:
    """Walks the program; registers and tables live on from one inference to the next."""

    def __init__(self, words: Bytes, geometry: Geometry, limit: int) -> None:
        self._words, self._geometry, self._limit = words, geometry, limit
        self._reg = [0] * spec.REGISTERS
        self._entries = np.zeros(geometry.tables * spec.TABLE_ENTRIES, np.uint8)
        self._filled = np.zeros(len(self._entries), bool)
        self._start = geometry.header_words
        self._before = -_LONG_AGO, False

    @property
    def tables(self) -> tuple[int, bytes, bytes]:
        """All that an inference leaves to the next one's tables: TABLE, entries, which are filled.

        The other registers are either written in every inference or in none.
        """
        return self._reg[Reg.TABLE], self._entries.tobytes(), self._filled.tobytes()

    def inference(self) -> tuple[tuple[Step, ...], int]:
        geometry, steps, layers, now = self._geometry, list[Step](), 0, 0
        at, done, ended = self._start, False, 0
        self._before = -_LONG_AGO, False
        while at < len(self._words):
            if done:
                raise ImageError(Error.LENGTH, f"word {at} comes after the last result layer")
            at, now, command = self._configure(at, now, loaded=bool(steps))
            reg = tuple(self._reg)
            if command == spec.COMMON_LOAD:
                if layers:
                    raise ImageError(Error.ROW, f"word {at - 1}: a LOAD behind a layer")
                self._nonzero(reg, at, Reg.GX)
                self._check_window(reg, at)
                steps.append(Load(reg, reg[Reg.GX], now))
                now = ended = spec.load_tail(geometry.p)
            else:
                if not steps:
                    raise ImageError(Error.ROW, f"word {at - 1}: a layer before any LOAD")
                self._check_layer(reg, at)
                now = begin = self._begin(reg, now + spec.setup_cycles(geometry.p))
                filters = bool(reg[Reg.FLAGS2] >> spec.FLAG2_FILTERS & 1)
                side = self._geometry.s if filters else 1
                at, last, rows = self._rows(-(-at // side) * side, now, reg, side)
                opens = command == spec.COMMON_AHEAD
                layer = Layer(layers, reg, rows, side, begin, opens, last + 1 - ended)
                self._before, ended = (last, filters), last + 1
                now = last + spec.front_cycles(geometry.p, filters)
                if layer.ends:
                    now = last + spec.tail_cycles(geometry.p, filters)
                    layer = replace(layer, cycles=layer.cycles + now - ended)
                self._check_pixels(layer, at)
                steps.append(layer)
                layers, done = layers + 1, layer.ends
            self._watch(now, at)
        if not done:
            raise ImageError(Error.LENGTH, "the program does not end with a layer of results")
        return tuple(steps), now

    def _begin(self, reg: tuple[int, ...], now: int) -> int:
        """The cycle of the first header word, from the one in which the registers are settled."""
        last, filters = self._before
        p = self._geometry.p
        if reg[Reg.FLAGS] >> spec.FLAG_CLEAR & 1 and reg[Reg.OUT_S]:
            now = max(now, last + spec.tail_cycles(p, filters)) + spec.clear_cycles(reg[Reg.OUT_S])
        return max(now, last + spec.landing_cycles(p, filters))

    def _configure(self, at: int, now: int, *, loaded: bool) -> tuple[int, int, int]:
        command = 0
        while not command:
            if at >= len(self._words):
                raise ImageError(Error.LENGTH, "the program ends in configuration words")
            word = self._words[at].tobytes()
            index, command = word[-1] & spec.COMMON_REGISTER, word[-1] & ~spec.COMMON_REGISTER
            for i in range(self._geometry.n // 2):
                if index + i < spec.REGISTERS:
                    self._reg[index + i] = int.from_bytes(word[2 * i : 2 * i + 2], "little")
            fills = index == spec.INDEX_TABLE and not command
            if fills:
                last, filters = self._before
                now = max(now, last + spec.tail_cycles(self._geometry.p, filters))
            at, now = at + 1, now + 1
            if index == spec.INDEX_LOOP:
                if loaded or command:
                    raise ImageError(Error.ROW, f"word {at - 1}: a LOOP mark behind a LOAD")
                self._start = at
            if fills:
                self._fill(word[:-1], at)
                now += spec.table_cycles(self._geometry.n)
        return at, now, command

    def _rows(
        self, at: int, now: int, reg: tuple[int, ...], side: int
    ) -> tuple[int, int, tuple[Row, ...]]:
        groups, passes, lanes = reg[Reg.GX] * reg[Reg.GY], reg[Reg.GZ], reg[Reg.LANES]
        rows, ended, last = list[Row](), -_LONG_AGO, False
        while not last:
            if at + 2 * side > len(self._words):
                raise ImageError(Error.LENGTH, "the program ends within a layer")
            count, last, tables = self._count(at, side, reg)
            body = at + 2 * side
            if body + side * count > len(self._words):
                raise ImageError(Error.LENGTH, f"row at word {at}: {count} body words overrun")
            gates = reg[Reg.FLAGS] & 3 == spec.Mode.GATE
            if gates and self._words[body, -1] >= spec.STEP_SOURCE:
                raise ImageError(Error.ROW, f"row at word {at}: no gate before the first word")
            length = count * passes
            if side > 1 and length * groups < spec.filter_row_words(side):
                raise ImageError(Error.ROW, f"row at word {at}: {length * groups} body words")
            exist = reg[Reg.CLAST] if side > 1 and last else side
            rows += [
                replace(self._row(at + lane, count, side, reg), table=self._table(reg, at, table))
                for lane, table in zip(range(exist), tables, strict=False)
            ]
            # The first group of a row may wait for the last one of the row before; the others
            # each take the longer of their words and the drain.
            ended = max(now + 2 + length - 1, ended + lanes) + (groups - 1) * max(length, lanes)
            at, now = body + side * count, ended + 1
            self._watch(now, at)
        return at, ended, tuple(rows)

    def _count(self, at: int, side: int, reg: tuple[int, ...]) -> tuple[int, bool, tuple[int, ...]]:
        """Body words of the row group at word ``at``, whether it is the layer's last, and the
        tables of its rows.
        """
        heads = self._words[at : at + 2 * side, -1].astype(np.int64)
        counts = heads[:side] | (heads[side:] & ~spec.ROW_LAST) << 8
        last = heads[side:] & spec.ROW_LAST
        tables = np.full(side, reg[Reg.FLAGS2] >> spec.FLAG2_TABLE & 7)
        if reg[Reg.FLAGS2] >> spec.FLAG2_TABLES & 1:
            tables = counts >> spec.ROW_TABLE_COUNT_BITS
            counts = counts & (1 << spec.ROW_TABLE_COUNT_BITS) - 1
        if (counts != counts[0]).any() or (last != last[0]).any():
            raise ImageError(Error.ROW, f"row group at word {at}: its rows differ in length")
        if counts[0] < spec.MIN_ROW_WORDS:
            raise ImageError(Error.ROW, f"row at word {at}: {counts[0]} body words")
        return int(counts[0]), bool(last[0]), tuple(tables.tolist())

    def _row(self, at: int, count: int, side: int, reg: tuple[int, ...]) -> Row:
        """The row whose first header word is word ``at``."""
        low, high = (self._words[word, :-1].astype(np.int64) for word in (at, at + side))
        bias = low | (high & 0x1F) << 8
        bias = np.where(bias >= 1 << spec.BIAS_BITS - 1, bias - (1 << spec.BIAS_BITS), bias)
        base = reg[Reg.FLAGS2] >> spec.FLAG2_SHIFT_BASE & (1 << spec.SHIFT_BASE_BITS) - 1
        return Row(at + 2 * side, count, bias, base + (high >> 5), side)

    def _fill(self, entries: bytes, at: int) -> None:
        first = self._reg[Reg.TABLE]
        if first + len(entries) > len(self._entries):
            raise ImageError(Error.ROW, f"word {at - 1}: an entry past the tables")
        self._entries[first : first + len(entries)] = list(entries)
        self._filled[first : first + len(entries)] = True
        self._reg[Reg.TABLE] += len(entries)

    def _table(self, reg: tuple[int, ...], at: int, table: int) -> Bytes | None:
        if not reg[Reg.FLAGS2] >> spec.FLAG2_LOOKUP & 1:
            return None
        first = table * spec.TABLE_ENTRIES
        if first >= len(self._entries):
            raise ImageError(
                Error.ROW, f"before word {at}: a layer looks up a table that the engine lacks"
            )
        if not self._filled[first : first + spec.TABLE_ENTRIES].all():
            raise ImageError(Error.ROW, f"before word {at}: table {table} is not filled completely")
        return self._entries[first : first + spec.TABLE_ENTRIES].copy()

    def _watch(self, now: int, at: int) -> None:
        if now > self._limit:
            raise ImageError(Error.WATCHDOG, f"more than {self._limit} cycles at word {at}")

    def _nonzero(self, reg: tuple[int, ...], at: int, *registers: Reg) -> None:
        for register in registers:
            if reg[register] == 0:
                raise ImageError(Error.ROW, f"word {at - 1}: {register.name} is 0")

    def _check_window(self, reg: tuple[int, ...], at: int) -> None:
        if reg[Reg.OUT_S]:
            self._nonzero(reg, at, Reg.OFF_PC)

    def _check_layer(self, reg: tuple[int, ...], at: int) -> None:
        self._nonzero(reg, at, Reg.GX, Reg.GY, Reg.GZ, Reg.LANES, Reg.PC, Reg.PR)
        flags, lanes = reg[Reg.FLAGS], reg[Reg.LANES]
        if lanes > self._geometry.p:
            raise ImageError(Error.ROW, f"word {at - 1}: {lanes} LANES of {self._geometry.p}")
        if flags >> spec.FLAG_LINEAR & 1:
            if reg[Reg.GY] != 1:
                raise ImageError(Error.ROW, f"word {at - 1}: linear walk with GY {reg[Reg.GY]}")
        elif reg[Reg.PR] * reg[Reg.PC] != lanes:
            raise ImageError(Error.ROW, f"word {at - 1}: PR * PC differ from LANES")
        modes = {spec.Mode(flags >> bit & 3) for bit in (spec.FLAG_A_MODE, spec.FLAG_B_MODE)}
        if not self._geometry.extended and modes & {spec.Mode.MAXIMUM, spec.Mode.GATE}:
            raise ImageError(Error.ROW, f"word {at - 1}: a mode that the lanes do not have")
        a_mode, b_mode = flags >> spec.FLAG_A_MODE & 3, flags >> spec.FLAG_B_MODE & 3
        if b_mode == spec.Mode.GATE:
            raise ImageError(Error.ROW, f"word {at - 1}: source B has mode GATE")
        if b_mode == spec.Mode.MAXIMUM != a_mode:
            raise ImageError(Error.ROW, f"word {at - 1}: source B has mode MAXIMUM, source A not")
        if reg[Reg.FLAGS2] >> spec.FLAG2_TABLES & 1 and not self._geometry.tables:
            raise ImageError(Error.ROW, f"word {at - 1}: rows name tables, the engine has none")
        if reg[Reg.FLAGS2] >> spec.FLAG2_FILTERS & 1:
            self._check_filters(reg, at, modes)
        if reg[Reg.GX] * reg[Reg.GY] > spec.MAP_WORDS:
            raise ImageError(Error.ROW, f"word {at - 1}: GX * GY exceed {spec.MAP_WORDS}")
        if not flags >> spec.FLAG_RESULT & 1:
            self._check_window(reg, at)

    def _check_filters(self, reg: tuple[int, ...], at: int, modes: set[spec.Mode]) -> None:
        s = self._geometry.s
        if s == 1:
            raise ImageError(Error.ROW, f"word {at - 1}: filter lanes, the engine has none")
        if reg[Reg.LANES] != s or reg[Reg.PC] != s or reg[Reg.FLAGS] >> spec.FLAG_LINEAR & 1:
            raise ImageError(Error.ROW, f"word {at - 1}: filter lanes other than PC = LANES = {s}")
        if not 1 <= reg[Reg.CLAST] <= s:
            raise ImageError(Error.ROW, f"word {at - 1}: {reg[Reg.CLAST]} rows in a group of {s}")
        if modes - {spec.Mode.BROADCAST, spec.Mode.LANEWISE}:
            raise ImageError(Error.ROW, f"word {at - 1}: a mode that filter lanes do not have")

    def _check_pixels(self, layer: Layer, at: int) -> None:
        pixels = len(drained(layer))
        if pixels > spec.MAP_WORDS:
            raise ImageError(
                Error.ROW, f"before word {at}: {pixels} pixels of {spec.MAP_WORDS} at most"
            )
        if layer.result and not pixels:
            raise ImageError(Error.ROW, f"before word {at}: the result layer has no pixel")

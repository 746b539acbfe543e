"""Golden interpreter: runs an image as ``docs/stream.md`` reads, to the byte and to the cycle.

    program = parse(image, geometry)
    run(program, inputs).results        # uint8 (batch, beats, N)

Vectorised over the batch. The banks of a chunk of images are one array (bank words, N, P, chunk)
of bytes, so that a gather copies whole runs of images and a row is one matrix product. Products
are summed in float32 where the row's weights prove every sum below 2**24, else in float64, whose
2**53 no row can reach (2**15 words * 2**16 passes * 2**19); both are therefore exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from secateur.hw import spec
from secateur.hw.spec import Mode, Reg
from secateur.sim.decode import Bytes, ImageError, Ints, Layer, Load, Program, Row, Step, parse

__all__ = ["ImageError", "LayerTrace", "Program", "Run", "hazards", "parse", "run"]

Floats = npt.NDArray[Any]
_COLUMNS = 512  # images of a chunk times pixel lanes
_BLOCK = 1 << 22  # operands that one matrix product gathers at most


@dataclass(frozen=True)
class LayerTrace:
    """Existing pixels of a layer in drain order: map words ``m`` (pixels,), ``codes`` uint8
    (batch, pixels, N)."""

    index: int
    m: Ints
    codes: Bytes
    cycles: int
    result: bool


@dataclass(frozen=True)
class Run:
    """``results`` uint8 (batch, beats, N), the layers' traces (none if not asked for) and the
    cycles of one inference."""

    results: Bytes
    layers: list[LayerTrace]
    cycles: int


def run(program: Program, inputs: Bytes, *, trace: bool = True, sequential: bool = False) -> Run:
    """Run every row of ``inputs``, uint8 (batch, ``program.input_words * N``).

    Each starts from zeroed banks and registers; with ``sequential`` only the first does, and the
    others find what the one before has left, as in hardware.
    """
    width = program.input_words * program.geometry.n
    if inputs.dtype != np.uint8 or inputs.ndim != 2 or inputs.shape[1] != width:
        raise ValueError(
            f"inputs must be uint8 (batch, {width}), not {inputs.dtype} {inputs.shape}"
        )
    chunk = 1 if sequential else max(1, _COLUMNS // program.geometry.p)
    banks = _banks(program, 1)
    parts: list[list[tuple[Ints, Bytes]]] = []
    for at in range(0, max(len(inputs), 1), chunk):
        part = inputs[at : at + chunk]
        if not sequential:
            banks = _banks(program, len(part))
        steps = program.later if sequential and at else program.first
        drained = list(_inference(program, steps, part, banks))
        parts.append(drained if trace else drained[-1:])
    layers = program.layers if trace else program.layers[-1:]
    traces = [
        LayerTrace(
            layer.index,
            parts[0][i][0],
            np.concatenate([part[i][1] for part in parts]),
            layer.cycles,
            layer.result,
        )
        for i, layer in enumerate(layers)
    ]
    return Run(traces[-1].codes, traces if trace else [], program.cycles)


def hazards(program: Program) -> list[int]:
    """Indices of layers that read a bank word of their own output window.

    Such a layer depends on the engine's timing and is no correct program; ``run`` lets it read
    what stood there at its START.
    """
    words, found = program.geometry.bank_words, []
    for layer in program.layers:
        written = np.zeros(words, bool)
        if not layer.result:
            size = min(layer.reg[Reg.OUT_S], words)
            written[(layer.reg[Reg.OUT_W] + np.arange(size)) % words] = True
        for r, row in enumerate(layer.rows):
            body = _Body(program, layer, row)
            origins = _origins(program, layer, r)
            read = [
                (
                    origins[int(b)][:, None]
                    + z * layer.reg[Reg.A_SZ] * (not b)
                    + body.move[body.b == b]
                )
                for b in (False, True)
                for z in range(layer.reg[Reg.GZ])
            ]
            if any(
                written[at % (words * program.geometry.n) // program.geometry.n].any()
                for at in read
            ):
                found.append(layer.index)
                break
    return found


def _banks(program: Program, images: int) -> Bytes:
    geometry = program.geometry
    return np.zeros((geometry.bank_words, geometry.n, geometry.p, images), np.uint8)


def _inference(
    program: Program, steps: Sequence[Step], inputs: Bytes, banks: Bytes
) -> Iterator[tuple[Ints, Bytes]]:
    n, taken = program.geometry.n, 0
    for step in steps:
        if isinstance(step, Load):
            data = inputs[:, taken * n : (taken + step.words) * n]
            taken += step.words
            pixels = data.T.reshape(step.words, n, len(inputs))
            _write(step.reg, banks, np.arange(step.words), pixels)
            continue
        if step.flag(spec.FLAG_CLEAR):
            size = min(step.reg[Reg.OUT_S], len(banks))
            local = (step.reg[Reg.OUT_W] + np.arange(size)) % len(banks)
            banks[local] = 0x80 if step.flag(spec.FLAG_FILL) else 0
        m, exists = _walk(step)
        rows = [_row(program, step, r, row, banks) for r, row in enumerate(step.rows)]
        codes = np.concatenate([row[exists] for row in rows])
        m = np.concatenate([(m[exists] + r) & 0xFFFF for r in range(len(rows))])
        if not step.result:
            _write(step.reg, banks, m, codes)
        yield m, np.ascontiguousarray(codes.transpose(2, 0, 1))


def _write(reg: tuple[int, ...], banks: Bytes, m: Ints, pixels: Bytes) -> None:
    """Offer ``pixels`` (pixels, N, images), at map words ``m``, to all banks; the last one wins."""
    for p in range(banks.shape[2] if reg[Reg.OUT_S] else 0):
        across, down = p % reg[Reg.OFF_PC], p // reg[Reg.OFF_PC]
        at = m - (down * reg[Reg.OFF_DR] + across * reg[Reg.OFF_DC] & 0xFFFF)
        (hit,) = np.nonzero((at >= 0) & (at < reg[Reg.OUT_S]))
        local = (reg[Reg.OUT_W] + at[hit]) % len(banks)
        local, last = np.unique(local[::-1], return_index=True)
        banks[local, :, p, :] = pixels[hit[::-1][last]]


def _walk(layer: Layer) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Map words (groups * lanes,) of row 0, not yet modulo 2**16, and which pixels exist."""
    reg = layer.reg
    gx, gy = np.arange(reg[Reg.GX]), np.arange(reg[Reg.GY])
    clast, rlast = reg[Reg.CLAST], reg[Reg.RLAST]
    if layer.flag(spec.FLAG_LINEAR):
        i = np.arange(reg[Reg.GX] * reg[Reg.LANES])
        pc, pr = i % reg[Reg.PC], i // reg[Reg.PC]
        return (
            reg[Reg.OUT_BASE] + pr * reg[Reg.D_PR] + pc * reg[Reg.D_PC],
            (pc < clast) & (pr < reg[Reg.PR]),
        )
    gy, gx, pr, pc = np.meshgrid(
        gy, gx, np.arange(reg[Reg.PR]), np.arange(reg[Reg.PC]), indexing="ij"
    )
    m = reg[Reg.OUT_BASE] + gy * reg[Reg.D_GY] + gx * reg[Reg.D_GX]
    m = m + pr * reg[Reg.D_PR] + pc * reg[Reg.D_PC]
    missing = (pc == reg[Reg.PC] - 1) & (gx >= clast) | (pr == reg[Reg.PR] - 1) & (gy >= rlast)
    return m.ravel(), ~missing.ravel()


class _Body:
    """Body words of a row: ``move`` from the origin in bytes, ``b`` if of source B, ``weight``
    (count, N) with WSHIFT, ``mode``, ``signed``; all but the weights of shape (count,)."""

    def __init__(self, program: Program, layer: Layer, row: Row) -> None:
        words, n, reg = (
            program.words[row.start : row.start + row.count],
            program.geometry.n,
            layer.reg,
        )
        steps = words[:, n].tolist()
        modes = (layer.mode(spec.FLAG_A_MODE), layer.mode(spec.FLAG_B_MODE))
        units = tuple(1 if mode == Mode.BROADCAST else n for mode in modes)
        pitch = (reg[Reg.A_KR], reg[Reg.B_KR])
        move, of_b, cur, kernel_row, source = [], [], 0, 0, 0
        for step in steps:
            if step < spec.STEP_ADD_LIMIT:
                cur += units[source] * step
            else:
                if step >= spec.STEP_SOURCE:
                    source, kernel_row = 1, 0
                else:
                    kernel_row += pitch[source]
                cur = kernel_row + units[source] * (step & spec.STEP_FIELD)
            move.append(cur)
            of_b.append(source)
        self.move = np.array(move, np.int64)
        self.b = np.array(of_b, bool)
        self.mode = np.array(modes)[of_b]
        signs = (layer.flag(spec.FLAG_A_SIGNED), layer.flag(spec.FLAG_B_SIGNED))
        self.signed = np.array(signs)[of_b]
        shifts = (layer.flag(spec.FLAG_A_WSHIFT), layer.flag(spec.FLAG_B_WSHIFT))
        shift = np.array(shifts)[of_b] * spec.WSHIFT
        self.weight = words[:, :n].view(np.int8).astype(np.int64) << shift[:, None]
        self.bound = int(np.abs(self.weight).sum(0).max()) * 255 * reg[Reg.GZ]


def _origins(program: Program, layer: Layer, r: int) -> tuple[Ints, Ints]:
    """Origins of sources A and B by group, (GY * GX,), for pass 0."""
    reg, n = layer.reg, program.geometry.n
    gy, gx = np.divmod(np.arange(reg[Reg.GY] * reg[Reg.GX]), reg[Reg.GX])
    a = reg[Reg.A_BASE] + r * n * layer.flag(spec.FLAG_A_ROWSTEP)
    b = reg[Reg.B_BASE] + r * n * layer.flag(spec.FLAG_B_ROWSTEP)
    return (
        a + gy * reg[Reg.A_SY] + gx * reg[Reg.A_SX],
        b + gy * reg[Reg.B_SY] + gx * reg[Reg.B_SX],
    )


def _row(program: Program, layer: Layer, r: int, row: Row, banks: Bytes) -> Bytes:
    """Codes (groups * lanes, N, images) of a row."""
    body, reg = _Body(program, layer, row), layer.reg
    n, images = program.geometry.n, banks.shape[3]
    real = np.float32 if body.bound < 1 << 24 else np.float64
    lanes, parts = reg[Reg.LANES], []
    view = banks if lanes == banks.shape[2] else np.ascontiguousarray(banks[:, :, :lanes])
    memory = view.reshape(len(banks), n, lanes * images)
    origins = _origins(program, layer, r)
    total = len(origins[0])
    block = max(1, _BLOCK // (row.count * lanes * images))
    for at in range(0, total, block):
        a, b = (origin[at : at + block] for origin in origins)
        acc = np.zeros((len(a), n, lanes * images), real)
        for z in range(reg[Reg.GZ]):
            start = np.where(body.b, b[:, None], a[:, None] + z * reg[Reg.A_SZ])
            _pass(body, memory, start + body.move, acc)
        parts.append(_drain(layer, row, acc, body.bound))
    codes = np.concatenate(parts).reshape(total, n, lanes, images)
    return codes.transpose(0, 2, 1, 3).reshape(total * lanes, n, images)


def _pass(body: _Body, memory: Bytes, at: Ints, acc: Floats) -> None:
    """Add one pass to ``acc`` (groups, N, columns); ``at`` are byte addresses (groups, count)."""
    n, real = memory.shape[1], acc.dtype
    at = at % (memory.shape[0] * n)
    if not (body.mode == Mode.MAXIMUM).any():
        for signed in (False, True):
            (words,) = np.nonzero((body.mode == Mode.BROADCAST) & (body.signed == signed))
            if len(words):
                operand = memory.reshape(-1, memory.shape[2])[at[:, words]]
                typed = (operand.view(np.int8) if signed else operand).astype(real)
                acc += body.weight[words].T.astype(real) @ typed
        (rest,) = np.nonzero(body.mode == Mode.LANEWISE)
    else:
        rest = np.arange(len(body.mode))
    previous = None
    for i in rest:
        word = memory[at[:, i] // n]
        if body.mode[i] == Mode.BROADCAST:
            index = at[:, i] % n
            word = np.take_along_axis(word, index[:, None, None], axis=1)
        operand = (word.view(np.int8) if body.signed[i] else word).astype(real)
        if body.mode[i] == Mode.MAXIMUM and previous is not None:
            operand = np.maximum(operand, previous)
        previous = operand if previous is None else np.maximum(operand, previous)
        if body.weight[i].any():
            acc += body.weight[i].astype(real)[:, None] * operand


def _drain(layer: Layer, row: Row, acc: Floats, bound: int) -> Bytes:
    """Codes of accumulators (groups, N, columns).

    Exact in float64: ``acc / 2**s`` has 24 bits from 2**-38 on, the bias 13 from 2**-3 on.
    """
    value = acc.astype(np.float64)
    half = float(1 << spec.ACC_BITS - 1)
    if bound >= half:
        value -= 2 * half * np.floor((value + half) / (2 * half))
    value *= (0.5**row.shift)[:, None]
    value += (row.bias / float(1 << spec.BIAS_FRACTION))[:, None]
    low, high = layer.reg[Reg.CLIP] & 0xFF, layer.reg[Reg.CLIP] >> 8
    if layer.flag(spec.FLAG_OUT_SIGNED):
        low, high = (low ^ 0x80) - 0x80, (high ^ 0x80) - 0x80
    codes = np.minimum(np.maximum(np.rint(value, out=value), low), high)
    return codes.astype(np.int16).astype(np.uint8)

"""One row of the golden interpreter: addresses, products, drain; vectorised over groups and images.

Products are summed in float32 where the row's weights prove every sum below 2**24, else in float64,
whose 2**53 no row can reach (2**15 words * 2**16 passes * 2**19); both are therefore exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from secateur.hw import spec
from secateur.hw.spec import Mode, Reg
from secateur.sim.program import Bytes, Ints, Layer, Program, Row

Floats = npt.NDArray[Any]
_BLOCK = 1 << 22  # operands that one matrix product gathers at most


class Body:
    """Body words of a row.

    Attributes
    ----------
    move : bytes from the origin, (count,)
    b : the word is of source B, (count,)
    mode : of its source, (count,)
    signed : its operands are signed, (count,)
    weight : with WSHIFT, (count, N)
    gated : the gate is the weight, (count,)
    bound : no sum of the row is larger
    """

    def __init__(self, program: Program, layer: Layer, row: Row) -> None:
        n, reg = program.geometry.n, layer.reg
        words = program.words[row.start : row.start + row.count * row.step : row.step]
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
                    # Filter lanes know where they are, not where their kernel row began.
                    kernel_row = (cur if layer.side > 1 else kernel_row) + pitch[source]
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
        self.gated = self.b & (modes[0] == Mode.GATE)
        largest = np.where(self.gated[:, None], 255, np.abs(self.weight))
        self.bound = int(largest.sum(0).max()) * 255 * reg[Reg.GZ]


def origins(program: Program, layer: Layer, r: int) -> tuple[Ints, Ints]:
    """Origins of sources A and B in pass 0, (GY * GX,) each, one per group.

    Parameters
    ----------
    program, layer : of ``parse``
    r : number of the row
    """
    reg, n = layer.reg, program.geometry.n
    gy, gx = np.divmod(np.arange(reg[Reg.GY] * reg[Reg.GX]), reg[Reg.GX])
    step = r // layer.side * layer.side * n
    a = reg[Reg.A_BASE] + step * layer.flag(spec.FLAG_A_ROWSTEP)
    b = reg[Reg.B_BASE] + step * layer.flag(spec.FLAG_B_ROWSTEP)
    return (
        a + gy * reg[Reg.A_SY] + gx * reg[Reg.A_SX],
        b + gy * reg[Reg.B_SY] + gx * reg[Reg.B_SX],
    )


def reads(program: Program, layer: Layer, r: int) -> Ints:
    """Bank words that the groups of a row read (groups, words), with repetitions.

    Parameters
    ----------
    program, layer : of ``parse``
    r : number of the row
    """
    body, size = Body(program, layer, layer.rows[r]), program.geometry.bank_words
    a, b = (start[:, None] for start in origins(program, layer, r))
    passes = range(layer.reg[Reg.GZ])
    of_a = [a + body.move[~body.b] + z * layer.reg[Reg.A_SZ] for z in passes]
    return np.concatenate([*of_a, b + body.move[body.b]], axis=1) // program.geometry.n % size


def run_rows(program: Program, layer: Layer, group: int, banks: Bytes) -> Bytes:
    """Codes (groups * lanes, N, images) of a row group.

    Parameters
    ----------
    program, layer : of ``parse``
    group : number of the row group; with pixel lanes, of the row
    banks : uint8 (bank words, N, P, images)
    """
    if layer.side == 1:
        return _run_row(program, layer, group, banks[:, :, : layer.reg[Reg.LANES]])
    first = group * layer.side
    rows = [
        _run_row(program, layer, row, banks[:, :, row - first : row - first + 1])
        for row in range(first, min(first + layer.side, len(layer.rows)))
    ]
    none = [np.zeros_like(rows[0])] * (layer.side - len(rows))
    return np.stack([*rows, *none], axis=1).reshape(-1, *rows[0].shape[1:])


def _run_row(program: Program, layer: Layer, r: int, banks: Bytes) -> Bytes:
    """Codes (groups * lanes, N, images) of a row.

    Parameters
    ----------
    program, layer : of ``parse``
    r : number of the row
    banks : uint8 (bank words, N, lanes, images), of the lanes that compute it
    """
    row, reg = layer.rows[r], layer.reg
    body = Body(program, layer, row)
    n, lanes, images = program.geometry.n, *banks.shape[2:]
    real, parts = np.float32 if body.bound < 1 << 24 else np.float64, []
    memory = np.ascontiguousarray(banks).reshape(len(banks), n, lanes * images)
    starts = origins(program, layer, r)
    total = len(starts[0])
    block = max(1, _BLOCK // (row.count * lanes * images))
    for at in range(0, total, block):
        a, b = (origin[at : at + block] for origin in starts)
        acc = np.zeros((len(a), n, lanes * images), real)
        for z in range(reg[Reg.GZ]):
            start = np.where(body.b, b[:, None], a[:, None] + z * reg[Reg.A_SZ])
            _pass(body, memory, start + body.move, acc)
        parts.append(_drain(layer, row, acc, body.bound))
    codes = np.concatenate(parts).reshape(total, n, lanes, images)
    return codes.transpose(0, 2, 1, 3).reshape(total * lanes, n, images)


def _pass(body: Body, memory: Bytes, at: Ints, acc: Floats) -> None:
    """Add one pass to ``acc`` (groups, N, columns); ``at`` are byte addresses (groups, count)."""
    n, real = memory.shape[1], acc.dtype
    at = at % (memory.shape[0] * n)
    if not ((body.mode == Mode.MAXIMUM) | (body.mode == Mode.GATE)).any():
        for signed in (False, True):
            (words,) = np.nonzero((body.mode == Mode.BROADCAST) & (body.signed == signed))
            if len(words):
                operand = memory.reshape(-1, memory.shape[2])[at[:, words]]
                typed = (operand.view(np.int8) if signed else operand).astype(real)
                acc += body.weight[words].T.astype(real) @ typed
        (rest,) = np.nonzero(body.mode == Mode.LANEWISE)
    else:
        rest = np.arange(len(body.mode))
    previous, gate = None, None
    for i in rest:
        word = memory[at[:, i] // n]
        if body.mode[i] == Mode.BROADCAST:
            index = at[:, i] % n
            word = np.take_along_axis(word, index[:, None, None], axis=1)
        operand = (word.view(np.int8) if body.signed[i] else word).astype(real)
        if body.mode[i] == Mode.MAXIMUM and previous is not None:
            operand = np.maximum(operand, previous)
        previous = operand if previous is None else np.maximum(operand, previous)
        if body.mode[i] == Mode.GATE:
            gate = operand
        if body.gated[i]:
            acc += gate * operand
        elif body.weight[i].any():
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
    codes = codes.astype(np.int16).astype(np.uint8)
    return codes if row.table is None else row.table[codes]

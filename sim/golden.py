"""Golden interpreter: runs an image by ``stream.md``, to the byte and to the cycle.

    program = parse(image, geometry)
    run(program, inputs).results        # uint8 (batch, beats, N)

Vectorised over the batch. The banks of a chunk of images are one array (bank words, N, P, chunk)
of bytes, so that a gather copies whole runs of images and a row is one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.hw import spec
from secateur.hw.spec import Reg
from secateur.sim.decode import parse
from secateur.sim.program import (
    Bytes,
    ImageError,
    Ints,
    Layer,
    Load,
    Program,
    Step,
    drained,
    walk,
)
from secateur.sim.row import reads, run_rows

__all__ = ["ImageError", "LayerTrace", "Program", "Run", "hazards", "parse", "result_words", "run"]

_COLUMNS = 512  # images of a chunk times pixel lanes


@dataclass(frozen=True)
class LayerTrace:
    """Pixels of a layer that exist, in the order of the drain.

    Attributes
    ----------
    index : of the layer
    m : map words (pixels,)
    codes : uint8 (batch, pixels, N)
    cycles : of the layer
    result : the pixels are results
    """

    index: int
    m: Ints
    codes: Bytes
    cycles: int
    result: bool


@dataclass(frozen=True)
class Run:
    """A run of a batch.

    Attributes
    ----------
    results : uint8 (batch, beats, N)
    layers : traces; empty without ``trace``
    cycles : of one inference
    """

    results: Bytes
    layers: list[LayerTrace]
    cycles: int


def run(
    program: Program, inputs: Bytes, *, trace: bool = True, sequential: bool = False, steps: int = 1
) -> Run:
    """Run every row of the inputs.

    Every ``steps`` rows are a sequence. The first row starts from zeroed banks and registers, as
    after a restart; each other row starts from the banks that the one before has left.

    Parameters
    ----------
    program : of ``parse``
    inputs : uint8 (batch, ``program.input_words`` * N)
    trace : keep the codes of all layers, not only of those with results
    sequential : all rows are one sequence
    steps : rows of a sequence
    """
    width = program.input_words * program.geometry.n
    if inputs.dtype != np.uint8 or inputs.ndim != 2 or inputs.shape[1] != width:
        raise ValueError(
            f"inputs must be uint8 (batch, {width}), not {inputs.dtype} {inputs.shape}"
        )
    steps = max(1, len(inputs)) if sequential else steps
    if steps < 1 or len(inputs) % steps:
        raise ValueError(f"{len(inputs)} inputs are not sequences of {steps!r} steps")
    sequences = inputs.reshape(-1, steps, width)
    chunk = max(1, _COLUMNS // program.geometry.p)
    parts: list[list[list[tuple[Ints, Bytes]]]] = []
    for at in range(0, max(len(sequences), 1), chunk):
        part = sequences[at : at + chunk]
        banks, times = _banks(program, len(part)), []
        for time in range(steps):
            work = program.later if time else program.first
            made = zip(program.layers, _inference(program, work, part[:, time], banks), strict=True)
            times.append([found for layer, found in made if trace or layer.result])
        parts.append(times)
    layers = [layer for layer in program.layers if trace or layer.result]
    traces = [
        LayerTrace(
            layer.index,
            parts[0][0][i][0],
            np.concatenate([_in_order([time[i][1] for time in times]) for times in parts]),
            layer.cycles,
            layer.result,
        )
        for i, layer in enumerate(layers)
    ]
    results = np.concatenate([layer.codes for layer in traces if layer.result], axis=1)
    return Run(results, traces if trace else [], program.cycles)


def _in_order(codes: list[Bytes]) -> Bytes:
    """Codes by step, (sequences, ...) each, as (sequences * steps, ...)."""
    stacked = np.stack(codes, axis=1)
    return stacked.reshape(len(stacked) * len(codes), *stacked.shape[2:])


def result_words(program: Program) -> Ints:
    """Map word of every beat of the result stream."""
    return np.concatenate([drained(layer) for layer in program.layers if layer.result])


def hazards(program: Program) -> list[int]:
    """Indices of layers that read a bank word which an earlier group of them has written, or
    which a word of the next input may have; and of those that write where such words go.

    ``run`` lets such a layer read what stood there at its START. The engine does the same if the
    words are written by the group that reads them, or later (stream.md, "Rows and groups");
    else the layer depends on the engine's timing and the program is not correct. Likewise, ``run``
    lets an input come when all layers of the inference before have ended.
    """
    found, ahead = [], None
    for layer in program.layers:
        ahead = _ahead(program) if layer.opens else ahead
        first = _first_writes(program, layer)
        if ahead is not None:
            if not ahead.isdisjoint(_window(program, layer)):
                found.append(layer.index)
                continue
            shape = program.geometry.bank_words, layer.reg[Reg.LANES]
            first = np.full(shape, _NEVER) if first is None else first
            first[sorted(ahead)] = -1
        if first is not None and any(
            _late(program, layer, group, first) for group in range(layer.row_groups)
        ):
            found.append(layer.index)
    return found


_NEVER = np.iinfo(np.int64).max


def _ahead(program: Program) -> set[int]:
    """Words of the banks that words of the next input may write."""
    return _words(next(s.reg for s in program.later if isinstance(s, Load)), program)


def _window(program: Program, layer: Layer) -> set[int]:
    """Words of the banks that a layer may write or clear."""
    writes = not layer.result or layer.flag(spec.FLAG_CLEAR)
    return _words(layer.reg, program) if writes else set()


def _words(reg: tuple[int, ...], program: Program) -> set[int]:
    depth = program.geometry.bank_words
    return {(reg[Reg.OUT_W] + k) % depth for k in range(min(reg[Reg.OUT_S], depth))}


def _first_writes(program: Program, layer: Layer) -> Ints | None:
    """Number of the group that first writes a word (bank words, LANES); None if none does."""
    if layer.result:
        return None
    reg, words, lanes = layer.reg, program.geometry.bank_words, layer.reg[Reg.LANES]
    total, walks = reg[Reg.GY] * reg[Reg.GX], [walk(layer, g) for g in range(layer.row_groups)]
    pixels = np.concatenate([m[exists] for m, exists in walks])
    groups = np.concatenate(
        [np.nonzero(exists)[0] // lanes + g * total for g, (_, exists) in enumerate(walks)]
    )
    first = np.full((words, lanes), _NEVER)
    for p in range(lanes):
        hit, local = _offered(reg, p, pixels, words)
        np.minimum.at(first[:, p], local, groups[hit])
    return first


def _late(program: Program, layer: Layer, group: int, first: Ints) -> bool:
    """Whether a row group reads a word in a lane in which an earlier group has written it.

    What lanes without a pixel read goes nowhere.
    """
    total = layer.reg[Reg.GY] * layer.reg[Reg.GX]
    exists = walk(layer, group)[1].reshape(total, -1)
    groups = group * total + np.arange(total)
    every = np.arange(exists.shape[1])
    for side in range(layer.side):
        row = group * layer.side + side
        if row == len(layer.rows):
            break
        lanes = every[side : side + 1] if layer.side > 1 else every
        soonest = first[:, lanes].min(axis=1)
        at = reads(program, layer, row)
        rows, words = np.nonzero(soonest[at] < groups[:, None])
        late = first[at[rows, words]][:, lanes] < groups[rows, None]
        if (exists[rows][:, lanes] & late).any():
            return True
    return False


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
        walks = (walk(step, group) for group in range(step.row_groups))
        codes = np.concatenate(
            [run_rows(program, step, g, banks)[exists] for g, (_, exists) in enumerate(walks)]
        )
        m = drained(step)
        if not step.result:
            _write(step.reg, banks, m, codes)
        yield m, np.ascontiguousarray(codes.transpose(2, 0, 1))


def _offered(reg: tuple[int, ...], p: int, m: Ints, bank_words: int) -> tuple[Ints, Ints]:
    """Which of the map words ``m`` lie in bank ``p``'s window, and at which words of the bank."""
    across, down = p % reg[Reg.OFF_PC], p // reg[Reg.OFF_PC]
    at = m - (down * reg[Reg.OFF_DR] + across * reg[Reg.OFF_DC] & 0xFFFF)
    (hit,) = np.nonzero((at >= 0) & (at < reg[Reg.OUT_S]))
    return hit, (reg[Reg.OUT_W] + at[hit]) % bank_words


def _write(reg: tuple[int, ...], banks: Bytes, m: Ints, pixels: Bytes) -> None:
    """Offer ``pixels`` (pixels, N, images), at map words ``m``, to all banks; the last one wins."""
    for p in range(banks.shape[2] if reg[Reg.OUT_S] else 0):
        hit, local = _offered(reg, p, m, len(banks))
        local, last = np.unique(local[::-1], return_index=True)
        banks[local, :, p, :] = pixels[hit[::-1][last]]

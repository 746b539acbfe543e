"""Beats to files and back: what the bench's sources send and what its monitors saw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class StatusChange:
    """At cycle ``now`` after reset the state went from ``before`` to ``state``."""

    now: int
    before: int
    state: int
    error: int
    cycles: int


@dataclass(frozen=True)
class TraceBeat:
    """An input word (layer 0) or a drained pixel (of layers 1, 2, ..., modulo 256): map word, N
    codes, whether it is a result, and the input beats that the engine had taken by then."""

    layer: int
    m: int
    data: bytes
    result: bool
    taken: int


def write_image(folder: Path, image: bytes) -> None:
    """The image loader's bytes, in order."""
    (folder / "image.bin").write_bytes(image)


def write_inputs(folder: Path, inputs: Bytes, n: int) -> None:
    """Input beats of N bytes; the bench reads each with lane 0 last."""
    (folder / "input.bin").write_bytes(inputs.reshape(-1, n)[:, ::-1].tobytes())


def read_results(folder: Path, n: int) -> Bytes:
    """Result beats (beats, N)."""
    data = bytes.fromhex((folder / "result.txt").read_text())
    return np.frombuffer(data, np.uint8).reshape(-1, n)[:, ::-1]


def read_trace(folder: Path) -> list[TraceBeat]:
    """All drained pixels in order."""
    beats = []
    for line in (folder / "trace.txt").read_text().splitlines():
        layer, m, data, result, taken = line.split()
        lanes = bytes.fromhex(data)[::-1]
        beats.append(TraceBeat(int(layer, 16), int(m, 16), lanes, result == "1", int(taken)))
    return beats


def read_status(folder: Path) -> tuple[list[StatusChange], int]:
    """All changes of the engine's state in order, and the cycles simulated after reset."""
    lines = (folder / "status.txt").read_text().splitlines()
    return [StatusChange(*map(int, line.split())) for line in lines[:-1]], int(lines[-1])

"""Files of the bench: the beats that its sources send and its monitors have seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class StatusChange:
    """A change of the engine's state.

    Attributes
    ----------
    now : cycle after reset
    before, state : the state until then and from then on
    error : ``status.error``
    cycles, memory_wait, upset : as in ``status``
    """

    now: int
    before: int
    state: int
    error: int
    cycles: int
    memory_wait: int
    upset: int


@dataclass(frozen=True)
class TraceBeat:
    """An input word or a drained pixel.

    Attributes
    ----------
    given : it is an input word
    layer : of pixels: 1, 2, ..., modulo 256
    m : map word
    data : N codes
    result : the pixel is a result
    ended : inferences that had ended by then
    """

    given: bool
    layer: int
    m: int
    data: bytes
    result: bool
    ended: int


def write_image(folder: Path, image: bytes) -> None:
    """Write the bytes for the image loader."""
    (folder / "image.bin").write_bytes(image)


def write_inputs(folder: Path, inputs: Bytes, n: int) -> None:
    """Write input beats.

    Parameters
    ----------
    folder : of the run
    inputs : uint8, a multiple of N bytes
    n : bytes of a beat; the bench reads each with lane 0 last
    """
    (folder / "input.bin").write_bytes(inputs.reshape(-1, n)[:, ::-1].tobytes())


def read_results(folder: Path, n: int) -> Bytes:
    """Result beats (beats, N)."""
    data = bytes.fromhex((folder / "result.txt").read_text())
    return np.frombuffer(data, np.uint8).reshape(-1, n)[:, ::-1]


def read_trace(folder: Path) -> list[TraceBeat]:
    """All drained pixels in order."""
    beats = []
    for line in (folder / "trace.txt").read_text().splitlines():
        given, layer, m, data, result, ended = line.split()
        lanes, number, word = bytes.fromhex(data)[::-1], int(layer, 16), int(m, 16)
        beats.append(TraceBeat(given == "1", number, word, lanes, result == "1", int(ended)))
    return beats


def read_status(folder: Path) -> tuple[list[StatusChange], int]:
    """All changes of the engine's state in order, and the cycles simulated after reset."""
    lines = (folder / "status.txt").read_text().splitlines()
    return [StatusChange(*map(int, line.split())) for line in lines[:-1]], int(lines[-1])

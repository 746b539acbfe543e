"""An image that is to be in a design's weight memory."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.boards.catalogue.board import BoardError
from secateur.boards.driver.fit import misfit
from secateur.hw.spec import HEADER, Geometry


@dataclass(frozen=True)
class Image:
    """Its name, for messages and reports; its bytes, without metadata; its words."""

    name: str
    stream: bytes
    words: list[int]

    @classmethod
    def of(cls, stream: bytes, geometry: Geometry, name: str) -> Image:
        """The image for an engine.

        Raises
        ------
        BoardError : the engine would refuse it
        """
        problem = misfit(stream, geometry, "engine")
        if problem is not None:
            raise BoardError(f"{name}: {problem}")
        words = HEADER.unpack_from(stream)[5]
        size = geometry.word_bytes
        found = [stream[at : at + size] for at in range(0, words * size, size)]
        return cls(name, stream, [int.from_bytes(word, "little") for word in found])

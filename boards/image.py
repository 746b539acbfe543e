"""An image that is to be in a design's weight memory."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.hw.spec import HEADER, Geometry

from .board import BoardError


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
        if len(stream) < HEADER.size:
            raise BoardError(f"{name}: not an image: {len(stream)} bytes")
        _, _, n, p, tables, words, bank_words, _, _ = HEADER.unpack_from(stream)
        if (n, p) != (geometry.n, geometry.p):
            raise BoardError(
                f"{name}: compiled for {n}x{p}, the engine is {geometry.n}x{geometry.p}; compile "
                f"the model for it"
            )
        for what, needed, there in (
            ("words of weight memory", words, geometry.weight_words),
            ("words of banks", bank_words, geometry.bank_words),
            ("activation tables", tables, geometry.tables),
        ):
            if needed > there:
                raise BoardError(f"{name}: needs {needed} {what}, the engine has {there}")
        size = geometry.word_bytes
        found = [stream[at : at + size] for at in range(0, words * size, size)]
        return cls(name, stream, [int.from_bytes(word, "little") for word in found])

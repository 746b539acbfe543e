"""Whether an image fits an engine."""

from __future__ import annotations

from typing import Protocol

from secateur.hw.spec import HEADER


class Sizes(Protocol):
    """An engine's, as a Geometry or an Identity has them."""

    @property
    def n(self) -> int: ...
    @property
    def p(self) -> int: ...
    @property
    def tables(self) -> int: ...
    @property
    def weight_words(self) -> int: ...
    @property
    def bank_words(self) -> int: ...


def misfit(stream: bytes, sizes: Sizes, what: str) -> str | None:
    """Why an engine, called ``what``, would refuse an image for its size; None: it would not."""
    if len(stream) < HEADER.size:
        return f"{len(stream)} bytes are no image, its header has {HEADER.size}"
    _, _, n, p, tables, words, bank_words, _, _ = HEADER.unpack_from(stream)
    if (n, p) != (sizes.n, sizes.p):
        return f"compiled for {n}x{p}, the {what} is {sizes.n}x{sizes.p}; compile the model for it"
    for name, needed, there in (
        ("words of weight memory", words, sizes.weight_words),
        ("words a bank", bank_words, sizes.bank_words),
        ("activation tables", tables, sizes.tables),
    ):
        if needed > there:
            return f"needs {needed} {name}, the {what} has {there}"
    return None

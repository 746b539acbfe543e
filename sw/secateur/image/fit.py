"""Whether an image fits an engine."""

from __future__ import annotations

from typing import Protocol

from secateur.hw.spec import HEADER, unpack_features


class Sizes(Protocol):
    """The sizes of an engine, as a Geometry or a device's Identity has them."""

    @property
    def n(self) -> int: ...
    @property
    def p(self) -> int: ...
    @property
    def s(self) -> int: ...
    @property
    def tables(self) -> int: ...
    @property
    def weight_words(self) -> int: ...
    @property
    def bank_words(self) -> int: ...


def misfit(stream: bytes, sizes: Sizes, name: str) -> str | None:
    """Why an engine would refuse an image for its size; None: it would not.

    Parameters
    ----------
    stream : bytes of the image
    sizes : of the engine
    name : of the engine, for the message: "device"
    """
    if len(stream) < HEADER.size:
        return f"not an image: {len(stream)} bytes, a header alone has {HEADER.size}"
    _, _, n, p, features, words, bank_words, _, _ = HEADER.unpack_from(stream)
    tables, s = unpack_features(features)
    if (n, p) != (sizes.n, sizes.p):
        return f"compiled for {n}x{p}, the {name} is {sizes.n}x{sizes.p}; compile the model for it"
    if s not in (1, sizes.s):
        return f"compiled for {s} filter lanes, the {name} has {sizes.s}; compile the model for it"
    for what, needed, there in (
        ("words of weight memory", words, sizes.weight_words),
        ("words per bank", bank_words, sizes.bank_words),
        ("activation tables", tables, sizes.tables),
    ):
        if needed > there:
            return f"needs {needed} {what}, the {name} has {there}"
    return None

"""Image files: words with JSON metadata behind them, read, checked, written and exported."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from secateur.disk.storage import read, write_atomically
from secateur.errors import SecateurError
from secateur.hw import spec
from secateur.hw.ring import Source
from secateur.image.schema import problem

FORMATS = ("bin", "hex", "coe", "mem", "mif")
#: Bytes; no image is as large.
LIMIT = 1 << 26


@dataclass(frozen=True)
class Image:
    """A compiled model.

    Attributes
    ----------
    words : (words, N + 1) uint8, header included
    metadata : as ``image.md`` lists it, or empty
    name : for messages
    """

    words: npt.NDArray[np.uint8]
    metadata: dict[str, Any]
    name: str = field(default="the image", compare=False)

    @property
    def stream(self) -> bytes:
        """The bytes that the hardware loads."""
        return self.words.tobytes()

    @property
    def n(self) -> int:
        """Output-channel lanes that the image is for."""
        return self.stream[5]

    @property
    def p(self) -> int:
        """Pixel lanes that the image is for."""
        return self.stream[6]

    @property
    def bank_words(self) -> int:
        """Least depth of the banks."""
        return int(spec.HEADER.unpack_from(self.stream)[6])

    @property
    def cycles(self) -> int:
        """Cycles per inference, counted by the compiler."""
        return int(spec.HEADER.unpack_from(self.stream)[7])

    @property
    def waits(self) -> int:
        """Cycles besides, predicted, in which an inference that follows another at once waits for
        the source of the ring; 0 without one."""
        layers = self.metadata.get("layers", [])
        return sum(layer.get("memory_wait", {}).get("next", 0) for layer in layers)

    @property
    def tables(self) -> int:
        """Activation tables that the image needs."""
        return spec.unpack_features(self.stream[7])[0]

    @property
    def s(self) -> int:
        """Lanes that are filters in some layer, 1 in none."""
        return spec.unpack_features(self.stream[7])[1]

    @property
    def geometry(self) -> spec.Geometry:
        """The geometry that the image was compiled for, or else the smallest that runs it."""
        banks, s = 16, self.metadata.get("s", self.s)
        while banks < self.bank_words:
            banks *= 2
        return spec.Geometry(
            n=self.n,
            p=self.p,
            weight_words=self.metadata.get("weight_words", max(64, -(-len(self.words) // s) * s)),
            bank_words=self.metadata.get("bank_words", banks),
            tables=self.metadata.get("tables", self.tables),
            s=s,
            ring=self.metadata.get("ring", {}).get("words", 0),
        )

    @property
    def source(self) -> Source | None:
        """The source of the ring that the image was compiled for, or None."""
        ring = self.metadata.get("ring")
        return None if ring is None else Source(interval=ring["interval"], latency=ring["latency"])

    def save(self, path: Path | str) -> None:
        """Write the image and its metadata, atomically."""
        text = json.dumps(self.metadata, separators=(",", ":")).encode()
        write_atomically(Path(path), self.stream + text + _trailer(text))

    def __repr__(self) -> str:
        return f"<Image of {len(self.words):,} words for {self.n} x {self.p}>"


def _trailer(text: bytes) -> bytes:
    """The line behind the metadata: its CRC-32."""
    return f"\n{zlib.crc32(text):08x}\n".encode()


def load(path: Path | str) -> Image:
    """Read an image file.

    Raises
    ------
    SecateurError : the file is missing, is not an image, has another version, is cut short or
        altered, or its metadata are not those of ``image.md``
    """
    return parse(read(Path(path), LIMIT, "an image"), str(path))


def parse(data: bytes, name: str) -> Image:
    """As ``load``, from bytes; ``name`` is for messages."""
    again = "compile the model again"
    if len(data) < spec.HEADER.size or data[:4] != spec.MAGIC:
        raise SecateurError(f"{name}: not a Secateur image (no {spec.MAGIC.decode()} at its start)")
    _, version, n, p, features, words, bank_words, _, crc = spec.HEADER.unpack_from(data)
    if version != spec.VERSION:
        raise SecateurError(
            f"{name}: image version {version}, this Secateur reads {spec.VERSION}; {again}"
        )
    tables, s = spec.unpack_features(features)
    sound = n in spec.ALLOWED_N and 1 <= p <= spec.MAX_P and tables <= spec.MAX_TABLES
    if not sound or s > min(p, spec.MAX_S) or bank_words * n > 1 << 16:
        raise SecateurError(f"{name}: damaged header (N = {n}, P = {p}); {again}")
    size = words * (n + 1)
    if not spec.HEADER.size <= size <= len(data):
        raise SecateurError(
            f"{name}: {len(data)} bytes, the header promises {size} or more; the file is cut "
            f"short; {again}"
        )
    stream = bytearray(data[:size])
    stream[spec.HEADER_CRC_OFFSET : spec.HEADER.size] = bytes(4)
    if zlib.crc32(stream) != crc:
        raise SecateurError(f"{name}: CRC-32 does not match: the file was altered; {again}")
    metadata: Any = {}
    if len(data) > size:
        text = data[size : -len(_trailer(b""))]
        if data[size:] != text + _trailer(text):
            raise SecateurError(f"{name}: CRC-32 of its metadata does not match; {again}")
        try:
            metadata = json.loads(text)
        except (ValueError, RecursionError):
            metadata = None
        if not isinstance(metadata, dict):
            raise SecateurError(f"{name}: its metadata are not a JSON object; {again}")
    array = np.frombuffer(data[:size], dtype=np.uint8).reshape(words, n + 1)
    image = Image(array, metadata, name)
    _check(image, name, again)
    return image


def _check(image: Image, name: str, again: str) -> None:
    """Refuse metadata that are not those of ``image.md``, and sizes that no engine has."""
    fields = (image.n, image.p, image.cycles)
    found = problem(image.metadata, *fields) if image.metadata else None
    if found is not None:
        raise SecateurError(f"{name}: its metadata: {found}; {again}")
    try:
        geometry = image.geometry
    except ValueError as error:
        raise SecateurError(f"{name}: {error}; {again}") from None
    for what, needed, there in (
        ("weight_words", len(image.words), geometry.weight_words),
        ("bank_words", image.bank_words, geometry.bank_words),
        ("tables", image.tables, geometry.tables),
    ):
        if needed > there:
            raise SecateurError(
                f"{name}: its metadata: {what} is {there}, the header needs {needed}; {again}"
            )


def export(image: Image, style: str, depth: int | None = None) -> str | bytes:
    """The weight memory's contents for other tools.

    Parameters
    ----------
    image : the image
    style : ``bin`` raw bytes; ``hex`` for $readmemh; ``coe``, ``mem`` for Xilinx; ``mif`` for Intel
    depth : words of the memory (for ``mif``); the image's own length if None

    Raises
    ------
    SecateurError : an unknown style
    """
    if style == "bin":
        return image.stream
    digits = [bytes(word[::-1]).hex() for word in image.words]
    width = 8 * image.words.shape[1]
    if style == "hex":
        return "\n".join(digits) + "\n"
    if style == "coe":
        listed = ",\n".join(digits)
        head = "memory_initialization_radix=16;\nmemory_initialization_vector=\n"
        return f"{head}{listed};\n"
    if style == "mem":
        return "@0000\n" + "\n".join(digits) + "\n"
    if style == "mif":
        total = max(depth or 0, len(digits))
        lines = [f"{address:X} : {word};" for address, word in enumerate(digits)]
        if total > len(digits):
            lines.append(f"[{len(digits):X}..{total - 1:X}] : {0:0{width // 4}x};")
        head = f"WIDTH={width};\nDEPTH={total};\nADDRESS_RADIX=HEX;\nDATA_RADIX=HEX;\n"
        return head + "CONTENT BEGIN\n" + "\n".join(lines) + "\nEND;\n"
    raise SecateurError(f"format {style!r} is not one of {', '.join(FORMATS)}")

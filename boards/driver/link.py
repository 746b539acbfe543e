"""The host's side of the link: frames, repetition, sessions, as in ``link.md``.

It works on any object with the four members of a ``serial.Serial`` that ``Port`` lists.
"""

from __future__ import annotations

import random
import zlib
from typing import Protocol

from secateur.errors import SecateurError
from secateur.hw.link import protocol
from secateur.hw.link.protocol import END, ESCAPE, ESCAPED_END, ESCAPED_ESCAPE
from secateur.hw.spec import words_of

#: Seconds of silence, in addition to the time on the line, after which a request is repeated.
SILENCE = 0.25
#: Reads of a port in a row without a byte that make a silence.
QUIET_READS = 5
#: Times that a request is sent before the device is given up.
TRIES = 12
#: Bytes that are searched for an answer before the request is repeated.
MOST_BYTES = 4096


class LinkError(SecateurError):
    """The device cannot be reached."""


class Port(Protocol):
    """The members of a ``serial.Serial`` that the link needs.

    ``read`` returns fewer bytes, or none, when the port's own time-out has passed.
    """

    @property
    def in_waiting(self) -> int: ...
    def read(self, size: int) -> bytes: ...
    def write(self, data: bytes) -> int | None: ...
    def reset_input_buffer(self) -> None: ...


def encode(content: bytes) -> bytes:
    """The bytes on the line of a frame's header and words."""
    whole = content + zlib.crc32(content).to_bytes(protocol.CRC_BYTES, "little")
    escaped = {END: bytes([ESCAPE, ESCAPED_END]), ESCAPE: bytes([ESCAPE, ESCAPED_ESCAPE])}
    stuffed = b"".join(escaped.get(byte, bytes([byte])) for byte in whole)
    return bytes([END]) + stuffed + bytes([END])


class Decoder:
    """Finds the undamaged frames in the bytes from the line."""

    def __init__(self) -> None:
        self._frame = bytearray()
        self._escaped = self._bad = False

    def feed(self, line: bytes) -> list[bytes]:
        """Header and words of every frame that ends in ``line`` and whose CRC is right."""
        found = []
        for byte in line:
            if byte == END:
                content, crc = self._frame[:-4], self._frame[-4:]
                right = zlib.crc32(content).to_bytes(protocol.CRC_BYTES, "little") == crc
                if right and not self._bad and not self._escaped:
                    found.append(bytes(content))
                self._frame.clear()
                self._escaped = self._bad = False
            elif self._escaped:
                self._escaped = False
                self._bad |= byte not in (ESCAPED_END, ESCAPED_ESCAPE)
                self._frame.append(END if byte == ESCAPED_END else ESCAPE)
            elif byte == ESCAPE:
                self._escaped = True
            elif len(self._frame) < MOST_BYTES:
                self._frame.append(byte)
        return found


class Link:
    """Reads and writes registers of a device.

    A request is repeated until its answer comes; the device executes it exactly once. After a
    LinkError the next request begins a new session, so that a link survives a cable that was cut.

    Parameters
    ----------
    port : the serial port
    tries : times that a request is sent before the device is given up
    first : number of the first request of a session; None: random

    Attributes
    ----------
    repeated : requests that had to be sent again
    """

    def __init__(self, port: Port, *, tries: int = TRIES, first: int | None = None) -> None:
        if tries < 1:
            raise ValueError(f"tries must be at least 1, not {tries!r}")
        self.port, self.tries = port, tries
        self._first = first
        self._sequence = 0
        self._begun = False
        self._decoder = Decoder()
        self.repeated = 0

    def read(self, offset: int, count: int = 1) -> list[int]:
        """Up to ``count`` reads of a register; fewer if the device refuses one.

        Raises
        ------
        LinkError : there is no answer
        """
        self._begin()
        words = self._exchange(offset >> 2, count, b"")[1]
        return words_of(words, protocol.WORD_BYTES)

    def write(self, offset: int, words: list[int]) -> int:
        """Write words to a register.

        Returns
        -------
        how many were written before the device refused one

        Raises
        ------
        LinkError : there is no answer
        """
        self._begin()
        payload = b"".join(word.to_bytes(protocol.WORD_BYTES, "little") for word in words)
        return self._exchange(offset >> 2 | protocol.WRITE, len(words), payload)[0]

    def _begin(self) -> None:
        """Begin a session by a read of register 0, if there is none."""
        if not self._begun:
            self.port.reset_input_buffer()
            self._decoder = Decoder()
            self._sequence = random.randrange(256) if self._first is None else self._first
            self._exchange(protocol.OPEN, 1, b"")

    def _exchange(self, second: int, count: int, payload: bytes) -> tuple[int, bytes]:
        """Accesses done and the answer's words."""
        if not 0 <= count <= protocol.MAX_ACCESSES:
            raise ValueError(f"count must be 0 to {protocol.MAX_ACCESSES}, not {count!r}")
        self._begun = False
        line = encode(bytes([self._sequence, second, count]) + payload)
        for attempt in range(self.tries):
            self.repeated += attempt > 0
            self.port.write(line)
            answer = self._answer(second, count)
            if answer is not None:
                self._begun = True
                self._sequence = (self._sequence + 1) % 256
                return answer
        raise LinkError(
            "no answer from the device; check the cable, the baud rate, that the board is "
            "configured with the engine, and that no other program uses the port"
        )

    def _answer(self, second: int, count: int) -> tuple[int, bytes] | None:
        quiet = total = 0
        while quiet < QUIET_READS and total < MOST_BYTES:
            line = self.port.read(self.port.in_waiting or 1)
            total += len(line)
            quiet = 0 if line else quiet + 1
            for content in self._decoder.feed(line):
                found = self._match(content, second, count)
                if found is not None:
                    return found
        return None

    def _match(self, content: bytes, second: int, count: int) -> tuple[int, bytes] | None:
        """Accesses done and words, if this is the answer to the request."""
        if len(content) < protocol.HEADER_BYTES or content[:2] != bytes([self._sequence, second]):
            return None
        third, words = content[2], content[protocol.HEADER_BYTES :]
        done = third & protocol.COUNT
        refused = bool(third & protocol.REFUSED)
        expected = 0 if second & protocol.WRITE else protocol.WORD_BYTES * done
        if not third & protocol.ANSWER or len(words) != expected:
            return None
        return (done, words) if (done < count if refused else done == count) else None

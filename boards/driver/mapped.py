"""Registers of an engine on the bus of this processor, such as that of a Zynq."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
from collections.abc import Iterator
from typing import Protocol

from secateur.boards.driver.link import LinkError
from secateur.hw.soc.registers import BY_NAME, OF_FLASH, OF_RING, field
from secateur.hw.spec import Status

#: Bytes from the first register on.
_SPAN = 1 << 8
#: Where addresses of the processor's bus are.
MEMORY = "/dev/mem"
_BY_OFFSET = {register.offset: register for register in BY_NAME.values()}


class Words(Protocol):
    """Registers as words of 32 bits, by their number; each use is one access of the bus."""

    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


class MappedLink:
    """Registers in memory, as ``Device`` wants them.

    A processor that is refused an access ends the program. So no access is made that the engine
    would refuse: the status is read before each one that it decides on.

    Parameters
    ----------
    words : the registers
    ring : the engine has a ring, and its registers

    Attributes
    ----------
    repeated : requests that had to be sent again: none
    """

    repeated = 0

    def __init__(self, words: Words, *, ring: bool = False) -> None:
        self.words, self.ring = words, ring

    def read(self, offset: int, count: int = 1) -> list[int]:
        """Up to ``count`` reads of a register; fewer if the engine would refuse one."""
        found = []
        while len(found) < count and self._allowed(offset, "r"):
            found.append(self.words[offset >> 2])
        return found

    def write(self, offset: int, words: list[int]) -> int:
        """Write words to a register.

        Returns
        -------
        how many were written before the engine would have refused one
        """
        done = 0
        while done < len(words) and self._allowed(offset, "w"):
            self.words[offset >> 2] = words[done]
            done += 1
        return done

    def _allowed(self, offset: int, access: str) -> bool:
        """Whether the engine takes an access; see ``docs/registers.md``."""
        register = _BY_OFFSET.get(offset)
        if register is None or access not in register.access or register.name in OF_FLASH:
            return False
        if register.name in OF_RING:
            return self.ring
        if register.name == "IMAGE":
            return not self.ring
        if register.name == "IMAGE_CRC":
            return self._status("STATE") in (Status.WAITING, Status.RUNNING)
        decides = {"INPUT": "INPUT_READY", "RESULT": "RESULT_VALID"}.get(register.name)
        return decides is None or bool(self._status(decides))

    def _status(self, name: str) -> int:
        part = field("STATUS", name)
        return (self.words[BY_NAME["STATUS"].offset >> 2] & part.mask) >> part.low


def find_memory(port: str) -> tuple[str, int] | None:
    """The file that maps registers, and their address in it; None: ``port`` is a serial port.

    Parameters
    ----------
    port : an address such as ``0x43c00000``, or a device of Linux' userspace I/O, ``/dev/uio0``
    """
    if re.fullmatch("0x[0-9a-fA-F]+", port):
        return MEMORY, int(port, 16)
    return (port, 0) if re.fullmatch(r"uio\d+", os.path.basename(port)) else None


@contextlib.contextmanager
def open_memory(path: str, address: int, *, ring: bool = False) -> Iterator[MappedLink]:
    """Map registers.

    Parameters
    ----------
    path : MEMORY, or a device of userspace I/O
    address : of the first register in the file
    ring : as in ``MappedLink``

    Raises
    ------
    LinkError : the file cannot be mapped there
    """
    page, inside = divmod(address, mmap.PAGESIZE)
    try:
        file = os.open(path, os.O_RDWR | os.O_SYNC)
        try:
            memory = mmap.mmap(file, inside + _SPAN, offset=page * mmap.PAGESIZE)
        finally:
            os.close(file)
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LinkError(
            f"{path} cannot be mapped at {address:#x}: {reason}; run this as root on the processor "
            f"of the engine's bus"
        ) from None
    with memory, memoryview(memory) as whole, whole[inside : inside + _SPAN] as part:
        with part.cast("I") as words:
            yield MappedLink(words, ring=ring)

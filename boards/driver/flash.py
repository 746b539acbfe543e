"""Another image for the flash of a board, through the registers of its engine.

The flash has room for two images, and a sector that says which one counts (``hw.flash.Slots``). The
new image goes to where the other one is, and counts once it is there as a whole: whenever the power
goes, one of the two counts.
"""

from __future__ import annotations

from collections.abc import Callable

from secateur.boards.driver.device import Device, DeviceError
from secateur.hw.flash import SECTOR, WAKE
from secateur.hw.link.protocol import MAX_ACCESSES
from secateur.hw.soc.registers import BY_NAME, field
from secateur.image.fit import misfit

#: Commands of a serial flash.
ENABLE, STATUS, NAME, READ, PROGRAM, ERASE = 0x06, 0x05, 0x9F, 0x03, 0x02, 0x20
#: Bit of the status: it erases or programs.
BUSY = 1
PAGE = 256
#: Bytes that a read of FLASH takes.
TAKEN = 4
#: Reads of its status after which a flash is given up. An erasure takes up to 0.4 s, an answer at
#: least 100 us.
PATIENCE = 40_000
#: Of the sector that says which image counts: a byte that is not written, and one that is. Where
#: so many are written, the sector is erased. That leaves the first image, as they do.
BLANK, WRITTEN, MOST = 0xFF, 0x00, SECTOR - 2

#: Called with what is done, how many bytes of it, all bytes, and a note.
Progress = Callable[[str, int, int, str], object]

_ADDRESSES = ("CHOICE", "FIRST", "SECOND")
_AT = BY_NAME["FLASH"].offset
_HOLD, _SELECT, _SEND = (field("FLASH", name).mask for name in ("HOLD", "SELECT", "SEND"))


class FlashLines:
    """The lines of a flash, held by the host from the first transfer on until ``release``.

    Parameters
    ----------
    device : its engine
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._changing = False

    def transfer(self, *sent: bytes, takes: int = 0) -> bytes:
        """Send bytes, each part in a transfer of its own, and take some in the last.

        Parameters
        ----------
        *sent : the parts
        takes : bytes to be taken

        Raises
        ------
        DeviceError : the device refuses it: its image is not in a flash with room for two
        """
        words = []
        for part in sent:
            words += [_HOLD, *(_HOLD | _SELECT | _SEND | byte for byte in part)]
        self._write(words)
        taken = b""
        while len(taken) < takes:
            wanted = min(MAX_ACCESSES, -(-(takes - len(taken)) // TAKEN))
            found = self.device.link.read(_AT, wanted)
            if not found:
                raise DeviceError("the device refuses a read of its register FLASH")
            taken += b"".join(word.to_bytes(TAKEN, "little") for word in found)
        self._write([_HOLD])
        return taken[:takes]

    def _await_change(self) -> None:
        for _ in range(PATIENCE):
            if not self.transfer(bytes([STATUS]), takes=1)[0] & BUSY:
                self._changing = False
                return
        raise DeviceError("the flash does not end an erasure or a page; is the board powered?")

    def change(self, command: int, address: int, data: bytes = b"") -> None:
        """Erase or program, and wait until that is done.

        Parameters
        ----------
        command : ERASE or PROGRAM
        address : of the first byte
        data : to be programmed, within a page
        """
        self._changing = True
        self.transfer(bytes([ENABLE]), bytes([command]) + address.to_bytes(3, "big") + data)
        self._await_change()

    def read(self, address: int, count: int) -> bytes:
        """Bytes from an address on."""
        return self.transfer(bytes([READ]) + address.to_bytes(3, "big"), takes=count)

    def release(self) -> None:
        """Give the lines back to the engine, which begins again with the image that counts.

        A flash that still erases would not say which one that is: it is waited for.
        """
        try:
            if self._changing:
                self._await_change()
        finally:
            self._write([0])
            self.device.write("CONTROL", field("CONTROL", "RESET").mask)

    def _write(self, words: list[int]) -> None:
        for at in range(0, len(words), MAX_ACCESSES):
            part = words[at : at + MAX_ACCESSES]
            if self.device.link.write(_AT, part) != len(part):
                raise DeviceError(
                    "the image of this device is not in a flash with room for two; write "
                    "flash.bin of `secateur build` to it"
                )


def update(device: Device, image: bytes, progress: Progress | None = None) -> None:
    """Write an image to the flash of a board, and have the engine take it.

    Parameters
    ----------
    device : its engine
    image : the stream of an image
    progress : called after every part

    Raises
    ------
    DeviceError : the image does not fit, there is no such flash, or it does not hold what was
        written: then the image that counted before still counts
    """
    problem = misfit(image, device.identity, "device")
    if problem is not None:
        raise DeviceError(f"the image does not fit: {problem}")
    lines, told = FlashLines(device), progress or (lambda *_: None)
    lines.transfer()
    try:
        choice, *images = (device.register(f"FLASH_{name}") for name in _ADDRESSES)
        _check_room(lines, choice, images, len(image))
        before = lines.read(choice, SECTOR).find(BLANK)
        if not 0 <= before < MOST:
            lines.change(ERASE, choice)
            before = 0
        at = images[(before + 1) % 2]
        _write(lines, at, image, told)
        lines.change(PROGRAM, choice + before, bytes([WRITTEN]))
        if lines.read(choice + before, 1) != bytes([WRITTEN]):
            raise DeviceError("the flash does not keep which image counts: it may be protected")
    finally:
        lines.release()
    device.load(image)


def _check_room(lines: FlashLines, choice: int, images: list[int], size: int) -> None:
    """Wake the flash, and refuse one that is missing or too small."""
    lines.transfer(*WAKE)
    name = lines.transfer(bytes([NAME]), takes=3)
    if len(set(name)) == 1:
        raise DeviceError("no flash answers on the board's lines")
    # Of the numbers of sizes, 0x1a to 0x1f are left out: 64 MiB are 0x20.
    room = 1 << (name[2] if name[2] < 0x20 else name[2] - 6)
    if max(images) >= room:
        raise DeviceError(
            f"the flash has {room:,} bytes, and the second image begins at {max(images):,}; write "
            f"flash.bin of `secateur build` to it instead"
        )
    ends = (*images, choice, room)
    least = min(min(end for end in ends if end > at) - at for at in images)
    if size > least:
        raise DeviceError(f"an image may have {least:,} bytes in this flash, not {size:,}")


def _write(lines: FlashLines, at: int, image: bytes, told: Progress) -> None:
    """Erase what an image needs, program it, and compare."""
    for sector in range(0, len(image), SECTOR):
        lines.change(ERASE, at + sector)
        told("erase", min(sector + SECTOR, len(image)), len(image), "")
    for page in range(0, len(image), PAGE):
        lines.change(PROGRAM, at + page, image[page : page + PAGE])
        told("write", min(page + PAGE, len(image)), len(image), "")
    for page in range(0, len(image), SECTOR):
        part = image[page : page + SECTOR]
        if lines.read(at + page, len(part)) != part:
            raise DeviceError(
                f"the flash does not hold what was written, from byte {page} on: it may be "
                f"protected, or worn out; the image that counted before still counts"
            )
        told("compare", page + len(part), len(image), "")

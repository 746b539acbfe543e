"""Constants of the frames of the host link, see ``link.md``. Imports nothing.

A frame is a header of three bytes (sequence number, operation, count), words of four bytes, and
the CRC-32 of all these. It is sent between two ``END`` bytes, stuffed so that no other byte is one.
"""

#: Stuffing: the delimiter of frames, the escape, and the codes of these two bytes behind an escape.
END, ESCAPE, ESCAPED_END, ESCAPED_ESCAPE = 0xC0, 0xDB, 0xDC, 0xDD

HEADER_BYTES, WORD_BYTES, CRC_BYTES = 3, 4, 4
#: Most accesses that a frame carries.
MAX_ACCESSES = 16

#: Second byte of the header: an access that writes; a first frame, which is always executed; and
#: the register's offset / 4.
WRITE, OPEN, ADDRESS = 0x80, 0x40, 0x3F
#: Third byte: set in answers; the access behind the counted ones was refused; accesses.
ANSWER, REFUSED, COUNT = 0x80, 0x40, 0x3F

#: CRC-32 register after a whole frame, its CRC included, without the final inversion.
RESIDUE = 0xDEBB20E3

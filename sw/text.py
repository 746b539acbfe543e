"""Text that comes from a file, made fit for a message and for a terminal."""

from __future__ import annotations

#: Characters of a name in a message, and of a whole message.
NAME, MESSAGE = 80, 4000


def printable(text: object, most: int = MESSAGE) -> str:
    """``text`` on one line: control characters, lone surrogates and marks of direction as escapes,
    and what is longer than ``most`` characters cut in the middle, with a count of what is gone.
    """
    whole = str(text)
    if len(whole) > most:
        kept = max(most // 2, 1)
        whole = f"{whole[:kept]}[... {len(whole) - 2 * kept} more ...]{whole[-kept:]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in whole)


def name(text: object) -> str:
    """A name from a file as messages quote it: escaped and cut."""
    return printable(text, NAME)

"""Text that comes from a file, made fit for a message and for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

#: Characters of a name in a message, of another's error, and of a whole message.
NAME, ERROR, MESSAGE = 80, 400, 4000


def printable(text: object, most: int = MESSAGE) -> str:
    """``text`` on one line.

    Control characters, lone surrogates and marks of direction become escapes. A text of more than
    ``most`` characters is cut in the middle, with a count of the characters that were removed.
    """
    whole = str(text)
    shown = _fitting(whole, most)
    if len(shown) == len(whole):
        return "".join(shown)
    head, tail = _fitting(whole, most // 2), _fitting(reversed(whole), most // 2)[::-1]
    gone = len(whole) - len(head) - len(tail)
    return f"{''.join(head)}[... {gone} more ...]{''.join(tail)}"


def name(text: object) -> str:
    """A name from a file as messages quote it: escaped and cut."""
    return printable(text, NAME)


def first_line(error: Exception) -> str:
    """The first line of an exception's text, or its type if it has none, escaped and cut."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return printable(lines[0], ERROR)


def _fitting(characters: Iterable[str], most: int) -> list[str]:
    """Characters as they are shown, up to ``most``."""
    taken, size = list[str](), 0
    for character in characters:
        shown = character if character.isprintable() else ascii(character)[1:-1]
        size += len(shown)
        if size > most:
            break
        taken.append(shown)
    return taken

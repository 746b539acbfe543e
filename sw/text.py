"""Text that comes from a file, made fit for a message and for a terminal."""

from __future__ import annotations

#: Characters of a name in a message, and of a whole message.
NAME, MESSAGE = 80, 4000


def printable(text: object, most: int = MESSAGE) -> str:
    """``text`` on one line: control characters, lone surrogates and marks of direction as escapes,
    and what is longer than ``most`` characters cut in the middle, with a count of what is gone.
    """
    # Cut twice: before, or a long text would take long; after, since escapes are longer.
    return _cut("".join(map(_escaped, _cut(str(text), most))), most)


def name(text: object) -> str:
    """A name from a file as messages quote it: escaped and cut."""
    return printable(text, NAME)


def _escaped(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    kept = max(most // 2, 1)
    return f"{text[:kept]}[... {len(text) - 2 * kept} more ...]{text[-kept:]}"

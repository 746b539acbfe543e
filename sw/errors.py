"""What users see as a message, not as a traceback."""

from __future__ import annotations


class SecateurError(ValueError):
    """Bad input: the message names what is wrong, what was expected and what to do."""


class SecateurWarning(UserWarning):
    """Something that works, but perhaps not as was meant; the command line prints it as a line."""

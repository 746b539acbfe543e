"""The one exception that users see as a message, not as a traceback."""

from __future__ import annotations


class SecateurError(ValueError):
    """Bad input: the message names what is wrong, what was expected and what to do."""

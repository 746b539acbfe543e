"""Errors and warnings that users see as one line, not as a traceback."""

from __future__ import annotations

from secateur.text import printable


class SecateurError(ValueError):
    """Bad input: the message names the fault, the expected form and the remedy.

    It is one printable line, whatever it quotes: it may go to a terminal or into a log.
    """

    def __init__(self, message: object) -> None:
        super().__init__(printable(message))


class TargetTooSmall(SecateurError):
    """The network needs more of something than the target has; a larger one may have it.

    Parameters
    ----------
    message : what is too small
    pruning : how far to prune the network so that it is not; empty if that does not help
    """

    def __init__(self, message: object, pruning: str = "") -> None:
        super().__init__(message)
        self.pruning = pruning


class SecateurWarning(UserWarning):
    """Something that works, but perhaps not as intended; the command line prints it as a line."""

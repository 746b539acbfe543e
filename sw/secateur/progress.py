"""How long work says what it has done: one form for pruning, examples and the API."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A function that is called when long work begins, and after every step of it."""

    def __call__(self, stage: str, done: int, total: int, note: str, /) -> None:
        """Take a step.

        Parameters
        ----------
        stage : name of the work, such as "train"
        done : steps done; 0 when the work begins
        total : steps to do; 0 if that is not known
        note : one line on the result so far, such as "loss 0.1234"; "" if there is none
        """


def silent(stage: str, done: int, total: int, note: str, /) -> None:
    """Show nothing.

    Parameters
    ----------
    stage, done, total, note : as for `Progress`
    """

"""Printing to stdout and stderr.

Names come from files, and files may come from anybody: all text that rich prints passes through
`Terminal`, which prints markup as text and control characters as escapes. With ``--json`` stdout
holds one JSON object and nothing else, whatever the code of a user's model prints.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from secateur.text import NAME, name, printable

Data = dict[str, Any]
#: Characters of a text on the terminal.
_MOST = 1 << 20


class Terminal(Console):
    """A console that prints text without markup, and control characters as escapes.

    Parameters
    ----------
    stderr : print to stderr instead of stdout
    """

    def __init__(self, *, stderr: bool = False) -> None:
        # The highlighter takes minutes for a long word.
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Rich's rendering of a text; all texts pass through here, those of tables too."""
        return super().render_str(printable(text, _MOST), **options)


class Rows(Table):
    """A table of names and numbers; long cells are cut."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row of texts; a long first cell leaves the other columns their width."""
        first, *rest = map(name, cells)
        if len(first) > NAME // 2:
            self.columns[0].no_wrap, self.columns[0].overflow = False, "fold"
        super().add_row(first, *rest, **options)


def plain(text: str) -> Text:
    """A text for those parts of rich that parse markup without asking the console."""
    return Text(printable(text))


#: For results, on stdout (looked up at each print).
console = Terminal()
#: For progress and notes.
progress_console = Terminal(stderr=True)

#: JSON texts of `emit` within `json_alone`; None outside it.
_kept: list[str] | None = None


def emit(data: Data, as_json: bool, show: Callable[[Data], None]) -> None:
    """Print a result.

    Parameters
    ----------
    data : the result
    as_json : print it as JSON
    show : prints it as tables otherwise
    """
    if not as_json:
        show(data)
        return
    text = json.dumps(_finite(data), allow_nan=False)
    if _kept is None:
        print(text)
    else:
        _kept.append(text)


def _finite(value: Any) -> Any:
    """``value`` with null for infinities and NaN, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def json_alone(wanted: bool) -> Iterator[None]:
    """If ``wanted``, send all that is printed in the context to stderr, and the JSON of `emit` to
    stdout at its end.

    This covers Python, libraries in C and the processes that are started.
    """
    global _kept
    if not wanted:
        yield
        return
    stdout, _kept = sys.stdout, []
    _flush(stdout)
    descriptor = os.dup(1)
    try:
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        yield
    finally:
        _flush(stdout)
        os.dup2(descriptor, 1)
        os.close(descriptor)
        sys.stdout = stdout
        kept, _kept = _kept, None
        for text in kept:
            print(text)


def _flush(stdout: Any) -> None:
    """Flush the buffers of Python and C before stdout is redirected."""
    for stream in (stdout, sys.stdout, sys.__stdout__):
        if stream is not None:
            stream.flush()
    ctypes.CDLL(None).fflush(None)

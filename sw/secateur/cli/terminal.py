"""Printing to stdout and stderr.

Names come from files, and files may come from anybody: all text that rich prints passes through
`Terminal`, which prints markup as text and control characters as escapes. With ``--json`` stdout
holds one JSON object and nothing else, whatever the code of a user's model prints.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from secateur.text import name, printable

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
    """A table of names and numbers; long texts from files are cut.

    Columns that do not fit beside the others follow in further tables, behind the first column.
    """

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row of texts."""
        super().add_row(*map(name, cells), **options)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Rich's rendering of all pieces."""
        for piece in self._pieces(console, options):
            yield from Table.__rich_console__(piece, console, options)

    def _pieces(self, console: Console, options: ConsoleOptions) -> Iterator[Rows]:
        most = options.max_width
        widths = [self._width_of([at], console, options) for at in range(len(self.columns))]
        edge = self._width_of([], console, options)
        # A long name goes on in the next line, rather than take the place of the numbers.
        widths[0] = min(widths[0], most // 2)
        pieces = [[0]]
        for at in range(1, len(widths)):
            piece = pieces[-1]
            taken = edge + sum(widths[i] - edge for i in (*piece, at))
            if len(piece) > 1 and taken > most:
                pieces.append([0, at])
            else:
                piece.append(at)
        if len(pieces) == 1:
            yield self
            return
        for number, piece in enumerate(pieces):
            found = self._with(piece)
            found.title = None if number else self.title
            found.columns[0].max_width = widths[0] - edge
            yield found

    def _with(self, columns: list[int]) -> Rows:
        """The table of some of its columns."""
        found = copy.copy(self)
        found.columns = [
            replace(self.columns[at], _index=index) for index, at in enumerate(columns)
        ]
        return found

    def _width_of(self, columns: list[int], console: Console, options: ConsoleOptions) -> int:
        """Characters that a table of some columns takes if nothing is folded."""
        unbound = options.update(max_width=_MOST)
        return self._with(columns).__rich_measure__(console, unbound).maximum


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

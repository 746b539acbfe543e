"""What goes to stdout and to the terminal.

Names come from files, and files from anybody: all text that rich prints passes through `Terminal`,
which takes markup as text and writes control characters as escapes. With ``--json`` stdout has one
JSON object and nothing else, whatever the code of a user's model prints.
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
    """A console that prints every text as it is, on one line, markup and control characters, too.

    ``stderr`` : whether it is stderr
    """

    def __init__(self, *, stderr: bool = False) -> None:
        # Of a long word the highlighter takes minutes.
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """What rich makes of a text, in tables as well; none comes to it by another way."""
        return super().render_str(printable(text, _MOST), **options)


class Rows(Table):
    """A table whose cells are names and numbers; long ones are cut."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row of texts; the other columns keep their place beside a long first one."""
        first, *rest = map(name, cells)
        if len(first) > NAME // 2:
            self.columns[0].no_wrap, self.columns[0].overflow = False, "fold"
        super().add_row(first, *rest, **options)


def plain(text: str) -> Text:
    """A text for those parts of rich that would look for markup in it by themselves."""
    return Text(printable(text))


#: For results, on stdout as it is when something is printed.
console = Terminal()
#: For progress and notes.
progress_console = Terminal(stderr=True)

#: What `emit` was given within `json_alone`; None outside of it.
_kept: list[str] | None = None


def emit(data: Data, as_json: bool, show: Callable[[Data], None]) -> None:
    """Print a result as JSON or by ``show``."""
    if not as_json:
        show(data)
        return
    text = json.dumps(_finite(data), allow_nan=False)
    if _kept is None:
        print(text)
    else:
        _kept.append(text)


def _finite(value: Any) -> Any:
    """JSON has no infinity and no NaN: null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def json_alone(wanted: bool) -> Iterator[None]:
    """If ``wanted``, what is printed in the context goes to stderr: by Python, by libraries in C
    and by processes that are started. What `emit` is given goes to stdout at the end.
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
    """Buffers of Python and of C, before it changes where they go."""
    for stream in (stdout, sys.stdout, sys.__stdout__):
        if stream is not None:
            stream.flush()
    ctypes.CDLL(None).fflush(None)

"""TOML tables to dataclasses."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from pathlib import Path
from typing import Any

from secateur.disk.storage import read
from secateur.errors import SecateurError

#: Bytes; files written by hand are smaller.
LIMIT = 1 << 18
#: A float that may be negative; others may not.
Signed = typing.NewType("Signed", float)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises
    ------
    SecateurError : no such file, or not TOML
    """
    try:
        return tomllib.loads(read(path, LIMIT, "a TOML file").decode())
    except SecateurError:
        raise
    except (ValueError, RecursionError) as error:  # also of numbers too long, and tables too deep
        raise SecateurError(f"{path}: not a TOML file: {error}") from None


def parse(kind: Any, table: Any, path: str, where: str) -> Any:
    """An object of a dataclass from a table.

    Parameters
    ----------
    kind : the dataclass
    table : the table
    path : of the file, for messages
    where : name of the table, "" at the top

    Raises
    ------
    SecateurError : an unknown key, a missing one, or one of a wrong type
    """
    if not isinstance(table, dict):
        raise SecateurError(f"{path}: {where} must be a table")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.name != "folder"}
    prefix = f"{where}." if where else ""
    for key in table:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {prefix}{near[0]}? " if near else ""
            raise SecateurError(
                f"{path}: unknown key {prefix}{key}; {hint}"
                f"{where or 'a recipe'} has {', '.join(fields)}"
            )
    values = {}
    for name, entry in fields.items():
        if name in table:
            values[name] = _value(hints[name], table[name], path, prefix + name)
        elif entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
            raise SecateurError(f"{path}: {prefix}{name} is missing")
    return kind(**values)


def _value(hint: Any, value: Any, path: str, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return parse(hint, value, path, name)
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    options = typing.get_args(hint) if union else (hint,)
    if typing.get_origin(hint) is list:
        (element,) = typing.get_args(hint)
        if isinstance(value, list):
            return [_value(element, item, path, name) for item in value]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if Signed in options and math.isfinite(value):
            return float(value)
        if float in options and 0 <= value < math.inf:
            return float(value)
        if int in options and type(value) is int and value >= 0:
            return value
    elif type(value) in options:
        return value
    named = [float if o is Signed else o for o in options if o is not type(None)]
    wanted = " or ".join(getattr(o, "__name__", str(o)) for o in named)
    limit = ", 0 or more" if options and {int, float} & set(options) else ""
    raise SecateurError(f"{path}: {name} must be {wanted}{limit}, not {value!r}")

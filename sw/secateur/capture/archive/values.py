"""Checks of single values in the JSON of an archive.

A check returns a copy that holds the checked parts and nothing else. When torch reads an archive,
names become variables and attributes of generated code, and sizes in symbols are evaluated. Here
both have a few known forms.
"""

from __future__ import annotations

import keyword
import math
import re
import unicodedata
from collections.abc import Callable
from typing import Any

import torch

from secateur.errors import SecateurError
from secateur.text import name

#: A check of a value; the text names the place of the value.
Check = Callable[[Any, str], Any]

#: Characters of a name and of another text.
_NAME, _TEXT = 500, 10_000
#: Names that generated code uses.
_IN_CODE = frozenset(
    ("self", "getattr", "inf", "nan", "NoneType", "torch", "device", "fx_pytree", "pytree")
)
#: Attributes that a tensor may not hide, of a graph module itself and of modules in it.
_OF_GRAPH = frozenset(dir(torch.fx.GraphModule(torch.nn.Module(), torch.fx.Graph())))
_OF_MODULE = frozenset(dir(torch.nn.Module()))
_VARIABLE = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]*")
_ATTRIBUTE = re.compile(r"(?!__)[\w-]+")
#: A size that is a symbol, as torch writes it, and the end of such a text.
_SYMBOL = re.compile(r"Symbol\('(s[0-9]{1,6})'(?:, (?:positive|integer|nonnegative)=True)*\)")
_OF_SIZES = ", positive=True, integer=True)"


def fault(where: str, what: str) -> SecateurError:
    """The error for a value that is not valid."""
    return SecateurError(f"{where}: {what}")


def _wanted(where: str, what: str, value: object) -> SecateurError:
    shown = name(repr(value)) if isinstance(value, str) else type(value).__name__
    return fault(where, f"expected {what}, not {shown}")


def flag(value: Any, where: str) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise _wanted(where, "true or false", value)
    return value


def whole(value: Any, where: str) -> int:
    """An integer of 64 bits."""
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise _wanted(where, "an integer of 64 bits", value)
    return value


def count(value: Any, where: str) -> int:
    """An integer of 64 bits, not negative."""
    if whole(value, where) < 0:
        raise fault(where, f"{value} is negative")
    return int(value)


def number(value: Any, where: str) -> float | str:
    """A float, as torch writes it: JSON has no infinities."""
    if value in ("Infinity", "-Infinity", "NaN") and isinstance(value, str):
        return value
    if type(value) not in (int, float):
        raise _wanted(where, "a number", value)
    if not math.isfinite(float(whole(value, where) if type(value) is int else value)):
        raise fault(where, "the number is too large")
    return float(value)


def text(value: Any, where: str) -> str:
    """A text that is only shown or compared."""
    if not isinstance(value, str) or len(value) > _TEXT or not value.isprintable():
        raise _wanted(where, f"a text of up to {_TEXT:,} characters that print", value)
    return value


def variable(value: Any, where: str) -> str:
    """The name of a value: it becomes a variable of generated code."""
    fits = isinstance(value, str) and len(value) <= _NAME and _VARIABLE.fullmatch(value)
    if not fits or keyword.iskeyword(value) or value in _IN_CODE:
        raise _wanted(where, "a name of letters, digits and underscores", value)
    return str(value)


def attribute_path(value: Any, where: str) -> str:
    """The path of a parameter or buffer, ``layers.0.weight``."""
    if not isinstance(value, str) or len(value) > _NAME:
        raise _wanted(where, "a path of names", value)
    for index, part in enumerate(value.split(".")):
        taken = part in (_OF_MODULE if index else _OF_GRAPH) or keyword.iskeyword(part)
        normal = unicodedata.normalize("NFKC", part) == part
        if not _ATTRIBUTE.fullmatch(part) or taken or not normal:
            raise _wanted(where, "a path of names as PyTorch allows them", value)
    return value


def size(value: Any, where: str) -> dict[str, Any]:
    """A size of an input: a number, or a symbol.

    Nothing is evaluated: an expression in symbols becomes its value in the example.
    """
    ((kind, held),) = union("a size", as_int=count, as_expr=_SIZE)(value, where).items()
    if kind == "as_int":
        return {"as_int": held}
    found = _SYMBOL.fullmatch(held["expr_str"]) if isinstance(held["expr_str"], str) else None
    if found is None:
        return dict(held["hint"])
    return {"as_expr": {"expr_str": f"Symbol({found[1]!r}{_OF_SIZES}", "hint": held["hint"]}}


def product(sizes: list[dict[str, Any]]) -> dict[str, Any]:
    """The product of sizes, as a size."""
    known = [
        one.get("as_int", one.get("as_expr", {}).get("hint", {}).get("as_int")) for one in sizes
    ]
    symbols = [one["as_expr"]["expr_str"] for one in sizes if "as_expr" in one]
    hint = {"as_int": math.prod(known)}
    if not symbols:
        return hint
    number = math.prod(one["as_int"] for one in sizes if "as_int" in one)
    text = f"Mul(Integer({number}), {', '.join(symbols)})"
    return {"as_expr": {"expr_str": text, "hint": hint}}


def symbol(key: str) -> bool:
    """Whether a key names a size that is a symbol."""
    return _SYMBOL.fullmatch(f"Symbol({key!r}{_OF_SIZES}") is not None


def one_of(*values: Any) -> Check:
    """A check for one of a few values."""

    def check(value: Any, where: str) -> Any:
        if not any(type(value) is type(known) and value == known for known in values):
            raise _wanted(where, "one of " + ", ".join(map(str, values)), value)
        return value

    return check


def optional(of: Check) -> Check:
    """A check for a value or null."""
    return lambda value, where: None if value is None else of(value, where)


def many(of: Check) -> Check:
    """A check for a list."""

    def check(value: Any, where: str) -> list[Any]:
        if not isinstance(value, list):
            raise _wanted(where, "a list", value)
        return [of(item, f"{where}[{index}]") for index, item in enumerate(value)]

    return check


def record(_optional: dict[str, Check] | None = None, /, **fields: Check) -> Check:
    """A check for an object; unknown keys are removed."""

    def check(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wanted(where, "an object", value)
        missing = next((key for key in fields if key not in value), None)
        if missing is not None:
            raise fault(where, f"has no {missing!r}")
        known = fields | {k: v for k, v in (_optional or {}).items() if k in value}
        return {key: of(value[key], f"{where}.{key}") for key, of in known.items()}

    return check


def union(what: str, **kinds: Check) -> Check:
    """A check for an object with one key; each key has its own check."""

    def check(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) != 1:
            raise _wanted(where, f"{what}, an object of one key", value)
        ((kind, held),) = value.items()
        if kind not in kinds:
            raise fault(where, f"{name(kind)} is not supported as {what}")
        return {kind: kinds[kind](held, f"{where}.{kind}")}

    return check


_SIZE = record(expr_str=lambda value, _: value, hint=union("the size of an example", as_int=count))

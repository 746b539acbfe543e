"""Checks of single values in the JSON of an archive.

What a check returns is a copy that holds what was checked and nothing else. Names and sizes of an
archive become Python when torch reads it: names as variables and attributes of generated code,
sizes as expressions that are evaluated. Here both are syntax of a few known forms.
"""

from __future__ import annotations

import ast
import keyword
import math
import re
import unicodedata
from collections.abc import Callable
from typing import Any

import torch

from secateur.errors import SecateurError
from secateur.text import name

#: A check of a value; the text says where the value is.
Check = Callable[[Any, str], Any]

#: Characters of a name, of another text and of an expression.
_NAME, _TEXT, _EXPRESSION = 500, 10_000, 500
#: Operations in one expression: torch multiplies sums out, which takes time beyond all bounds.
_OPERATIONS = 16
#: What generated code calls by name.
_IN_CODE = frozenset(
    ("self", "getattr", "inf", "nan", "NoneType", "torch", "device", "fx_pytree", "pytree")
)
#: Attributes that a tensor may not hide, of a graph module itself and of modules in it.
_OF_GRAPH = frozenset(dir(torch.fx.GraphModule(torch.nn.Module(), torch.fx.Graph())))
_OF_MODULE = frozenset(dir(torch.nn.Module()))
_VARIABLE = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]*")
_ATTRIBUTE = re.compile(r"(?!__)[\w-]+")
_SYMBOL = re.compile(r"s[0-9]{1,6}")
_FUNCTIONS = ("Add", "Mul", "FloorDiv", "Mod", "PythonMod", "CleanDiv", "CeilDiv", "Max", "Min")
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod)


def fault(where: str, what: str) -> SecateurError:
    """The error for a value that is not as it must be."""
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


def expression(value: Any, where: str) -> str:
    """A size in symbols, ``Mul(Integer(2), Symbol('s7', positive=True, integer=True))``."""
    try:
        if not isinstance(value, str) or len(value) > _EXPRESSION:
            raise SyntaxError
        tree = ast.parse(value, mode="eval").body
        operations = sum(isinstance(node, ast.Call | ast.BinOp) for node in ast.walk(tree))
        if not _is_size(tree) or operations > 2 * _OPERATIONS:
            raise SyntaxError
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        wanted = "a size of symbols s0, s1, ..., integers, + - * // and %"
        raise _wanted(where, wanted, value) from None
    return ast.unparse(tree)


def _is_size(tree: ast.expr) -> bool:
    match tree:
        case (
            ast.Name(id=symbol)
            | ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(symbol))])
        ):
            assumptions = tree.keywords if isinstance(tree, ast.Call) else []
            known = all(
                k.arg in ("positive", "integer", "nonnegative")
                and isinstance(k.value, ast.Constant)
                and k.value.value is True
                for k in assumptions
            )
            return known and _SYMBOL.fullmatch(symbol) is not None
        case ast.Call(func=ast.Name(id="Integer"), args=[argument], keywords=[]):
            return _is_integer(argument)
        case ast.Call(func=ast.Name(id=function), args=[_, *_] as terms, keywords=[]):
            return function in _FUNCTIONS and all(_is_size(term) for term in terms)
        case ast.BinOp(left=left, op=operator, right=right):
            return isinstance(operator, _OPERATORS) and _is_size(left) and _is_size(right)
        case _:
            return _is_integer(tree)


def _is_integer(tree: ast.expr) -> bool:
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        tree = tree.operand
    return isinstance(tree, ast.Constant) and type(tree.value) is int and tree.value < 2**63


def symbol(value: Any) -> bool:
    """Whether a key names a size that an input has."""
    return isinstance(value, str) and _SYMBOL.fullmatch(value) is not None


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
    """A check for an object; of its keys those are kept that are known."""

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
    """A check for an object with one key, of which each kind has its own."""

    def check(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) != 1:
            raise _wanted(where, f"{what}, an object of one key", value)
        ((kind, held),) = value.items()
        if kind not in kinds:
            raise fault(where, f"{name(kind)} is not {what} that is read")
        return {kind: kinds[kind](held, f"{where}.{kind}")}

    return check

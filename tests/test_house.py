"""What keeps the house in order: widths of folders, lengths of files and functions, docstrings."""

from __future__ import annotations

import ast
import inspect
import re
from collections import Counter
from pathlib import Path

import pytest
from numpydoc.docscrape import NumpyDocString

from tests.test_repository import FOLDERS, ROOT, tracked

MODULES = tracked("*.py")
#: Of the package; the tests and the generators of tables have fewer rules.
PACKAGE = [path for path in MODULES if path.relative_to(ROOT).parts[0] in ("sw", *FOLDERS)]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path, *, public: bool) -> list[tuple[str, Function]]:
    """(name with its class, definition) of a module's functions and methods; of commands not."""
    found: list[tuple[str, Function]] = []

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if not isinstance(node, ast.ClassDef | Function) or (
                public and node.name.startswith("_")
            ):
                continue
            if isinstance(node, ast.ClassDef):
                walk(node.body, f"{prefix}{node.name}.")
            else:
                found.append((f"{path.relative_to(ROOT)}: {prefix}{node.name}", node))

    walk(ast.parse(path.read_text()).body, "")
    return found


def is_command(node: Function) -> bool:
    """Whether Typer makes a command of it: its options have their help texts."""
    calls = [d.func for d in node.decorator_list if isinstance(d, ast.Call)]
    return any(isinstance(call, ast.Attribute) and call.attr == "command" for call in calls)


def arguments(node: Function) -> list[str]:
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    names = [argument.arg for argument in given if argument.arg not in ("self", "cls")]
    return names + [more.arg for more in (node.args.vararg, node.args.kwarg) if more]


def test_no_folder_has_more_than_15_modules() -> None:
    widths = Counter(path.parent for path in MODULES)
    assert {str(folder): width for folder, width in widths.items() if width > 15} == {}


def test_no_module_is_too_long() -> None:
    lengths = {str(path): len(path.read_text().splitlines()) for path in PACKAGE}
    assert {name: length for name, length in lengths.items() if length > 350} == {}


def test_no_function_is_too_long() -> None:
    lengths = {}
    for path in PACKAGE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, Function):
                lengths[f"{path}: {node.name}"] = node.end_lineno - node.lineno + 1
    assert {name: length for name, length in lengths.items() if length > 60} == {}


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_are_whole(path: Path) -> None:
    """``Parameters`` from three arguments on, and none that the function does not have."""
    for name, node in functions(path, public=True):
        if is_command(node):
            continue
        text = ast.get_docstring(node) or ""
        parsed = NumpyDocString(inspect.cleandoc(text))
        described = [
            part.lstrip("*")
            for entry in parsed["Parameters"]
            for part in re.split(r",\s*", entry.name)
        ]
        takes = arguments(node)
        assert not set(described) - set(takes), f"{name} has no {set(described) - set(takes)}"
        if len(takes) >= 3:
            assert described, f"{name}: {len(takes)} arguments, no Parameters"


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_exceptions_have_their_section(path: Path) -> None:
    """``Raises`` is a section of numpydoc, not a sentence."""
    for name, node in functions(path, public=False):
        text = ast.get_docstring(node) or ""
        assert not re.search(r"[Rr]aises?\s+(a |an )?`*\w*Error\b", text), name

"""The commands of the command line: their parameters, and what they say that they write."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from types import UnionType
from typing import Any

import typer

from secateur.cli.common import IN_FOLDER, OUTPUTS
from secateur.cli.main import app


def listed(command: str, folder: Path) -> bool:
    """Whether all files of a folder are such as the command says that it writes."""
    names = [path.name for path in folder.iterdir()]
    assert names
    return all(any(fnmatch(name, pattern) for pattern in IN_FOLDER[command]) for name in names)


@dataclass(frozen=True)
class Given:
    """A command: ``line`` sets its parameters by name."""

    name: str
    command: Any
    kinds: dict[str, set[Any]] = field(repr=False)

    def line(self, **values: object) -> str:
        """A command line with all that must be given; what is not in ``values`` is made up."""
        words, arguments = [self.name], list[str]()
        for parameter in self.command.params:
            if parameter.name not in self.kinds:
                continue  # Typer's own
            made_up = "4" if self.kinds[parameter.name] & {int, float} else "made-up"
            if parameter.name not in values and not parameter.required:
                continue
            value = str(values.get(parameter.name, made_up))
            if parameter.param_type_name == "argument":
                arguments.append(value)
            else:
                words += [parameter.opts[0], value]
        return " ".join(words + arguments)

    def named(self, *kinds: Any) -> list[str]:
        """Parameters of one of these types."""
        return [name for name, found in self.kinds.items() if found & set(kinds)]

    @property
    def outputs(self) -> list[str]:
        return [name for name in self.named(Path) if name in OUTPUTS]

    @property
    def inputs(self) -> list[str]:
        """Files that it reads, and texts that may name one."""
        return [name for name in self.named(Path, str) if name not in OUTPUTS]

    def help_of(self, name: str) -> str:
        """The help text of a parameter; empty if there is none of that name."""
        return "".join(p.help or "" for p in self.command.params if p.name == name)


def commands() -> Iterator[Given]:
    def walk(command: Any, path: tuple[str, ...]) -> Iterator[Given]:
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, (*path, name))
        if not hasattr(command, "commands"):
            function = inspect.unwrap(command.callback)
            kinds = {
                name: set(typing.get_args(hint)) if isinstance(hint, UnionType) else {hint}
                for name, hint in typing.get_type_hints(function).items()
                if name != "return"
            }
            yield Given(" ".join(path), command, kinds)

    yield from walk(ROOT, ())


ROOT: Any = typer.main.get_command(app)
#: All commands by name, such as "device run".
ALL = {given.name: given for given in commands()}

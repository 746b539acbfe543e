"""The command line as Markdown, from the Typer app: ``python -m docs.tables.commands``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from secateur.cli.main import app

#: Typer brings a click of its own, which has no public name: its commands are known by their
#: attributes.
Command = Any


def commands(group: Command, prefix: str, panel: str = "") -> Iterator[tuple[str, str, Command]]:
    """Panel of the help, full name and command of everything below a group, in order.

    Parameters
    ----------
    group : of Typer
    prefix : its full name
    panel : of commands that name none
    """
    for name, command in group.commands.items():
        here = getattr(command, "rich_help_panel", None)
        here = here if isinstance(here, str) else panel
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix} {name}", here)
        elif not command.hidden:
            yield here, f"{prefix} {name}", command


def described(parameter: Any) -> str:
    """An argument or option, as an entry of a definition list."""
    option, default = parameter.param_type_name == "option", parameter.default
    names = [f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts)]
    notes = [parameter.help or ""] + ["Required."] * (parameter.required and option)
    if isinstance(default, int | float | str) and not isinstance(default, bool):
        notes.append(f"Default: `{default}`.")
    text = " ".join(note for note in notes if note) or "See above."
    return f"{', '.join(names) if option else f'`{parameter.name.upper()}`'}\n: {text}\n"


def markdown() -> str:
    """A section for every panel of the help, and one for every command in it."""
    sections, before = [], ""
    for panel, name, command in commands(typer.main.get_command(app), "secateur"):
        parts = [f"## {panel}\n"] * (panel != before)
        parts += [f"### {name}\n", f"{(command.help or '').strip()}\n"]
        parts += [described(p) for p in command.params if not p.hidden]
        if command.epilog:
            example = command.epilog.removeprefix("Example:").strip()
            parts.append(f"```none\n{example}\n```\n")
        sections.append("\n".join(parts))
        before = panel
    return "\n".join(sections)


if __name__ == "__main__":
    print(markdown())

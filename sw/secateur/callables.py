"""Import paths, ``package.module:callable``, and calls of these."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from secateur.errors import SecateurError


def find_in_current_folder() -> None:
    """Let import paths name modules in the current folder, behind all that is installed."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)


def imported(where: str, name: str) -> Any:
    """The object behind ``package.module:callable``.

    Parameters
    ----------
    where : key of the recipe, for messages
    name : the import path

    Raises
    ------
    SecateurError : the module cannot be imported or has no such callable
    """
    module, _, attribute = name.partition(":")
    remedy = "give package.module:callable, and put the package's folder on PYTHONPATH"
    if not module or not attribute:
        raise SecateurError(f"{where} = {name!r} names no callable; {remedy}")
    try:
        loaded = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module}.".startswith(f"{missing}."):  # the module itself, or its package
            fault = f"{_line(error)}; {remedy}"
        elif missing:
            fault = f"{module} could not be imported: it imports {missing}, which is not installed"
        else:
            fault = f"{module} could not be imported: {_line(error)}"
        raise SecateurError(f"{where} = {name!r}: {fault}") from None
    if not hasattr(loaded, attribute):
        raise SecateurError(f"{where} = {name!r}: {module} has no {attribute!r}; {remedy}")
    found = getattr(loaded, attribute)
    if not callable(found):
        raise SecateurError(f"{where} = {name!r} is not callable")
    return found


def function(where: str, name: str) -> Callable[..., Any]:
    """A function as `imported` finds it; its exceptions become a SecateurError that names it."""
    found = imported(where, name)

    def call(*arguments: Any) -> Any:
        try:
            return found(*arguments)
        except SecateurError:
            raise
        except (Exception, SystemExit) as error:  # the command has not ended if its callable exits
            raise SecateurError(
                f"{where} = {name!r} fails when it is called: {_line(error)}"
            ) from error

    return call


def _line(error: BaseException) -> str:
    """An exception's kind and the first line of its text."""
    lines = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *lines[:1]])

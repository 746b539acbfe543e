"""What commands say of themselves, against what they do."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from secateur.cli.common import IN_FOLDER


def listed(command: str, folder: Path) -> bool:
    """Whether all files of a folder are such as the command says that it writes."""
    names = [path.name for path in folder.iterdir()]
    assert names
    return all(any(fnmatch(name, pattern) for pattern in IN_FOLDER[command]) for name in names)

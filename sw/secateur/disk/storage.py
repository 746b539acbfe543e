"""Files: read up to a bound, written whole or not at all, never over an input."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from secateur.errors import SecateurError


def read(path: Path, most: int, kind: str, first: int | None = None) -> bytes:
    """The bytes of a file.

    Parameters
    ----------
    path : the file
    most : bytes; of more, nothing is read
    kind : what the file should be, for the message: "an image"
    first : read only this many bytes; the file may not be larger than ``most`` either

    Raises
    ------
    SecateurError : the file cannot be read, or is larger
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            # Only of a regular file the size is known before.
            size = found.st_size if stat.S_ISREG(found.st_mode) else most
            count = size + 1 if first is None else first
            data = file.read(count) if size <= most else None
    except (OSError, ValueError) as error:  # ValueError: of a name that no file can have
        raise SecateurError(f"{path}: cannot be read: {_reason(error)}") from None
    if data is None or len(data) > most:
        raise SecateurError(f"{path}: more than {most:,} bytes, too large for {kind}")
    return data


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary file in the same folder and rename it: all or nothing.

    An existing file keeps its mode, a new one follows the umask. Of a symbolic link the target is
    written; a device or a pipe is written to directly.

    Raises
    ------
    SecateurError : the file cannot be written
    """
    part = None
    try:
        found = _status(path)
        if found is not None and not stat.S_ISREG(found.st_mode):
            with path.open("wb") as file:  # of a folder an error
                file.write(data)
            return
        target = Path(os.path.realpath(path))
        mode = 0o666 if found is None else stat.S_IMODE(found.st_mode) & 0o777
        part = target.with_name(f".secateur-{secrets.token_hex(8)}.part")
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as file:
            if found is not None:
                os.fchmod(handle, mode)  # also the bits that the umask removed
            file.write(data)
            file.flush()
            os.fsync(handle)  # or a loss of power could leave the new name without data
        os.replace(part, target)
    except OSError as error:
        _remove(part)
        raise SecateurError(f"{path}: cannot be written: {_reason(error)}") from None
    except BaseException:
        _remove(part)
        raise


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _remove(part: Path | None) -> None:
    if part is not None:
        with contextlib.suppress(OSError):  # perhaps it was not even made
            part.unlink()


def apart(written: Iterable[Path], read: Iterable[Path | str]) -> None:
    """Refuse to write a file that is read: under another name, through a link, or the same.

    Parameters
    ----------
    written : files that are to be written
    read : files that were given as inputs, or texts that may name one

    Raises
    ------
    SecateurError : two of them are one file
    """
    inputs = [path for path in read if os.path.isfile(path)]
    for output in written:
        for path in inputs:
            if os.path.exists(output) and os.path.samefile(output, path):
                raise SecateurError(
                    f"{output}: is an input ({path}) and would be lost; give another output"
                )

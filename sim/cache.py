"""Where built simulators are kept: ``$SECATEUR_CACHE``, by default ``~/.cache/secateur``.

What lies there is run, so nobody but its owner may write to it. A build is made in a folder of its
own and what is to stay is renamed when it is done, so that neither an interrupted nor a concurrent
build ever leaves half of one behind. The folder of a build is locked: one that is not belongs to a
build that was killed, and goes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from secateur.disk.lock import release, take
from secateur.errors import SecateurError

LOCK = "lock"
PREFIX = "build-"


class CacheError(SecateurError):
    """The folder cannot be made, or is not safe to run programs from: one line."""


def folder() -> Path:
    """The folder for simulators, made if it is missing, for its owner only.

    Raises
    ------
    CacheError : it cannot be made, belongs to another user, or others may write to it
    """
    given = os.environ.get("SECATEUR_CACHE")
    base = Path(given) if given else Path.home() / ".cache" / "secateur"
    place = base / "verilator"
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.mkdir(mode=0o700, exist_ok=True)
        # A folder with the sticky bit, such as /tmp, protects what is in it.
        for path, owners, sticky in (
            (base, {os.getuid(), 0}, stat.S_ISVTX),
            (place, {os.getuid()}, 0),
        ):
            found = path.stat()
            open_to_others = found.st_mode & 0o022 and not found.st_mode & sticky
            if found.st_uid not in owners or open_to_others:
                raise CacheError(
                    f"{path}: others may write to it, and programs are run from it; take their "
                    f"right away, or give a folder of your own in SECATEUR_CACHE"
                )
    except OSError as error:
        raise CacheError(f"{error.filename}: no place for simulators: {error.strerror}") from None
    return place


def key(*parts: str) -> str:
    """A name for what is made from these texts."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:24]


@contextlib.contextmanager
def workplace(place: Path) -> Iterator[Path]:
    """A new folder for a build, gone at the end; those of builds that were killed go first."""
    # Nobody may look between the making of a folder and its lock.
    handle = take(place / LOCK, wait=True)
    assert handle is not None
    try:
        for old in place.glob(f"{PREFIX}*"):
            _remove_dead(old)
        work = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        mine = take(work / LOCK)
        assert mine is not None
    finally:
        release(place / LOCK, handle)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(mine)


def _remove_dead(work: Path) -> None:
    with contextlib.suppress(OSError):  # its build has just ended
        handle = take(work / LOCK)
        if handle is not None:
            shutil.rmtree(work, ignore_errors=True)
            os.close(handle)


def keep(work: Path, files: list[Path], to: Path) -> None:
    """Move ``files`` to the new folder ``to``, all or none; leaves a folder that stands already."""
    done = work / to.name
    done.mkdir()
    for file in files:
        shutil.move(file, done / file.name)
    try:
        done.rename(to)
    except OSError:
        if not to.exists():
            raise

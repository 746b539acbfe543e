"""Where built simulators are kept: ``$SECATEUR_CACHE``, by default ``~/.cache/secateur``.

Programs are run from there, so only its owner may write to it. Each build has a folder of its own,
and its products are renamed when it is done: an interrupted or concurrent build never leaves half
of them behind. The folder of a build is locked. One without a lock belongs to a build that was
killed, and is removed.
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
#: Beside a product that is one file: its SHA-256.
DIGEST = "sha256"


class CacheError(SecateurError):
    """The folder cannot be made, or is not safe to run programs from."""


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
        # A folder with the sticky bit, such as /tmp, protects its contents.
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
    """The name of a product of these texts."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:24]


@contextlib.contextmanager
def workplace(place: Path) -> Iterator[Path]:
    """A new folder for a build, removed at the end; those of killed builds are removed first."""
    # No other build may look between the creation of a folder and its lock.
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


@contextlib.contextmanager
def alone(place: Path, name: str) -> Iterator[None]:
    """Nobody else makes the product ``name`` meanwhile; whoever comes second finds it."""
    lock = place / f"{name}.lock"
    handle = take(lock, wait=True)
    assert handle is not None
    try:
        yield
    finally:
        release(lock, handle)


def intact(file: Path) -> bool:
    """Whether a file that ``keep`` has moved is as it was; its folder is removed otherwise."""
    with contextlib.suppress(OSError):
        if _digest(file) == (file.parent / DIGEST).read_text():
            return True
    shutil.rmtree(file.parent, ignore_errors=True)
    return False


def _digest(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _remove_dead(work: Path) -> None:
    with contextlib.suppress(OSError):  # its build has just ended
        handle = take(work / LOCK)
        if handle is not None:
            shutil.rmtree(work, ignore_errors=True)
            os.close(handle)


def keep(work: Path, files: list[Path], to: Path) -> None:
    """Move files to a new folder, all or none.

    Parameters
    ----------
    work : folder of the build, on the same file system
    files : in it
    to : the new folder; one that exists already stays as it is
    """
    done = work / to.name
    done.mkdir()
    if len(files) == 1:
        (done / DIGEST).write_text(_digest(files[0]))
    for file in files:
        shutil.move(file, done / file.name)
    try:
        done.rename(to)
    except OSError:
        if not to.exists():
            raise

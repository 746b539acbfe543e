"""One run at a time in a folder.

The lock is `flock`'s, on a file: the kernel releases it when its process ends, by SIGKILL as well,
so that no lock is ever left behind; the holder's name in the file is for messages only. On NFS
Linux asks the server for it, so that it holds between machines, too, unless the share is mounted
with ``nolock``; then it holds on one machine. A file system without locks is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from secateur.errors import SecateurError
from secateur.text import name

FILE = "run.lock"
#: Attempts: a run that was refused may remove the folder between our steps.
_TRIES = 100


@contextlib.contextmanager
def held(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder, which is made if it is missing, until the context ends.

    A folder that was made here and is empty at the end is removed.

    Parameters
    ----------
    folder : to hold
    wait : until another run that holds it has ended

    Raises
    ------
    SecateurError : another run holds it, or it cannot be made or locked
    """
    made: list[Path] = []
    handle = None
    try:
        handle = _enter(folder, made, wait)
        os.ftruncate(handle, 0)
        os.write(handle, _holder().encode())
        yield
    finally:
        if handle is not None:
            release(folder / FILE, handle)
        for place in made:
            with contextlib.suppress(OSError):
                place.rmdir()


def _enter(folder: Path, made: list[Path], wait: bool) -> int:
    """The folder's lock; folders that were made are added to ``made``, innermost first."""
    for left in reversed(range(_TRIES)):
        missing = [place for place in (folder, *folder.parents) if not os.path.exists(place)]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SecateurError(f"{folder}: cannot be made: {error.strerror}") from None
        made[:] = missing
        try:
            handle = take(folder / FILE, wait=wait)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and left:
                continue  # another run has made the folder, and has just removed it
            raise SecateurError(f"{folder}: cannot be locked: {error.strerror}") from None
        if handle is None:
            raise SecateurError(
                f"{folder}: in use by {_read_holder(folder / FILE)}; wait until it has ended, or "
                f"choose another folder"
            )
        return handle
    raise AssertionError


def _holder() -> str:
    began = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {socket.gethostname()}, since {began}"


def _read_holder(file: Path) -> str:
    with contextlib.suppress(OSError):
        return name(file.read_bytes()[:200].decode(errors="replace")) or "another process"
    return "another process"


def take(file: Path, *, wait: bool = False) -> int | None:
    """Lock a file, which is made if it is missing; its descriptor, for ``release``.

    None if another has the lock, unless this is to ``wait`` for it.

    Raises
    ------
    OSError : the file cannot be made or locked
    """
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # Its last holder may have removed the file between the two: nobody else can open it
            # then, so that the lock would be worth nothing.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.lstat(file)):
                    return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def release(file: Path, handle: int) -> None:
    """Release a lock; its file is removed first, while nobody else can lock it."""
    with contextlib.suppress(FileNotFoundError):
        file.unlink()
    os.close(handle)

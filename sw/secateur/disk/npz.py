"""Arrays from .npz files; sizes are checked before anything is allocated."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from secateur.disk.limits import DEFAULT, Limits
from secateur.errors import SecateurError
from secateur.text import name

SUFFIX = ".npy"
_CHUNK = 1 << 20


def load_npz(
    path: Path, wanted: Iterable[str] | None = None, limits: Limits = DEFAULT
) -> dict[str, npt.NDArray[Any]]:
    """Arrays of an .npz file by name; arrays of Python objects are refused.

    Parameters
    ----------
    path : the file
    wanted : names of arrays; None for all
    limits : ``megabytes`` is for all arrays together that are read

    Raises
    ------
    SecateurError : the file cannot be read, is damaged or not an .npz file, lacks an array, has one
        of Python objects, or is larger than the limits
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(SUFFIX): info for info in archive.infolist()}
            names = list(members if wanted is None else wanted)
            for key in names:
                if key not in members:
                    has = name(", ".join(members) or "none")
                    raise SecateurError(f"{path}: no array {key!r}; it has {has}")
            limits.check_bytes(sum(members[key].file_size for key in names), str(path))
            return {key: _array(archive, members[key], f"{path}: {name(key)}") for key in names}
    except SecateurError:
        raise
    except OSError as error:
        raise SecateurError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception:  # zipfile and decompressors raise all kinds on damaged files
        raise SecateurError(
            f"{path}: not an .npz file of arrays, or damaged; write one by np.savez(file, x=x)"
        ) from None


def npz_names(path: Path) -> list[str]:
    """Names of the arrays in an .npz file.

    Raises
    ------
    SecateurError : the file cannot be read, or is not an .npz file
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [info.filename.removesuffix(SUFFIX) for info in archive.infolist()]
    except (OSError, zipfile.BadZipFile):
        return list(load_npz(path))  # which says what is wrong


def npz(arrays: dict[str, npt.NDArray[Any]]) -> bytes:
    """An .npz file; its arrays may have any names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for key, values in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{key}{SUFFIX}"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)
    return buffer.getvalue()


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> npt.NDArray[Any]:
    with archive.open(info) as member:
        shape, fortran, dtype = _header(member)
        if dtype.hasobject:
            raise SecateurError(
                f"{where}: an array of Python objects, which are not read; give one of numbers"
            )
        size = prod(shape) * dtype.itemsize
        if size != info.file_size - member.tell():
            raise SecateurError(
                f"{where}: its header claims {size:,} bytes, the file has "
                f"{info.file_size - member.tell():,}; write it again"
            )
        raw, at = np.empty(size, np.uint8), 0
        while part := member.read(_CHUNK):  # up to the end, at which the CRC-32 is compared
            raw[at : at + len(part)] = np.frombuffer(part, np.uint8)
            at += len(part)
    if at < size:
        raise EOFError
    return raw.view(dtype).reshape(shape, order="F" if fortran else "C")


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    return read(member)

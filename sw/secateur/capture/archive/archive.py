"""Read a torch.export archive, ``FILE.pt2``, without running anything that is in it.

``torch.export.load`` unpickles parts of an archive and evaluates sizes, names and guards as
Python. Here the archive is read as data first, and torch gets another one that is made of the
checked parts: tensors as raw bytes, and a graph of known operators. Shapes and types are
inferred again from these operators; those in the file are ignored.
"""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram
from torch.export.pt2_archive._package import load_pt2

from secateur.capture.archive.foreign import foreign
from secateur.capture.archive.infer import infer
from secateur.capture.archive.program import program
from secateur.capture.archive.schema import AGAIN, extent, parse, stored
from secateur.capture.export import quiet  # registers the operators that archives refer to, too
from secateur.disk.limits import DEFAULT, Limits
from secateur.errors import SecateurError
from secateur.text import name, printable

#: Bytes of JSON for each operation that is read: traces and paths take most of them.
_JSON = 4096
_MODEL = "models/model.json"
_FOLDERS = {"weights": "data/weights", "constants": "data/constants"}
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError,
    ValueError,
)  # fmt: skip


def load_archive(path: Path | str, limits: Limits = DEFAULT) -> ExportedProgram:
    """Read an archive that torch.export.save wrote.

    Nothing of the file is unpickled, imported or evaluated; example inputs, guards, compiled code
    and extra files in it are omitted. The program takes its inputs in order, and returns its
    output, or several in a tuple.

    Parameters
    ----------
    path : the file
    limits : on operations, and on bytes: of the file, of its unpacked contents, of its tensors
        together, and of each value of the graph

    Raises
    ------
    SecateurError : the file is missing, not an archive, damaged, of an older torch or beyond a
        limit, or a part of it is code or a pickle
    """
    shown = printable(path)
    if not os.path.isfile(path):  # Path's own raises for a name that no file can have
        raise SecateurError(f"{shown}: no such file; save the model with torch.export.save")
    try:
        limits.check_bytes(Path(path).stat().st_size, "the file")
        try:
            with zipfile.ZipFile(path) as archive:
                rewritten = _rewrite(_Members(archive, limits), limits)
        except SecateurError:
            raise
        except _DAMAGE as error:
            raise SecateurError(
                f"not a torch.export archive, or damaged ({printable(error, 200)}); {AGAIN}"
            ) from None
        loaded = _load(rewritten)
        infer(loaded, limits)
        return loaded
    except SecateurError as error:
        raise SecateurError(f"{shown}: {foreign(path) or error}") from None


class _Members:
    """The files in an archive: names and sizes are checked before one is read."""

    def __init__(self, archive: zipfile.ZipFile, limits: Limits) -> None:
        self.archive, self.found = archive, dict[str, zipfile.ZipInfo]()
        infos = archive.infolist()
        limits.check_bytes(sum(info.file_size for info in infos), "all that it unpacks to")
        if any(info.filename == "serialized_exported_program.json" for info in infos):
            raise SecateurError(f"written by a torch before 2.8, as pickles; {AGAIN} of this torch")
        root = infos[0].filename.partition("/")[0] if infos else ""
        for info in infos:
            if info.filename in self.found:
                raise SecateurError(f"two files of it are named {name(info.filename)}; {AGAIN}")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise SecateurError(f"{name(info.filename)} is compressed in another way; {AGAIN}")
            self.found[info.filename] = info
        self.root = root
        damaged = archive.testzip()  # also of members that are not read
        if damaged is not None:
            raise SecateurError(f"damaged: {name(damaged)} has another CRC-32; {AGAIN}")

    def __contains__(self, member: str) -> bool:
        return f"{self.root}/{member}" in self.found

    def size(self, member: str) -> int:
        """Bytes of a member.

        Raises
        ------
        SecateurError : there is no such member
        """
        if member not in self:
            raise SecateurError(f"not a torch.export archive: no {member} in it; {AGAIN}")
        return self.found[f"{self.root}/{member}"].file_size

    def read(self, member: str) -> bytes:
        """A member."""
        self.size(member)
        return self.archive.read(self.found[f"{self.root}/{member}"])

    def json(self, member: str, limits: Limits) -> dict[str, Any]:
        """A member that is JSON."""
        size, most = self.size(member), limits.nodes * _JSON
        if size > most:
            raise SecateurError(
                f"{member}: {size:,} bytes, at most {most:,} are read; raise the limit with "
                f"--max-nodes if you trust the file"
            )
        return parse(self.read(member), member)


def _rewrite(members: _Members, limits: Limits) -> io.BytesIO:
    """An archive of the checked parts of another one."""
    _check_kind(members)
    found, kept = {}, dict[str, bytes]()
    for kind, folder in _FOLDERS.items():
        file = f"{folder}/model_{kind}_config.json"
        if f"{folder}/model.pt" in members:
            raise SecateurError(f"{folder}/model.pt is a pickle of an older torch; {AGAIN}")
        found[kind] = stored(members.json(file, limits), file)
        kept[file] = json.dumps({"config": found[kind]}).encode()
    _check_tensors(found, members, limits)
    model = program(members.json(_MODEL, limits), **found, limits=limits, where=_MODEL)
    kept[_MODEL] = json.dumps(model, allow_nan=False).encode()
    for kind, folder in _FOLDERS.items():
        for payload in found[kind].values():
            file = f"{folder}/{payload['path_name']}"
            kept[file] = kept[file] if file in kept else members.read(file)
    kept["data/sample_inputs/model.pt"] = b""  # none
    for file, content in (
        ("archive_format", b"pt2"),
        ("archive_version", b"0"),
        ("byteorder", sys.byteorder.encode()),
        (".data/version", b"6\n"),
        (".data/serialization_id", b"0"),
    ):
        kept[file] = content
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as written:
        for file, content in kept.items():
            written.writestr(f"model/{file}", content)
    buffer.seek(0)
    return buffer


def _check_kind(members: _Members) -> None:
    """Refuse archives of other kinds or versions."""
    if _MODEL not in members and any("/data/aotinductor/" in key for key in members.found):
        raise SecateurError(
            f"it holds machine code that AOTInductor made, which is never run; {AGAIN}"
        )
    for file, wanted in (("archive_format", b"pt2"), ("archive_version", b"0")):
        content = members.read(file)
        if content != wanted:
            raise SecateurError(
                f"{file} is {name(content[:20])}, expected {wanted!r}; {AGAIN} of this torch"
            )
    if "byteorder" in members and members.read("byteorder") != sys.byteorder.encode():
        raise SecateurError("its tensors are in the byte order of another machine; save it here")


def _check_tensors(
    found: dict[str, dict[str, dict[str, Any]]], members: _Members, limits: Limits
) -> None:
    """Refuse tensors that are larger than their files, or too large together."""
    total = 0
    for kind, folder in _FOLDERS.items():
        types: dict[str, int] = {}
        for path, payload in found[kind].items():
            file, dtype = payload["path_name"], payload["tensor_meta"]["dtype"]
            here = f"tensor {name(path)}"
            size, reach = extent(payload, here)
            total += size
            limits.check_bytes(total, f"{here} and those before it")
            held = members.size(f"{folder}/{file}")
            if reach > held:
                raise SecateurError(f"{here}: {reach:,} bytes, its file has {held:,}; {AGAIN}")
            if types.setdefault(file, dtype) != dtype:
                raise SecateurError(f"{here}: shares a file with one of another type; {AGAIN}")


def _load(archive: io.BytesIO) -> ExportedProgram:
    """The program that torch loads from a checked archive."""
    try:
        with quiet():
            loaded: ExportedProgram = load_pt2(archive).exported_programs["model"]
            loaded.graph.lint()
            return loaded
    except Exception as error:  # torch raises all kinds on inconsistent graphs
        lines = f"{type(error).__name__}: {error}".strip().splitlines()
        raise SecateurError(
            f"{_MODEL}: torch cannot make a graph of it ({printable(lines[-1], 300)}); {AGAIN}"
        ) from None

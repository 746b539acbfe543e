"""ONNX files as messages of the package onnx; sizes are checked before anything is allocated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from secateur.capture.onnx.wire import count
from secateur.disk.limits import DEFAULT, Limits
from secateur.errors import SecateurError
from secateur.text import name as quoted
from secateur.text import printable

_EXPORT_AGAIN = "export the model again, with all weights in one file"


def read_onnx(path: Path | str, *, limits: Limits = DEFAULT) -> Any:
    """The ``onnx.ModelProto`` of a file, with the weights that are in other files beside it.

    Parameters
    ----------
    path : the file
    limits : bounds of its size

    Raises
    ------
    SecateurError : the file is missing, not an ONNX model or beyond the limits; its weights are
        missing or outside its folder; or the package onnx is missing
    """
    path = Path(path)
    try:
        import onnx
    except ImportError:
        raise SecateurError(
            f"{path}: ONNX files need the package onnx: pip install 'secateur[onnx]'"
        ) from None
    if not path.is_file():
        raise SecateurError(f"{path}: no such file")
    model = onnx.ModelProto()
    try:
        limits.check_bytes(path.stat().st_size, str(path))
        data = path.read_bytes()
        room = limits.bytes - count(data, model.DESCRIPTOR, limits, str(path)).unpacked
        model.ParseFromString(data)
        del data
        for tensor in outside(model):
            room -= _load(tensor, path, limits, room)
        onnx.checker.check_model(model)
    except SecateurError:
        raise
    except OSError as error:
        raise SecateurError(f"{path}: cannot be read: {error.strerror}") from None
    except Exception as error:  # of protobuf, and of the checker, which raises of all kinds
        reason = printable(" ".join(str(error).split()) or type(error).__name__, 400)
        raise SecateurError(f"{path}: not an ONNX model ({reason}); export it again") from None
    return model


def outside(model: Any) -> Iterator[Any]:
    """The tensors of the graph whose data are in other files."""
    tensors = list(model.graph.initializer)
    items = (item for node in model.graph.node for item in node.attribute)
    tensors += [item.t for item in items if item.HasField("t")]
    return (t for t in tensors if t.data_location == type(t).EXTERNAL)


def _load(tensor: Any, path: Path, limits: Limits, room: int) -> int:
    """Read a tensor's data from another file.

    Parameters
    ----------
    tensor : an ``onnx.TensorProto``; takes the data
    path : the model's file
    limits : for the message
    room : bytes that are left of the limits

    Returns
    -------
    size : bytes that were read
    """
    what = f"{path}: tensor '{quoted(tensor.name)}'"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file = entries.get("location", "")
    place = _inside(path.parent.resolve(), file)
    if place is None:
        raise SecateurError(
            f"{what}: its data are in '{quoted(file)}', which is not a file in the model's folder; "
            f"put it there, or {_EXPORT_AGAIN}"
        )
    has = place.stat().st_size
    offset = _number(entries.get("offset", "0"))
    size = _number(entries["length"]) if "length" in entries else has - offset
    if min(offset, size) < 0 or offset + size > has:
        raise SecateurError(
            f"{what}: its data should be bytes {offset:,} to {offset + size:,} of "
            f"'{quoted(file)}', which has {has:,}; {_EXPORT_AGAIN}"
        )
    if size > room:
        limits.check_bytes(limits.bytes - room + size, f"{what}, and all before it")
    with place.open("rb") as stream:
        stream.seek(offset)
        tensor.raw_data = stream.read(size)
    del tensor.external_data[:]
    tensor.data_location = type(tensor).DEFAULT
    return size


def _inside(folder: Path, file: str) -> Path | None:
    """The regular file of this name in the folder; None if there is none, or it leads outside."""
    try:
        place = (folder / file).resolve()
        return place if place.is_relative_to(folder) and place.is_file() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL in it, links in a circle
        return None


def _number(text: str) -> int:
    """A count in decimal; -1 if it is not one."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else -1

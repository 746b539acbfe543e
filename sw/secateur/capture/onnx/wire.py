"""The unpacked size of an ONNX file, counted in its bytes before it is parsed.

Two bytes of a file can be an empty node, which takes hundreds in memory, twice: in Python and in
the checker of the package onnx.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from secateur.disk.limits import Limits

#: Bytes that a field takes at most, a message without content above all; as measured, rounded up.
_FIELD = 512
#: Bytes that one of packed numbers of variable length becomes, in Python and in the checker.
_NUMBER = 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: protobuf's numbers of the types of fields whose packed values are of variable length.
_VARIABLE = (3, 4, 5, 8, 13, 14, 17, 18)


class Malformed(Exception):
    """These bytes are not those of a message."""


@dataclass
class Counted:
    """Counts of a file.

    Attributes
    ----------
    nodes : of all graphs and functions
    unpacked : bytes that the model takes at most
    """

    nodes: int
    unpacked: int


def count(data: bytes, model: Any, limits: Limits, what: str) -> Counted:
    """Count a file's nodes and bytes, without recursion, stopping at the limits.

    Parameters
    ----------
    data : the file
    model : protobuf's descriptor of the whole message
    limits : bounds of nodes and of bytes
    what : names the file

    Raises
    ------
    SecateurError : more nodes or bytes than ``limits`` allow
    Malformed : not a message
    """
    counted = Counted(0, len(data))
    kinds: dict[str, dict[int, Any]] = {}
    waiting = [(0, len(data), model)]
    while waiting:
        at, end, message = waiting.pop()
        counted.nodes += message.name == "NodeProto"
        if message.full_name not in kinds:
            kinds[message.full_name] = {field.number: field for field in message.fields}
        known = kinds[message.full_name]
        while at < end:
            tag, at = _varint(data, at, end)
            counted.unpacked += _FIELD
            if counted.unpacked > limits.bytes:
                limits.check_nodes(counted.nodes, what)
                limits.check_bytes(counted.unpacked, f"{what}: its fields, unpacked")
            wire, field = tag & 7, known.get(tag >> 3)
            if wire != _BYTES:
                at = _skip(data, at, end, wire)
                continue
            size, at = _varint(data, at, end)
            if size > end - at:
                raise Malformed(f"{size} bytes at {at} of {end}")
            if field is not None and field.message_type is not None:
                waiting.append((at, at + size, field.message_type))
            elif field is not None and field.type in _VARIABLE:
                counted.unpacked += size * _NUMBER
            at += size
    limits.check_nodes(counted.nodes, what)
    limits.check_bytes(counted.unpacked, f"{what}: its fields, unpacked")
    return counted


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    raise Malformed(f"a number at {at} without end")


def _skip(data: bytes, at: int, end: int, wire: int) -> int:
    """Where a number ends."""
    if wire == _VARINT:
        return _varint(data, at, end)[1]
    size = {_FIXED64: 8, _FIXED32: 4}.get(wire)
    if size is None or at + size > end:
        raise Malformed(f"a field of kind {wire} at {at}")
    return at + size

"""A node of an ONNX graph: its name as a label, and attributes of the expected types."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from secateur.errors import SecateurError
from secateur.text import first_line, printable
from secateur.text import name as quoted

#: More than a map on the array can be high, wide or deep.
MOST = 1 << 20
_EXPORT_AGAIN = "export the model again"
_DAMAGED = "the file is damaged, or not valid for its operator; export the model again"


@dataclass(frozen=True)
class OnnxNode:
    """A node as the file has it; its strings are not escaped.

    Attributes
    ----------
    index : its place in the file
    label : its name, or else that of its output
    op_type, domain : the operator; "" is ONNX's own domain
    input, output : names of tensors, "" for those that are omitted
    attributes : the messages by name
    """

    index: int
    label: str
    op_type: str
    domain: str
    input: tuple[str, ...]
    output: tuple[str, ...]
    attributes: dict[str, Any]

    def has(self, name: str) -> bool:
        """Whether the file gives the attribute."""
        return name in self.attributes

    def integer(self, name: str, default: int | None = None) -> int:
        """An attribute that is a whole number; refused if it is missing without a default."""
        return int(self._value(name, "INT", default))

    def real(self, name: str, default: float | None = None) -> float:
        """An attribute that is a finite number."""
        value = float(self._value(name, "FLOAT", default))
        if not math.isfinite(value):
            raise refuse(self, f"attribute '{name}' is {value}", _EXPORT_AGAIN)
        return value

    def integers(self, name: str, default: list[int] | None = None) -> list[int]:
        """An attribute that is a list of whole numbers."""
        return [int(n) for n in self._value(name, "INTS", default)]

    def sizes(self, name: str, count: int, least: int) -> list[int]:
        """An attribute that is a list of whole numbers of one length.

        Parameters
        ----------
        name : of the attribute; if it is missing, all numbers are ``least``
        count : numbers
        least : lower bound of each; the upper one is ``MOST``

        Raises
        ------
        SecateurError : another length, or a number out of range
        """
        found = self.integers(name, [least] * count)
        if len(found) != count or any(not least <= n <= MOST for n in found):
            shown = quoted(found)
            raise refuse(
                self,
                f"attribute '{name}' is {shown}, expected {count} numbers from {least} to {MOST}",
                _EXPORT_AGAIN,
            )
        return found

    def choice(self, name: str, *allowed: str) -> str:
        """An attribute that is one of these texts, the first if it is missing."""
        value = self._value(name, "STRING", allowed[0].encode())
        for text in allowed:
            if value == text.encode():
                return text
        raise refuse(
            self,
            f"attribute '{name}' is {quoted(value)}, expected one of {', '.join(allowed)}",
            _EXPORT_AGAIN,
        )

    def _value(self, name: str, kind: str, default: Any) -> Any:
        item = self.attributes.get(name)
        if item is None:
            if default is None:
                raise refuse(self, f"has no attribute '{name}'", _EXPORT_AGAIN)
            return default
        found = type(item).AttributeType.Name(item.type)
        if found != kind:
            raise refuse(self, f"attribute '{name}' is {found}, expected {kind}", _EXPORT_AGAIN)
        return {"INT": item.i, "FLOAT": item.f, "INTS": item.ints, "STRING": item.s}[kind]


def refuse(node: OnnxNode, reason: str, remedy: str) -> SecateurError:
    """The one-line error for a node.

    Parameters
    ----------
    node : the message begins with its label and operator
    reason : may quote the file; is escaped
    remedy : what to do instead
    """
    return SecateurError(f"{shown(node)}: {printable(reason, 500)}; {remedy}")


def shown(node: OnnxNode) -> str:
    """A node as messages name it."""
    return f"node '{quoted(node.label)}' ({quoted(node.op_type)})"


@contextmanager
def guarded(what: str, remedy: str = _DAMAGED) -> Iterator[None]:
    """A context in which every exception becomes a refusal of the file.

    On a file's data NumPy, PyTorch and the package onnx fail with exceptions of all kinds.

    Parameters
    ----------
    what : names the part of the file
    remedy : what to do about it

    Raises
    ------
    SecateurError : the code in the context raised an exception
    """
    try:
        yield
    except SecateurError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise SecateurError(f"{what}: {reason}; {remedy}") from error


def nodes_of(graph: Any, functions: Any) -> list[OnnxNode]:
    """The nodes of an ``onnx.GraphProto``.

    Parameters
    ----------
    graph : the message
    functions : the model's own functions

    Raises
    ------
    SecateurError : a name that is not text, a node that holds a graph, calls one of ``functions``,
        has an attribute twice or has no output
    """
    own = {(_domain(function), function.name) for function in functions}
    found = []
    for index, node in enumerate(graph.node):
        names = (node.name, node.op_type, node.domain, *node.input, *node.output)
        if any(isinstance(name, bytes) for name in names):
            raise SecateurError(f"node {index}: a name that is not UTF-8; {_EXPORT_AGAIN}")
        label = node.name or next(filter(None, node.output), "")
        made = OnnxNode(
            index, label, node.op_type, _domain(node), tuple(node.input), tuple(node.output),
            {item.name: item for item in node.attribute},
        )  # fmt: skip
        if (made.domain, made.op_type) in own:
            raise refuse(
                made, "calls a function of the file", "inline it (onnx.inliner), export that"
            )
        if any(item.HasField("g") or item.graphs for item in node.attribute):
            raise refuse(made, "has a graph in it", "export without loops and branches")
        if len(made.attributes) != len(node.attribute):
            raise refuse(made, "has an attribute twice", _EXPORT_AGAIN)
        if not any(made.output):
            raise refuse(made, "has no output", _EXPORT_AGAIN)
        found.append(made)
    return found


def _domain(item: Any) -> str:
    """The domain of a node or function, "" for ONNX's own."""
    return "" if item.domain == "ai.onnx" else str(item.domain)

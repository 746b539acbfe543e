"""Damage to ONNX models by one who knows the format: a field or a value, drawn from a seed."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

_INTEGERS = (0, 1, -1, 2, 3, 7, 255, 4096, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63))
_FLOATS = (0.0, -1.0, 1e-40, 1e38, -1e38, float("inf"), float("nan"))
_TEXTS = (
    "", "forward", "keys", "layers", "None", "a.b", "x", "y", "\x1b[31m", "\u202e", "\U0001f600",
    "a" * 100_000, 'w", None), __import__("os"), getattr(self, "w', "../../x", "NaN", "tanh",
    "VALID", "Loop", "If", "Scan", "ConstantOfShape", "Expand", "Tile", "Range", "OneHot",
    "RandomNormal", "Einsum", "Shape", "Concat", "Transpose", "Softmax", "GRU", "Clip", "Pad",
    "MatMul", "Mul", "Sub", "ReduceMean", "MaxPool", "AveragePool", "PRelu", "Dropout", "Squeeze",
    "Constant", "Gather", "Cast",
)  # fmt: skip


def _fields(message: Any) -> list[tuple[Any, Any]]:
    """All fields that are set, with the messages that they are in."""
    found = []
    for field, value in message.ListFields():
        found.append((message, field))
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                found += _fields(inner)
    return found


def _spoil(model: Any, rng: random.Random) -> None:
    """Other numbers in a tensor, or another shape of the same: the file stays a model."""
    tensor = rng.choice(list(model.graph.initializer))
    values = np.array(numpy_helper.to_array(tensor))
    way = rng.randrange(3)
    if way == 0:
        values = rng.choice(
            (values.reshape(-1), values.T, values[..., None], values.reshape(-1)[:0])
        )
    elif values.size:
        spoilt = rng.choice(_FLOATS if values.dtype.kind == "f" else (0, 1, -1, 127, -128, 1 << 40))
        at = slice(None) if way == 1 else rng.randrange(values.size)
        with np.errstate(all="ignore"):
            values.reshape(-1)[at] = np.array(spoilt).astype(values.dtype)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))


def _names(model: Any) -> list[str]:
    return [name for node in model.graph.node for name in (*node.input, *node.output)]


def _changed(field: Any, value: Any, model: Any, rng: random.Random) -> Any:
    """Another value of a field that is not a message."""
    if isinstance(value, bytes):
        at = rng.randrange(len(value) + 1)
        return rng.choice((b"", value[:at], value + value, rng.randbytes(len(value)), b"\xff\xfe"))
    if isinstance(value, str):
        return rng.choice((*_TEXTS, *_names(model)))
    if isinstance(value, float):
        return rng.choice(_FLOATS)
    if field.enum_type is not None:
        return rng.choice(field.enum_type.values).number
    limit = 1 << (31 if field.cpp_type == field.CPPTYPE_INT32 else 63)
    number = rng.choice((*_INTEGERS, value + 1, value - 1, rng.randrange(30)))
    return max(-limit, min(number, limit - 1))


def _change_list(values: Any, field: Any, model: Any, rng: random.Random) -> None:
    at, way = rng.randrange(len(values)), rng.randrange(5)
    if way == 0:
        del values[at]
    elif way == 1:
        del values[:]
    elif way == 2:
        values.append(values[at])
    elif way == 3 and field.message_type is None:
        values[at] = _changed(field, values[at], model, rng)
    else:
        held = list(values)
        rng.shuffle(held)
        del values[:]
        values.extend(held)


def changed(data: bytes, seed: int) -> bytes:
    """A model with one or two of its fields or tensors changed, the same for the same seed."""
    rng, model = random.Random(seed), onnx.ModelProto.FromString(data)
    spoilt = rng.random() < 0.3 and len(model.graph.initializer) > 0
    if spoilt:
        _spoil(model, rng)
    for _ in range(rng.choice((1, 1, 2)) - spoilt):
        message, field = rng.choice(_fields(model))
        if field.is_repeated:
            _change_list(getattr(message, field.name), field, model, rng)
        elif field.message_type is not None or rng.random() < 0.1:
            message.ClearField(field.name)
        else:
            setattr(message, field.name, _changed(field, getattr(message, field.name), model, rng))
    return bytes(model.SerializeToString())

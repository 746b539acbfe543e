"""The parts of a torch.export archive's JSON that are read, schema 8 of torch."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import torch

from secateur.capture.archive.values import (
    Check,
    attribute_path,
    count,
    fault,
    flag,
    many,
    number,
    one_of,
    optional,
    product,
    record,
    size,
    text,
    union,
    variable,
    whole,
)
from secateur.text import name

AGAIN = "save it again with torch.export.save"
#: Types by torch's numbers.
DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64,
    6: torch.float16, 7: torch.float32, 8: torch.float64, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip
#: Forms of operator names; the operator must be one of those in ``infer``, too.
_TARGET = re.compile(
    r"torch\.ops\.(aten|quantized_decomposed)\.(?!__)\w{1,99}\.(?!__)\w{1,99}"
    r"|_operator\.(add|sub|mul|floordiv|mod)"
)

#: Dimensions of an input.
_RANK = 8

_dtype = one_of(*DTYPES)
_named = record(name=variable)


def _device(value: Any, where: str) -> dict[str, Any]:
    kind = value.get("type") if isinstance(value, dict) else value
    if kind != "cpu":
        raise fault(where, f"a tensor on {name(kind)}; move the model by model.cpu() and export it")
    return {"type": "cpu", "index": None}


def _target(value: Any, where: str) -> str:
    if not isinstance(value, str) or not _TARGET.fullmatch(value):
        shown = str(value).removeprefix("torch.ops.")
        raise fault(where, f"the array has no operation {name(shown)}; export a model of layers")
    return value


_fixed = union("a fixed size", as_int=count)
_tensor: dict[str, Check] = {
    "dtype": _dtype,
    "requires_grad": flag,
    "device": _device,
    "layout": one_of(7),
}
_stored = record(**_tensor, sizes=many(_fixed), strides=many(_fixed), storage_offset=_fixed)


def given(value: Any, where: str) -> dict[str, Any]:
    """Shape and type of an input of the model; its elements lie without gaps."""
    meta: dict[str, Any] = record(**_tensor, sizes=many(size))(value, where)
    if len(meta["sizes"]) > _RANK:
        raise fault(where, f"{len(meta['sizes'])} dimensions")
    inner = [product(meta["sizes"][index:]) for index in range(1, len(meta["sizes"]) + 1)]
    return meta | {"strides": inner, "storage_offset": {"as_int": 0}}


def _symbolic(kind: str, of: Check) -> Check:
    return union("an argument", **{"as_name": variable, kind: of})


_ARGUMENT = union(
    "an argument",
    as_none=flag,
    as_tensor=_named,
    as_tensors=many(_named),
    as_optional_tensors=many(union("a tensor", as_tensor=_named, as_none=flag)),
    as_int=whole,
    as_ints=many(whole),
    as_float=number,
    as_floats=many(number),
    as_bool=flag,
    as_bools=many(flag),
    as_string=text,
    as_sym_int=_symbolic("as_int", whole),
    as_sym_ints=many(_symbolic("as_int", whole)),
    as_scalar_type=_dtype,
    as_memory_format=one_of(1, 2, 3, 4),
    as_layout=one_of(7),
    as_device=_device,
)
_RESULT = union(
    "a result",
    as_none=flag,
    as_tensor=_named,
    as_tensors=many(_named),
    as_sym_int=_symbolic("as_int", whole),
)
_METADATA = record({"nn_module_stack": text})
NODE = record(
    {"name": optional(variable)},
    target=_target,
    inputs=many(record({"kind": optional(one_of(1, 2))}, name=text, arg=_ARGUMENT)),
    outputs=many(_RESULT),
    metadata=_METADATA,
)
_RETURNED = union("a tensor", as_tensor=_named, as_none=flag)
INPUT_SPEC = union(
    "an input",
    user_input=record(arg=union("a tensor", as_tensor=_named)),
    parameter=record(arg=_named, parameter_name=attribute_path),
    buffer=record(arg=_named, buffer_name=attribute_path, persistent=flag),
    tensor_constant=record(arg=_named, tensor_constant_name=attribute_path),
)
OUTPUT_SPEC = union(
    "an output",
    user_output=record(arg=_RETURNED),
    buffer_mutation=record(arg=_named, buffer_name=attribute_path),
    user_input_mutation=record(arg=_named, user_input_name=variable),
)
_PAYLOAD = record(path_name=text, is_param=flag, use_pickle=flag, tensor_meta=optional(_stored))
#: Where the tensor of an input is, and the key of its path.
HOMES = {
    "parameter": "parameter_name",
    "buffer": "buffer_name",
    "tensor_constant": "tensor_constant_name",
}


def parse(data: bytes, where: str) -> dict[str, Any]:
    """The object in a JSON file."""

    def refuse(token: str) -> None:
        raise ValueError(f"{token} is not JSON")

    try:
        value = json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise fault(where, f"not JSON ({name(error)}); {AGAIN}") from None
    if not isinstance(value, dict):
        raise fault(where, f"not an object of JSON; {AGAIN}")
    return value


def stored(config: dict[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """The tensors that a file of weights or constants lists, by path."""
    listed = record(config=lambda value, _: value)(config, where)["config"]
    if not isinstance(listed, dict):
        raise fault(where, "config is not an object")
    found = {}
    for key, value in listed.items():
        here = f"{where}: tensor {name(key)}"
        payload = _PAYLOAD(value, here)
        if payload["use_pickle"] or payload["tensor_meta"] is None:
            raise fault(
                here,
                "is stored as a pickle, which is code; export a model of plain tensors "
                "(no tensor subclasses, no objects)",
            )
        if not re.fullmatch(r"\w{1,99}", payload["path_name"]):
            raise fault(here, f"its file {name(payload['path_name'])} is not the name of a file")
        found[attribute_path(key, here)] = payload
    return found


def extent(payload: dict[str, Any], where: str) -> tuple[int, int]:
    """Bytes of a stored tensor, and the byte of its file at which it ends."""
    meta = payload["tensor_meta"]
    sizes, strides = ([n["as_int"] for n in meta[key]] for key in ("sizes", "strides"))
    width, elements = DTYPES[meta["dtype"]].itemsize, math.prod(sizes)
    if elements == 0:
        return 0, 0
    if len(sizes) != len(strides):
        raise fault(where, f"{len(sizes)} sizes and {len(strides)} strides")
    last = sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    return elements * width, (meta["storage_offset"]["as_int"] + last + 1) * width

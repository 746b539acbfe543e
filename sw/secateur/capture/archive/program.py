"""The program of a torch.export archive, rewritten: only known and harmless parts are kept.

Omitted are example inputs (a pickle), guards (Python), the structures in which the model took and
returned its tensors, traces, and the shapes of computed values, which are inferred again. Only
programs that take and return tensors are accepted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from secateur.capture.archive.schema import AGAIN, HOMES, INPUT_SPEC, NODE, OUTPUT_SPEC, given
from secateur.capture.archive.values import count, fault, many, one_of, optional, record, symbol
from secateur.disk.limits import Limits
from secateur.text import name

_SCHEMA = 8


def program(
    config: dict[str, Any],
    weights: dict[str, dict[str, Any]],
    constants: dict[str, dict[str, Any]],
    limits: Limits,
    where: str,
) -> dict[str, Any]:
    """The program of an archive, rewritten.

    Parameters
    ----------
    config : the object of ``models/model.json``
    weights, constants : tensors by path, from :func:`stored`
    limits : on operations
    where : names the file

    Raises
    ------
    SecateurError : a part that torch.export does not write, or that is not supported
    """
    _check_version(config, where)
    module = _object(config, "graph_module", where)
    graph, signature = (_object(module, key, where) for key in ("graph", "signature"))
    nodes = graph.get("nodes")
    limits.check_nodes(len(nodes) if isinstance(nodes, list) else 0, where)
    nodes = many(NODE)(nodes, f"{where}: nodes")
    inputs = many(INPUT_SPEC)(signature.get("input_specs"), f"{where}: inputs")
    outputs = many(OUTPUT_SPEC)(signature.get("output_specs"), f"{where}: outputs")
    taken = [v["arg"]["as_tensor"]["name"] for s in inputs for k, v in s.items() if k not in HOMES]
    if not taken:
        raise fault(where, "the model has no input")
    claimed = _object(graph, "tensor_values", where)
    values = _inputs(inputs, claimed, weights, constants, where)
    _check_order(values, nodes, where)
    results = [result for node in nodes for result in node["outputs"]]
    rewritten = {
        "inputs": [{"as_tensor": {"name": key}} for key in values],
        "outputs": [_returned(spec) for spec in outputs],
        "nodes": nodes,
        "tensor_values": _unknown(results) | values,
        "sym_int_values": {
            result["as_sym_int"]["as_name"]: {"as_int": 1}
            for result in results
            if "as_name" in result.get("as_sym_int", {})
        },
        "sym_bool_values": {},
    }
    return {
        "graph_module": {
            "graph": rewritten,
            "signature": {"input_specs": inputs, "output_specs": outputs},
            "module_call_graph": [_call(taken, sum("user_output" in s for s in outputs))],
        },
        "opset_version": {},
        "range_constraints": _ranges(config, where),
        "schema_version": {"major": _SCHEMA, "minor": 0},
        "verifiers": many(one_of("TRAINING", "ATEN"))(config.get("verifiers"), f"{where}: dialect"),
        "guards_code": [],
    }


def _check_version(config: dict[str, Any], where: str) -> None:
    version = config.get("schema_version")
    major = version.get("major") if isinstance(version, dict) else None
    if type(major) is not int or major != _SCHEMA:
        by = name(config.get("torch_version", "an unknown one"))
        raise fault(
            where,
            f"written in schema {name(major)} of torch ({by}), schema {_SCHEMA} is read; {AGAIN} "
            f"of torch {name(torch.__version__)}",
        )


def _check_order(known: Iterable[str], nodes: list[dict[str, Any]], where: str) -> None:
    """Refuse a node that reads a value before it is defined, or defines one twice."""
    given = set(known)
    for index, node in enumerate(nodes):
        here = f"{where}: nodes[{index}]"
        for key in _names([argument["arg"] for argument in node["inputs"]]):
            if key not in given:
                raise fault(here, f"reads {name(key)!r}, which nothing before it defines")
        for key in _names(node["outputs"]):
            if key in given:
                raise fault(here, f"defines {name(key)!r}, which is defined before it")
            given.add(key)


def _names(value: Any) -> Iterator[str]:
    """Names of values in arguments or results."""
    if isinstance(value, list):
        for part in value:
            yield from _names(part)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from [part] if key in ("name", "as_name") else _names(part)


def _object(of: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = of.get(key)
    if not isinstance(value, dict):
        raise fault(where, f"{key} is not an object; {AGAIN}")
    return value


def _inputs(
    specs: list[dict[str, Any]],
    claimed: dict[str, Any],
    weights: dict[str, dict[str, Any]],
    constants: dict[str, dict[str, Any]],
    where: str,
) -> dict[str, Any]:
    """Shapes and types of the inputs of a graph, by name: the model's own tensors, and those given.

    Parameters
    ----------
    specs : the inputs
    claimed : shapes and types of the model's inputs, from the file
    weights, constants : the model's own tensors, by path
    where : names the file
    """
    values = {}
    for spec in specs:
        ((kind, held),) = spec.items()
        if kind in HOMES:
            values[held["arg"]["name"]] = _home(kind, held, weights, constants, where)
        else:
            key = held["arg"]["as_tensor"]["name"]
            values[key] = given(claimed.get(key), f"{where}: input {key!r}")
    if len(values) != len(specs):
        raise fault(where, "two inputs have one name")
    return values


def _home(
    kind: str,
    spec: dict[str, Any],
    weights: dict[str, dict[str, Any]],
    constants: dict[str, dict[str, Any]],
    where: str,
) -> dict[str, Any]:
    """Shape and type of the tensor behind an input that is part of the model."""
    path = spec[HOMES[kind]]
    lasting = kind == "parameter" or spec.get("persistent", False)
    found = (weights if lasting else constants).get(path)
    if found is None:
        raise fault(where, f"{kind.replace('_', ' ')} {name(path)} is not in the archive; {AGAIN}")
    meta: dict[str, Any] = found["tensor_meta"]
    return meta


def _returned(spec: dict[str, Any]) -> dict[str, Any]:
    ((kind, held),) = spec.items()
    argument: dict[str, Any] = held["arg"]
    return argument if kind == "user_output" else {"as_tensor": argument}


def _unknown(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Placeholders for computed values, tensors without elements: torch needs a shape and type."""
    nothing = {
        "dtype": 7, "sizes": [], "requires_grad": False, "device": {"type": "cpu", "index": None},
        "strides": [], "storage_offset": {"as_int": 0}, "layout": 7,
    }  # fmt: skip
    named = [result["as_tensor"] for result in results if "as_tensor" in result]
    named += [item for result in results for item in result.get("as_tensors", ())]
    return {item["name"]: nothing for item in named}


def _call(inputs: list[str], outputs: int) -> dict[str, Any]:
    """The model called with its inputs in order; its output, or several in a tuple."""
    leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}

    def of(kind: str, parts: list[dict[str, Any]], context: str = "null") -> dict[str, Any]:
        return {"type": f"builtins.{kind}", "context": context, "children_spec": parts}

    arguments = of("tuple", [of("tuple", [leaf] * len(inputs)), of("dict", [], "[]")])
    result = leaf if outputs == 1 else of("tuple", [leaf] * outputs)
    return {
        "fqn": "",
        "signature": {
            "inputs": [],
            "outputs": [],
            "in_spec": json.dumps([1, arguments]),
            "out_spec": json.dumps([1, result]),
            "forward_arg_names": inputs,
        },
    }


def _ranges(config: dict[str, Any], where: str) -> dict[str, Any]:
    """Bounds of the sizes that are symbols."""
    check = record(min_val=optional(count), max_val=optional(count))
    return {
        key: check(value, f"{where}: range of {key}")
        for key, value in _object(config, "range_constraints", where).items()
        if symbol(key)
    }

"""ONNX's own backend tests through the importer, as a list:
``python -m docs.tables.onnx_backend``.

All kinds but whole networks, which are downloads: nodes, and layers that PyTorch exported. Inputs
of a test but the first are bound as constants, as exporters write weights; where such a constant
is refused, all inputs are tensors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

from secateur.capture.onnx.convert import convert_onnx
from secateur.capture.onnx.layers import LAYERS
from secateur.errors import SecateurError

PASSED = "passed"
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")


def model_of(case: TestCase) -> onnx.ModelProto:
    """The model of a test, from its file if it has one."""
    return case.model or onnx.load(str(Path(case.model_dir) / "model.onnx"))


def _data(case: TestCase, which: str) -> list[Any]:
    """The first inputs or outputs of a test; what is not a tensor counts as missing."""
    if case.data_sets:
        return list(case.data_sets[0][which == "output"])
    found = []
    files = Path(case.model_dir, "test_data_set_0").glob(f"{which}_*.pb")
    for file in sorted(files, key=lambda file: int(file.stem.split("_")[1])):
        proto = onnx.TensorProto()
        proto.ParseFromString(file.read_bytes())
        found.append(numpy_helper.to_array(proto))
    return found


def outcome(case: TestCase) -> str:
    """PASSED, or why the importer refuses the model; raises AssertionError if it is wrong."""
    inputs, expected, model = _data(case, "input"), _data(case, "output"), model_of(case)
    held = {value.name for value in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in held]
    if not inputs or not isinstance(inputs[0], np.ndarray) or inputs[0].dtype != np.float32:
        return "its input is not a tensor of float32"
    refusal = ""
    for count in (1, len(inputs)):
        constants = dict(zip(names[count:], inputs[count:], strict=True))
        try:
            module = convert_onnx(model, constants, inputs=count)
        except SecateurError as error:
            refusal = refusal or str(error)
            continue
        with torch.no_grad():
            found = module.evaluate(
                *(torch.from_numpy(np.array(x)) for x in inputs[:count])
            ).numpy()
        np.testing.assert_allclose(found, expected[0], rtol=case.rtol, atol=case.atol)
        return PASSED
    return refusal


def outcomes() -> dict[str, str]:
    """By name of test: all tests of operators that the importer knows.

    QuantizeLinear and DequantizeLinear are left out: the importer drops them, or keeps only powers
    of two as scales, and says so.
    """
    computed = LAYERS.keys() - {"QuantizeLinear", "DequantizeLinear"}
    return {
        case.name: outcome(case)
        for kind in KINDS
        for case in load_model_tests(kind=kind)
        if {node.op_type for node in model_of(case).graph.node} <= computed | {"Constant"}
    }


def main() -> None:
    """Print the outcomes as JSON, what passed first."""
    found = outcomes()
    order = sorted(found, key=lambda name: (found[name] != PASSED, name))
    print(json.dumps({name: found[name] for name in order}, indent=1))


if __name__ == "__main__":
    main()

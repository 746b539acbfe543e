"""ONNX's own node tests through the importer: ``python -m tests.onnx_backend`` prints the list.

Inputs of a test but the first are bound as constants, as exporters write weights.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

from secateur.errors import SecateurError
from secateur.onnx_import import convert_onnx
from secateur.onnx_layers import LAYERS

PASSED = "passed"


def outcome(case: TestCase) -> str:
    """PASSED, or why the importer refuses the model; raises AssertionError if it is wrong."""
    inputs, expected = case.data_sets[0]
    names = [value.name for value in case.model.graph.input]
    if not isinstance(inputs[0], np.ndarray) or inputs[0].dtype != np.float32:
        return "its input is no tensor of float32"
    try:
        module = convert_onnx(case.model, dict(zip(names[1:], inputs[1:], strict=True)))
    except SecateurError as error:
        return str(error)
    with torch.no_grad():
        found = module(torch.from_numpy(inputs[0])).numpy()
    np.testing.assert_allclose(found, expected[0], rtol=case.rtol, atol=case.atol)
    return PASSED


def outcomes() -> dict[str, str]:
    """By name of test: all node tests of operators that the importer knows.

    QuantizeLinear and DequantizeLinear are left out: the importer drops them, and says so.
    """
    computed = LAYERS.keys() - {"QuantizeLinear", "DequantizeLinear"}
    return {
        case.name: outcome(case)
        for case in load_model_tests(kind="node")
        if {node.op_type for node in case.model.graph.node} <= computed
    }


def main() -> None:
    """Print the outcomes as JSON, what passed first."""
    found = outcomes()
    order = sorted(found, key=lambda name: (found[name] != PASSED, name))
    print(json.dumps({name: found[name] for name in order}, indent=1))


if __name__ == "__main__":
    main()

"""ONNX's own node tests through the importer: ``python -m tests.onnx_backend`` prints the list.

Inputs of a test but the first are bound as constants, as exporters write weights; where such a
constant is refused, all inputs are tensors.
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
    if not inputs or not isinstance(inputs[0], np.ndarray) or inputs[0].dtype != np.float32:
        return "its input is no tensor of float32"
    refusal = ""
    for count in (1, len(inputs)):
        constants = dict(zip(names[count:], inputs[count:], strict=True))
        try:
            module = convert_onnx(case.model, constants, inputs=count)
        except SecateurError as error:
            refusal = refusal or str(error)
            continue
        with torch.no_grad():
            found = module(*(torch.from_numpy(np.array(x)) for x in inputs[:count])).numpy()
        np.testing.assert_allclose(found, expected[0], rtol=case.rtol, atol=case.atol)
        return PASSED
    return refusal


def outcomes() -> dict[str, str]:
    """By name of test: all node tests of operators that the importer knows.

    QuantizeLinear and DequantizeLinear are left out: the importer drops them, or keeps only powers
    of two as scales, and says so.
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

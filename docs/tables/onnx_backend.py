"""ONNX's own backend tests through the importer, as a page of the documentation:
``python -m docs.tables.onnx_backend > docs/reference/onnx-tests.md``.

All kinds but whole networks, which are downloads: nodes, and layers that PyTorch exported. Inputs
of a test but the first are bound as constants, as exporters write weights; where such a constant
is refused, all inputs are tensors.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

from secateur.capture.onnx.convert import convert_onnx
from secateur.capture.onnx.operators.table import LAYERS
from secateur.capture.onnx.sizes import OPERATORS
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
            with torch.no_grad():
                found = module.evaluate(*(torch.from_numpy(np.array(x)) for x in inputs[:count]))
        except SecateurError as error:
            refusal = refusal or str(error)
            continue
        found = list(found.values()) if isinstance(found, dict) else [found]
        assert len(found) == len(expected)
        for made, wanted in zip(found, expected, strict=True):
            assert made.shape == wanted.shape
            np.testing.assert_allclose(made.numpy(), wanted, rtol=case.rtol, atol=case.atol)
        return PASSED
    return refusal


def outcomes() -> dict[str, str]:
    """By name of test: all tests of operators that the importer knows.

    QuantizeLinear and DequantizeLinear are left out: the importer drops them, or keeps only powers
    of two as scales, and says so. So is Cast, since it computes all floats in 32 bits.
    """
    computed = LAYERS.keys() - {"Cast", "DequantizeLinear", "QuantizeLinear"}
    computed |= {"CastLike", "Constant", "Shape", "Size", *OPERATORS} - {"Cast"}
    return {
        case.name: outcome(case)
        for kind in KINDS
        for case in load_model_tests(kind=kind)
        if {node.op_type for node in model_of(case).graph.node} <= computed
    }


def _reason(outcome: str) -> str:
    """Why a test is refused, without the names and numbers of the test."""
    reason = re.sub(r"^(node '.*?' \((\w+)\)|output '.*?'): ?", r"\2: ", outcome)
    reason = re.sub(r"'.*?'", "'...'", re.sub(r"-?\d[\d, ]*", "# ", reason))
    return reason.split("; ")[0].removeprefix(": ")


def page() -> str:
    """The page of the documentation."""
    found = outcomes()
    passed = sorted(name for name, outcome in found.items() if outcome == PASSED)
    reasons: dict[str, int] = {}
    for outcome in found.values():
        if outcome != PASSED:
            reasons[_reason(outcome)] = reasons.get(_reason(outcome), 0) + 1
    names = textwrap.fill(
        ", ".join(f"`{name}`" for name in passed), 100, break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip
    rows = "\n".join(f"| {reasons[reason]} | {reason} |" for reason in sorted(reasons))
    return _PAGE.format(passed=len(passed), all=len(found), names=names, rows=rows)


_PAGE = """\
# ONNX's own tests

`python -m docs.tables.onnx_backend` writes this page. It runs the backend tests of the package
onnx, of nodes and of layers that PyTorch exported, for all operators that the importer knows. The
module that `load_onnx` makes computes in float what the test expects, or the model is refused; none
gives another output. Whether the array can run the module is decided behind, as for a model of
PyTorch: [supported operators](../operators.md).

Inputs of a test except the first are bound as constants, as exporters write weights. Where such a
constant is refused, all inputs are tensors.

## {passed} of {all} pass

{names}

## The others

| tests | why |
| --- | --- |
{rows}
"""


def main() -> None:
    """Print the page."""
    print(page(), end="")


if __name__ == "__main__":
    main()

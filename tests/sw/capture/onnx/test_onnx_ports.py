"""ONNX files with several inputs and outputs, by the names that the file has."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import secateur
from secateur.capture.onnx.convert import convert_onnx, load_onnx
from secateur.errors import SecateurError
from tests.sw.capture.onnx.test_onnx import node


def normal(*shape: int) -> np.ndarray:
    return (np.random.default_rng(sum(shape)).normal(size=shape) / 2).astype(np.float32)


def two(first: str, second: str, samples: object = "n") -> onnx.ModelProto:
    """Maps of two inputs are added; boxes and scores come of the sum."""
    graph = helper.make_graph(
        [
            node("Conv", f"{first} w0", "a"), node("Conv", f"{second} w1", "b"),
            node("Add", "a b", "c"), node("Relu", "c", "d"), node("Conv", "d w2", "boxes"),
            node("GlobalAveragePool", "d", "e"), node("Flatten", "e", "f"),
            node("Gemm", "f w3", "1.score"),
        ],
        "net",
        [helper.make_tensor_value_info(first, TensorProto.FLOAT, [samples, 3, 5, 5]),
         helper.make_tensor_value_info(second, TensorProto.FLOAT, [samples, 2, 5, 5])],
        [helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [None] * 4),
         helper.make_tensor_value_info("1.score", TensorProto.FLOAT, [None] * 2)],
        [numpy_helper.from_array(value, name) for name, value in (
            ("w0", normal(8, 3, 1, 1)), ("w1", normal(8, 2, 1, 1)), ("w2", normal(4, 8, 1, 1)),
            ("w3", normal(8, 3)))],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("samples", ["n", 1])
def test_names_of_the_file_reach_the_results(samples: object, tmp_path: Path) -> None:
    proto, file = two("image", "depth", samples), tmp_path / "net.onnx"
    onnx.save(proto, file)
    x, z = normal(6, 3, 5, 5), normal(6, 2, 5, 5)
    model = load_onnx(file)
    with torch.no_grad():
        found = copy.deepcopy(model)(depth=torch.from_numpy(z), image=torch.from_numpy(x))
    assert list(found) == ["boxes", "1.score"]
    for index, values in enumerate(found.values()):
        expected = ReferenceEvaluator(proto).run(None, {"image": x, "depth": z})[index]
        torch.testing.assert_close(values, torch.from_numpy(expected), rtol=1e-4, atol=1e-5)
    tensors = (torch.from_numpy(x), torch.from_numpy(z))
    graph = secateur.quantize(model, tensors)
    image = secateur.compile(graph, target="8x8")
    values = secateur.run(image, {"image": x, "depth": z}).values
    for name, wanted in graph(*tensors).items():
        np.testing.assert_array_equal(values[name], wanted.numpy())
        assert np.ptp(values[name]) > 0.05


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("image", "class"), ["image", "input1"]),
        (("self", "a.b"), ["input0", "input1"]),
        (("input1", "\x1b[31m"), ["input0", "input1"]),
        (('x")or(y', "n" * 100), ["input0", "input1"]),
    ],
)
def test_inputs_that_no_argument_can_be_called(names: tuple[str, str], expected: list[str]) -> None:
    model = convert_onnx(two(*names))
    x, z = torch.from_numpy(normal(2, 3, 5, 5)), torch.from_numpy(normal(2, 2, 5, 5))
    again = convert_onnx(two("image", "depth"))(x, z)
    assert torch.equal(model(**dict(zip(expected, (x, z), strict=True)))["boxes"], again["boxes"])


def test_samples_of_another_shape_are_refused() -> None:
    model = convert_onnx(two("image", "depth"))
    x = torch.zeros(2, 3, 5, 5)
    with pytest.raises(SecateurError, match=r"samples of shape \(3, 5, 5\), the ONNX file has \(2"):
        model(x, x)

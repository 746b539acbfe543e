"""Small ONNX models, and a bound of the memory that reading them takes, for the tests."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def named(name: str) -> onnx.ModelProto:
    """A convolution and a relu; nodes and tensors are called by parts of ``name``."""
    weight = np.random.default_rng(0).normal(size=(4, 1, 3, 3)).astype(np.float32)
    x, w, c, y = (f"{name}{part}" for part in ("", "w", "c", "y"))
    graph = helper.make_graph(
        [
            helper.make_node("Conv", [x, w], [c], name=name, pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [c], [y], name=name),
        ],
        name,
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N", 1, 5, 6])],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, ["N", 4, 5, 6])],
        [numpy_helper.from_array(weight, w)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@contextmanager
def little_memory() -> Iterator[None]:
    """NumPy's and Python's own allocations stay below 32 MB."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()

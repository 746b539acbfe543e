"""Quantised networks in ONNX, node by node, for the tests."""

from __future__ import annotations

import numpy as np
import onnx

from tests.sw.capture.onnx.test_onnx import model_of, node

RNG = np.random.default_rng


class Qdq:
    """Builds the nodes of a quantised network, with its constants."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.rng = RNG(seed)

    def call(self, kind: str, inputs: str, **attributes: object) -> str:
        out = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(node(kind, inputs, out, **attributes))
        return out

    def hold(self, value: object) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def store(self, x: str, exponent: int, kind: type = np.int8, scale: float | None = None) -> str:
        """QuantizeLinear and DequantizeLinear."""
        step = self.hold(np.float32(2.0**exponent if scale is None else scale))
        zero = self.hold(kind(0))
        codes = self.call("QuantizeLinear", f"{x} {step} {zero}")
        return self.call("DequantizeLinear", f"{codes} {step} {zero}")

    def weight(self, *shape: int, exponents: tuple[int, int], axis: int = 0) -> str:
        codes = self.hold(self.rng.integers(-90, 91, shape).astype(np.int8))
        scales = np.exp2(self.rng.integers(*exponents, shape[axis])).astype(np.float32)
        return self.call(
            "DequantizeLinear",
            f"{codes} {self.hold(scales)} {self.hold(np.zeros(shape[axis], np.int8))}",
            axis=axis,
        )

    def bias(self, count: int, exponent: int) -> str:
        """int32, with one scale."""
        codes = self.hold(self.rng.integers(-200, 201, count).astype(np.int32))
        return self.call("DequantizeLinear", f"{codes} {self.hold(np.float32(2.0**exponent))}")

    def finish(self, y: str, shape: tuple[int, ...], rank: int) -> onnx.ModelProto:
        self.nodes.append(node("Identity", y, "y"))
        # The first version of which onnx's evaluator has both operators.
        return model_of(self.nodes, shape, rank, 21, **self.constants)


def maps() -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """Residual, concatenation of a rescaled tensor, pooling before and behind codes, functions."""
    q = Qdq(1)
    x = q.store("x", -6)
    a = q.call("Conv", f"{x} {q.weight(8, 3, 3, 3, exponents=(-11, -7))} {q.bias(8, -8)}",
               pads=[1, 1, 1, 1])  # fmt: skip
    a = q.store(q.call("Relu", a), -5, np.uint8)
    b = q.call("Conv", f"{a} {q.weight(8, 1, 3, 3, exponents=(-9, -6))}", pads=[1, 1, 1, 1],
               group=8)  # fmt: skip
    b = q.store(b, -5)
    c = q.call("Conv", f"{b} {q.weight(8, 8, 1, 1, exponents=(-9, -7))} {q.bias(8, -7)}")
    c = q.store(q.call("Relu", q.call("Add", f"{c} {a}")), -4, np.uint8)
    c = q.store(q.call("Add", f"{q.store(c, -4)} {b}"), -4)
    d = q.call("Conv", f"{c} {q.weight(4, 8, 1, 1, exponents=(-9, -7))}")
    d = q.store(d, -5)
    e = q.store(q.call("Tanh", d), -7)
    rescaled = q.store(d, -4)
    f = q.store(q.call("Mul", f"{e} {rescaled}"), -4)
    g = q.call("Concat", f"{f} {q.store(rescaled, -4)}", axis=1)
    g = q.store(q.call("Conv", f"{g} {q.weight(8, 8, 1, 1, exponents=(-9, -7))}"), -4)
    g = q.store(q.call("MaxPool", g, kernel_shape=[2, 2], strides=[2, 2]), -4)
    g = q.store(q.call("GlobalAveragePool", g), -7)
    g = q.call("Flatten", g)
    weight = q.weight(8, 5, exponents=(-9, -6), axis=1)
    g = q.store(q.call("Add", f"{q.call('MatMul', f'{g} {weight}')} {q.bias(5, -11)}"), -8)
    return q.finish(g, (3, 8, 8), 2), (3, 8, 8)


def signals() -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """Conv1d; codes are pooled and flattened as they are."""
    q = Qdq(2)
    x = q.store("x", -7, np.uint8)
    a = q.call("Conv", f"{x} {q.weight(6, 2, 5, exponents=(-9, -7))}", pads=[2, 2], strides=[2])
    step, zero = q.hold(np.float32(2.0**-5)), q.hold(np.int8(0))
    a = q.call("QuantizeLinear", f"{a} {step} {zero}")
    a = q.call("MaxPool", a, kernel_shape=[2], strides=[2])
    a = q.call("DequantizeLinear", f"{a} {step} {zero}")
    a = q.call("Flatten", a)
    a = q.call("Gemm", f"{a} {q.weight(4, 24, exponents=(-9, -7))} {q.bias(4, -6)}", transB=1)
    a = q.store(a, -4)
    b = q.store(a, -5)
    b = q.call("Gemm", f"{b} {q.weight(3, 4, exponents=(-9, -7))}", transB=1)
    return q.finish(q.store(b, -5), (2, 16), 2), (2, 16)


def moves() -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """Channels last at both ends; codes and values are split, cut, resized and padded."""
    q = Qdq(3)
    x = q.call("Transpose", q.store("x", -6), perm=[0, 3, 1, 2])
    a = q.call("Conv", f"{x} {q.weight(8, 3, 3, 3, exponents=(-10, -7))}", pads=[1, 1, 1, 1])
    step, zero = q.hold(np.float32(2.0**-5)), q.hold(np.int8(0))
    codes = q.call("QuantizeLinear", f"{a} {step} {zero}")
    first = q.call("Slice", f"{codes} {q.hold([0])} {q.hold([4])} {q.hold([1])}")
    parts = [f"part{index}" for index in range(2)]
    q.nodes.append(onnx.helper.make_node("Split", [codes], parts, name="split", axis=1))
    wide = q.call("Resize", f"{parts[1]}  ", mode="nearest", nearest_mode="floor",
                  coordinate_transformation_mode="asymmetric")  # fmt: skip
    q.nodes[-1].input[:] = [parts[1], "", q.hold(np.array([1, 1, 2, 1], np.float32))]
    wide = q.call("Slice", f"{wide} {q.hold([1])} {q.hold([99])} {q.hold([2])} {q.hold([2])}")
    joined = q.call("Concat", f"{first} {wide} {parts[0]}", axis=1)
    b = q.call("DequantizeLinear", f"{joined} {step} {zero}")
    b = q.call("Pad", f"{b} {q.hold([0, 0, 0, 1, 0, 0, 0, 1])}", mode="reflect")
    b = q.call("Conv", f"{b} {q.weight(4, 12, 1, 3, exponents=(-10, -7))}")
    b = q.call("Transpose", q.store(b, -4), perm=[0, 2, 3, 1])
    return q.finish(b, (6, 6, 3), 4), (6, 6, 3)

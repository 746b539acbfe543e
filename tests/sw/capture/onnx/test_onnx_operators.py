"""Functions, arithmetic and signals from ONNX: as onnx computes them, then on the array."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from secateur.capture.onnx.convert import convert_onnx
from tests.support.pipeline import build, check_image, compile_for, target
from tests.sw.capture.onnx.test_onnx import model_of, node

FUNCTIONS: list[tuple[str, dict[str, object]]] = [
    ("Sigmoid", {}), ("Tanh", {}), ("HardSigmoid", {"alpha": 1 / 6}), ("HardSigmoid", {}),
    ("HardSwish", {}), ("LeakyRelu", {}), ("LeakyRelu", {"alpha": 0.25}), ("Elu", {"alpha": 0.5}),
    ("Selu", {}), ("Selu", {"alpha": 1.5, "gamma": 0.75}), ("Celu", {"alpha": 2.0}), ("Gelu", {}),
    ("Gelu", {"approximate": "tanh"}), ("Softplus", {}), ("Mish", {}), ("Exp", {}), ("Abs", {}),
    ("Neg", {}), ("Sin", {}), ("Cos", {}), ("Erf", {}),
]  # fmt: skip


def normal(*shape: int) -> np.ndarray:
    return (np.random.default_rng(sum(shape)).normal(size=shape) / 2).astype(np.float32)


def functions(first: int) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """Seven functions, each behind a convolution, as many as tables; the last is a sigmoid."""
    chosen = [*FUNCTIONS[first : first + 7], ("Sigmoid", {})]
    nodes, constants, x = [], {}, "x"
    for index, (kind, attributes) in enumerate(chosen):
        constants[f"w{index}"] = 2 * normal(4, 4, 1, 1) + normal(index + 1)[-1] / 4
        last = index == len(chosen) - 1
        nodes.append(node("Conv", f"{x} w{index}", f"a{index}"))
        x = "y" if last else f"f{index}"
        nodes.append(node(kind, f"a{index}", x, **attributes))
    return model_of(nodes, (4, 4, 4), 4, 20, **constants), (4, 4, 4)


def arithmetic() -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """A squeeze and excitation with views, sums, differences, products, slopes, a square."""
    nodes = [
        node("Conv", "x w0", "a0", pads=[1, 1, 1, 1]),
        node("Mul", "a0 each", "a1"),  # into the layer
        node("Sub", "one a1", "a2"),
        node("Div", "a2 half", "a3"),
        node("PRelu", "a3 each", "b"),
        node("GlobalAveragePool", "b", "g0"),
        node("Flatten", "g0", "g1"),
        node("Gemm", "g1 w1", "g2"),
        node("HardSigmoid", "g2", "g3"),
        node("Reshape", "g3 map", "g4"),
        node("Mul", "b g4", "c0"),
        node("Relu", "c0", "c1"),
        node("Mul", "c1 each", "c2"),  # no layer's output
        node("Add", "c2 each", "c3"),
        node("Sub", "c3 half", "c4"),
        node("Neg", "c4", "c5"),
        node("Pow", "b two", "d0"),
        node("Sub", "c5 d0", "d1"),
        node("Sum", "d1 b c4", "d2"),
        node("PRelu", "d2 half", "d3"),
        node("MaxPool", "d3", "e0", kernel_shape=[2, 2], dilations=[2, 2], strides=[2, 2]),
        node("GlobalMaxPool", "e0", "e1"),
        node("Squeeze", "e1 axes", "e2"),
        node("Unsqueeze", "e2 axes", "e3"),
        node("Conv", "e3 w2", "y"),
    ]
    made = model_of(
        nodes, (3, 6, 6), 4, w0=normal(4, 3, 3, 3), w1=normal(4, 4), w2=normal(5, 4, 1, 1),
        each=normal(4, 1, 1), one=np.float32(1), half=np.array([0.5], np.float32),
        two=np.float32(2), map=np.array([0, 4, 1, 1]), axes=np.array([2, 3]),
    )  # fmt: skip
    return made, (3, 6, 6)


def signals() -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """Layers in one dimension, with padding of all kinds."""
    nodes = [
        node("Conv", "x w0", "a0", pads=[1, 2], strides=[2], kernel_shape=[4]),
        node("BatchNormalization", "a0 gamma beta mean var", "a1"),
        node("Relu", "a1", "a2"),
        node("MaxPool", "a2", "a3", kernel_shape=[3], pads=[1, 1], strides=[2], ceil_mode=1),
        node("Pad", "a3 around", "a4"),
        node("Conv", "a4 w1", "b0", group=6, auto_pad="SAME_LOWER"),
        node("PRelu", "b0 slopes", "b1"),
        node("Add", "b1 beside", "b2"),
        node("Concat", "b2 b1", "c0", axis=1),
        node("AveragePool", "c0", "c1", kernel_shape=[2], pads=[0, 1], count_include_pad=1),
        node("Conv", "c1 w2 b2_", "c2", dilations=[2]),
        node("Swish", "c2", "c3"),
        node("ReduceMean", "c3 last", "d0", keepdims=0),
        node("Gemm", "d0 w3", "d1"),
        node("Tanh", "d1", "y"),
    ]
    made = model_of(
        nodes, (2, 37), 2, 24, w0=normal(6, 2, 4), gamma=normal(6) + 1, beta=normal(6),
        mean=normal(6), var=np.abs(normal(6)) + 0.5, around=np.array([0, 0, 2, 0, 0, 1]),
        w1=normal(6, 1, 4), slopes=normal(6, 1), beside=normal(6, 1), w2=normal(5, 12, 3),
        b2_=normal(5), last=np.array([-1]), w3=normal(5, 3),
    )  # fmt: skip
    return made, (2, 37)


@pytest.mark.parametrize(
    "made", [*map(functions, range(0, len(FUNCTIONS), 7)), arithmetic(), signals()]
)
def test_as_onnx_then_on_the_array(made: tuple[onnx.ModelProto, tuple[int, ...]]) -> None:
    proto, shape = made
    x = normal(6, *shape) * 3
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    assert np.ptp(expected) > 0.01
    model = convert_onnx(proto)
    with torch.no_grad():
        torch.testing.assert_close(model(torch.from_numpy(x)), torch.from_numpy(expected))
    to = target(8, 4)
    built = build(model, torch.from_numpy(x))
    assert check_image(built, compile_for(built, to), to.geometry) > 0


def test_constants_go_into_the_layer_before() -> None:
    """Batch norm as exporters leave it: a product and a sum, of one reader; else on their own."""

    def layers(*extra: onnx.NodeProto, out: str) -> list[str]:
        nodes = [
            node("Conv", "x w", "a"), node("Mul", "a each", "b"), node("Sub", "each b", "c"), *extra
        ]  # fmt: skip
        nodes[-1].output[0] = out
        proto = model_of(nodes, (3, 4, 4), 4, w=normal(4, 3, 1, 1), each=normal(4, 1, 1))
        x = normal(2, 3, 4, 4)
        (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
        model = convert_onnx(proto)
        with torch.no_grad():
            torch.testing.assert_close(model(torch.from_numpy(x)), torch.from_numpy(expected))
        return [n for n, m in model.layers.items() if not isinstance(m, nn.Identity | nn.Conv2d)]

    assert layers(out="y") == []
    assert layers(node("Add", "c a", "y"), out="y") == ["mul_1", "sub_2", "add_3"]


def test_broadcasting_of_old_versions() -> None:
    """Before opset 7, one slope each is by channel, and Add names its axis, which is refused."""
    proto = model_of([node("PRelu", "x slopes", "y")], (3, 4, 4), 4, slopes=normal(3))
    proto.opset_import[0].version = 6
    x = torch.from_numpy(normal(2, 3, 4, 4))
    slopes = torch.from_numpy(normal(3)).reshape(3, 1, 1)
    assert torch.equal(convert_onnx(proto)(x), torch.where(x < 0, x * slopes, x))
    old = helper.make_node("Add", ["x", "slopes"], ["y"], axis=1, broadcast=1)
    del proto.graph.node[:]
    proto.graph.node.append(old)
    with pytest.raises(ValueError, match="broadcasts along an axis"):
        convert_onnx(proto)

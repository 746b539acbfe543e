"""Moves, sizes and resizing from ONNX: as onnx computes them, then on the array."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator

from secateur.capture.onnx.convert import convert_onnx
from tests.support.pipeline import build, check_image, compile_for, target
from tests.sw.capture.onnx.test_onnx import model_of, node

Nodes = list[onnx.NodeProto]
_SHAPE = (4, 6, 6)


def normal(*shape: int) -> np.ndarray:
    return (np.random.default_rng(sum(shape)).normal(size=shape) / 2).astype(np.float32)


def several(kind: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), name="n", **attributes)


#: Each takes "a" (N, 4, 6, 6) and makes "b", with constants for the names that it reads.
MOVES: dict[str, tuple[Nodes, dict[str, Any]]] = {
    "slice": (
        [node("Slice", "a starts ends axes steps", "b")],
        {"starts": [1, -1], "ends": [1 << 40, -99], "axes": [1, -1], "steps": [1, -2]},
    ),
    "split": (
        [several("Split", "a sizes", "p q r", axis=1), node("Concat", "r p", "b", axis=1)],
        {"sizes": [1, 2, 1]},
    ),
    "split evenly": (
        [several("Split", "a", "p q", axis=-2), node("Add", "p q", "b")],
        {},
    ),
    "concat of rows": ([node("Concat", "a a", "b", axis=2)], {}),
    "concat of constants": ([node("Concat", "a held", "b", axis=1)], {"held": normal(1, 2, 6, 6)}),
    "concat of rows of constants": (
        [node("Flatten", "a", "f"), node("Unsqueeze", "f axes", "g"),
         node("Concat", "g held", "h", axis=1), node("Reshape", "h map", "b")],
        {"axes": [1], "held": normal(1, 1, 144), "map": [0, 2, 12, 12]},
    ),
    "transpose": ([node("Transpose", "a", "b", perm=[0, 3, 1, 2])], {}),
    "gather": ([node("Gather", "a taken", "b", axis=1)], {"taken": [3, 0, -2]}),
    "gather a row": (
        [node("Gather", "a one", "g", axis=2), node("Unsqueeze", "g axes", "b")],
        {"one": 5, "axes": [2]},
    ),
    "depth to space": ([node("DepthToSpace", "a", "b", blocksize=2)], {}),
    "depth to space, CRD": ([node("DepthToSpace", "a", "b", blocksize=2, mode="CRD")], {}),
    "space to depth": ([node("SpaceToDepth", "a", "b", blocksize=3)], {}),
    "tile": ([node("Tile", "a times", "b")], {"times": [1, 2, 1, 2]}),
    "expand": (
        [node("ReduceMean", "a axes", "m", keepdims=1), node("Expand", "m wide", "b")],
        {"axes": [2], "wide": [4, 3, 1]},
    ),
    "reshape": ([node("Reshape", "a to", "b")], {"to": [0, 9, -1, 2]}),
    "reflect": ([node("Pad", "a pads", "b", mode="reflect")], {"pads": [0, 0, 2, 1, 0, 0, 0, 3]}),
    "edge": ([node("Pad", "a pads", "b", mode="edge")], {"pads": [0, 0, 1, 2, 0, 0, 1, 0]}),
    "wrap": ([node("Pad", "a pads", "b", mode="wrap")], {"pads": [0, 0, 0, 2, 0, 0, 3, 0]}),
    "pad of axes": (
        [node("Pad", "a pads value axes", "b")],
        {"pads": [1, 2, 0, 1], "value": np.float32(0.5), "axes": [3, 1]},
    ),
    "nearest": ([node("Resize", "a  scales", "b")], {"scales": [1.0, 1, 2, 1.5]}),
    "nearest, smaller": (
        [node("Resize", "a   sizes", "b", nearest_mode="floor",
              coordinate_transformation_mode="asymmetric")],
        {"sizes": [1, 4, 3, 12]},
    ),
    "linear": ([node("Resize", "a  scales", "b", mode="linear")], {"scales": [1.0, 1, 2, 2]}),
    "linear, corners": (
        [node("Resize", "a   sizes", "b", mode="linear",
              coordinate_transformation_mode="align_corners")],
        {"sizes": [1, 4, 9, 11]},
    ),
    "cubic": ([node("Resize", "a  scales", "b", mode="cubic")], {"scales": [1.0, 1, 0.5, 1.5]}),
}  # fmt: skip


def empty_as_omitted(nodes: Nodes) -> Nodes:
    """Two spaces in a list of names stand for an input that is omitted."""
    for each in nodes:
        if each.op_type == "Resize":
            given = list(each.input)
            each.input[:] = ["a", "", given[1]] if given[1] == "scales" else ["a", "", "", given[1]]
    return nodes


@pytest.mark.parametrize("kind", MOVES)
def test_moves_as_onnx_then_on_the_array(kind: str) -> None:
    moves, constants = MOVES[kind]
    nodes = [
        node("Conv", "x w", "a"), *empty_as_omitted(moves), node("Relu", "b", "c"),
        node("GlobalMaxPool", "c", "d"), node("Identity", "c", "y"),
    ]  # fmt: skip
    given = {name: np.asarray(value) for name, value in constants.items()}
    given = {n: v.astype(np.float32) if v.dtype.kind == "f" else v for n, v in given.items()}
    proto = model_of(nodes, (3, 6, 6), 4, 18, w=normal(4, 3, 1, 1), **given)
    x = normal(4, 3, 6, 6) * 3
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x[:1]})
    model = convert_onnx(proto)
    with torch.no_grad():
        found = model(torch.from_numpy(x))
    torch.testing.assert_close(found[:1], torch.from_numpy(expected), rtol=1e-4, atol=1e-5)
    to = target(8, 4)
    built = build(model, torch.from_numpy(x))
    assert check_image(built, compile_for(built, to), to.geometry) > 0


def test_pads_below_zero_cut() -> None:
    pads = {"pads": np.array([0, 0, -1, 1, 0, 0, 2, -2])}
    x = torch.from_numpy(normal(2, 3, 4, 5))
    found = convert_onnx(model_of([node("Pad", "x pads", "y")], (3, 4, 5), 4, **pads))(x)
    expected = torch.zeros(2, 3, 5, 4)
    expected[:, :, :3, 1:] = x[:, :, 1:, :3]
    assert torch.equal(found, expected)

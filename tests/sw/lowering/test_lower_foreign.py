"""Converted graphs of others: what they hold beside what `quantize` makes is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import secateur
from secateur.capture.archive.archive import load_archive
from secateur.errors import SecateurError
from tests.support.archives import MODEL, call, changed, inputs, nodes, quantised_archive


def first(config: Any, operation: str) -> int:
    return next(i for i, node in enumerate(nodes(config)) if operation in node["target"])


def insert(config: Any, before: str, target: str, other: Any) -> None:
    """Put a call between a node and what it reads first; the value it takes comes first."""
    at = first(config, before)
    reads = nodes(config)[at]["inputs"][0]
    nodes(config).insert(at, call(target, "put", self=reads["arg"], other=other))
    reads["arg"] = {"as_tensor": {"name": "put"}}


def unquantised(config: Any) -> None:
    """A dequantise behind a layer's own result."""
    at = next(
        i for i, node in enumerate(nodes(config))
        if i > first(config, "conv2d") and "dequantize_per_tensor" in node["target"]
    )  # fmt: skip
    nodes(config)[at]["inputs"][0]["arg"] = {"as_tensor": {"name": "conv2d"}}


def clipped(low: object, high: object) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        at = first(config, "aten.relu")
        call = nodes(config)[at]
        call["target"] = "torch.ops.aten.hardtanh.default"
        for name, value in (("min_val", low), ("max_val", high)):
            call["inputs"].append({"name": name, "arg": {"as_float": value}, "kind": 1})

    return change


def scaled(scale: float) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        for node in nodes(config):
            for argument in node["inputs"]:
                if argument["name"] == "scale" and "as_float" in argument["arg"]:
                    argument["arg"] = {"as_float": scale}

    return change


def compiled(change: Callable[[Any], object], folder: Path, check: bool = True) -> Any:
    file = folder / "foreign.pt2"
    file.write_bytes(changed(quantised_archive(), MODEL, change))
    return secateur.compile(load_archive(file), target="8x1", check=check)


def test_bounds_beyond_all_codes_clip_to_codes(tmp_path: Path) -> None:
    """relu is hardtanh from 0 to infinity; so is one to a number that float has no codes for."""
    expected = compiled(lambda config: None, tmp_path).stream
    assert compiled(clipped(0.0, "Infinity"), tmp_path).stream == expected
    assert compiled(clipped(0.0, 1e300), tmp_path, check=False).stream == expected


def test_what_pytorch_itself_cannot_run(tmp_path: Path) -> None:
    """Nothing can be compared then, and nothing is promised."""
    with pytest.raises(SecateurError, match=r"^PyTorch cannot run the quantised model: .*--no-ch"):
        compiled(clipped(0.0, 1e300), tmp_path)


FOREIGN: dict[str, tuple[Callable[[Any], object], str]] = {
    "unquantised": (unquantised, "reads conv2d, which is not quantised; requantise"),
    "product": (
        lambda config: insert(config, "flatten", "torch.ops.aten.mul.Tensor", {"as_int": 2}),
        "node flatten (flatten): reads put, which is not quantised; requantise",
    ),
    "sum": (
        lambda config: insert(config, "flatten", "torch.ops.aten.add.Tensor", {"as_int": 2}),
        "node flatten (flatten): reads put, which is not quantised; requantise",
    ),
    "bounds": (clipped("NaN", "NaN"), "clips to nan..nan; clip to a range"),
    "tiny scale": (scaled(2.0**-1000), "is not a power of two; requantise"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_refused(kind: str, tmp_path: Path) -> None:
    change, message = FOREIGN[kind]
    with pytest.raises(SecateurError) as caught:
        compiled(change, tmp_path)
    assert message in str(caught.value)


def test_the_archive_itself_compiles(tmp_path: Path) -> None:
    assert compiled(lambda config: None, tmp_path).cycles > 0
    assert secateur.run(compiled(lambda config: None, tmp_path), inputs().numpy()).values.shape == (
        6,
        3,
    )

"""What archives may hold, and how much of it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur.capture.archive.archive import load_archive
from secateur.disk.limits import Limits
from secateur.errors import SecateurError
from tests.support.archives import (
    MODEL,
    changed,
    float_archive,
    inputs,
    members,
    nodes,
    quantised_archive,
    saved,
    small,
    together,
)


class Odd(nn.Module):
    """A name with a dash, a layer used twice, shared and expanded weights, a result in a tree."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("a-b", nn.Conv2d(1, 4, 1))
        self.head = nn.Linear(16, 3)
        self.again = self.head
        self.wide = nn.Parameter(torch.full((1, 1, 1), 0.5).expand(4, 1, 1))
        self.constant = torch.tensor(2.0)

    def forward(self, x: Tensor) -> dict[str, list[Tensor | None]]:
        y = (self.get_submodule("a-b")(x) * self.wide * self.constant).relu_().flatten(1)
        return {"logits": [self.head(y) + self.again(y), None]}


def derived() -> bytes:
    """A batch that is twice a size."""
    batch = ({0: 2 * torch.export.Dim("n", min=2, max=50)},)
    return saved(torch.export.export(small(), (inputs(),), dynamic_shapes=batch), inputs())


def odd() -> bytes:
    torch.manual_seed(0)
    return saved(Odd().eval(), inputs())


WHOLE: dict[str, Callable[[], bytes]] = {
    "float": float_archive,
    "quantised": quantised_archive,
    "fixed batch": lambda: saved(small(), inputs(), fixed=True),
    "odd": odd,
    "compressed": lambda: together(members(float_archive()), zipfile.ZIP_DEFLATED),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_archives_compile_to_what_torch_makes_of_them(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "model.pt2"
    file.write_bytes(WHOLE[kind]())
    expected = torch.export.load(io.BytesIO(WHOLE[kind]()))
    images = [
        secateur.compile(program, target="8x1", calibration=inputs())
        for program in (load_archive(file), expected)
    ]
    assert images[0].stream == images[1].stream
    assert images[0].metadata == images[1].metadata


def test_a_batch_that_is_twice_a_size_is_that_of_the_example(tmp_path: Path) -> None:
    """torch itself cannot always tell what convolutions do with such a batch."""
    file = tmp_path / "model.pt2"
    file.write_bytes(derived())
    image = secateur.compile(load_archive(file), target="8x1", calibration=inputs(5))
    expected = secateur.compile(small(), target="8x1", calibration=inputs(5))
    found, wanted = (secateur.run(i, inputs(5).numpy()).codes for i in (image, expected))
    assert found.any()
    # Two batch sizes: PyTorch's convolutions may round a calibration sum in two ways.
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1


def sized(text: object, hint: object) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        x = config["graph_module"]["graph"]["tensor_values"]["x"]
        x["sizes"][0] = {"as_expr": {"expr_str": text, "hint": hint}}

    return change


SIZES = (
    "s0**9**9**9", "*".join(["(s0+s1)"] * 40), "(" * 240 + "s0" + ")" * 240, "exit(0)", "u0", "1/0",
    "s0.free_symbols", "Symbol('s0', positive=open('x'))", "\n", "Symbol('s0", 7, None, ["s0"],
)  # fmt: skip


@pytest.mark.parametrize("text", SIZES)
def test_a_size_that_is_not_a_symbol_is_that_of_the_example(text: object, tmp_path: Path) -> None:
    file = tmp_path / "size.pt2"
    file.write_bytes(changed(float_archive(), MODEL, sized(text, {"as_int": 6})))
    program = load_archive(file)
    x = next(node for node in program.graph.nodes if node.name == "x")
    assert x.meta["val"].shape == (6, 1, 2, 2)
    assert all(type(size) is int for size in x.meta["val"].shape)
    assert torch.equal(program.module()(inputs()), small()(inputs()))


def test_limits(tmp_path: Path) -> None:
    """Each bound is met exactly, and named by the option that raises it."""
    file = tmp_path / "model.pt2"
    file.write_bytes(float_archive())
    operations = 7
    load_archive(file, Limits(nodes=operations))
    with pytest.raises(SecateurError, match=r"7 nodes, at most 6 are read; .* --max-nodes"):
        load_archive(file, Limits(nodes=operations - 1))
    bomb = members(float_archive()) | {"extra/zeros": bytes(3 << 20)}
    file.write_bytes(together(bomb, zipfile.ZIP_DEFLATED))
    assert file.stat().st_size < 1 << 20
    load_archive(file, Limits(megabytes=4))
    with pytest.raises(SecateurError, match=r"all that it unpacks to: .* --max-megabytes"):
        load_archive(file, Limits(megabytes=3))
    file.write_bytes(float_archive() + bytes(2 << 20))
    with pytest.raises(SecateurError, match=r"the file: .* at most 1 MB .* --max-megabytes"):
        load_archive(file, Limits(megabytes=1))


def test_values_of_a_graph_have_a_bound(tmp_path: Path) -> None:
    """A padding of a few bytes of JSON would make a map of terabytes."""

    def pad(config: Any) -> None:
        nodes(config)[1]["inputs"][-1]["arg"] = {"as_ints": [2**18, 2**18]}

    file = tmp_path / "wide.pt2"
    file.write_bytes(changed(float_archive(), MODEL, pad))
    with pytest.raises(
        SecateurError, match=r"node conv2d.*: \d+,\d{3},\d{3},\d{3},\d{3} bytes, at most 1,024 MB"
    ):
        load_archive(file)


def test_ranges_of_no_size_take_no_time(tmp_path: Path) -> None:
    """torch counts up to the number in the name of a symbol that data decides."""

    def change(config: Any) -> None:
        config["range_constraints"]["u999999999999"] = {"min_val": 0, "max_val": None}

    file = tmp_path / "ranges.pt2"
    file.write_bytes(changed(float_archive(), MODEL, change))
    assert torch.equal(load_archive(file).module()(inputs()), small()(inputs()))

"""docs/operators.md: its rows run, or are refused, as it says, and no operator is missing."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest
import torch
from torch.export import ExportedProgram

import secateur
from docs.tables import operators
from docs.tables.operators import SUPPORTED, compiled, inputs_of, model_of, refusal
from docs.tables.refused_rows import REFUSED
from secateur import canonical, fx
from secateur.canonical import supported
from secateur.canonical.rewrite import canonicalise
from secateur.capture.export import export
from secateur.capture.recurrent import is_recurrent
from secateur.capture.steps import Sequence, capture_sequences
from secateur.fx.functions import UNTAGGED

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operators.md"
ROWS = {f"{row.name} {row.forms}": row for rows in SUPPORTED.values() for row in rows}
REFUSALS = {row.name: row for row in REFUSED}
#: Operators that a module of PyTorch does not become when it is exported: of archives of others.
UNSEEN = {
    "_unsafe_view.default", "add.Scalar", "alias.default", "contiguous.default", "mul.Scalar",
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_supported(name: str) -> None:
    """``compiled`` has compared every code: the array computes the graph. And that the model."""
    row = ROWS[name]
    graph, _, image = compiled(row)
    x = inputs_of(row)
    values = torch.from_numpy(secateur.run(image, x.numpy()).values)
    model = model_of(row)
    assert not isinstance(model, ExportedProgram)
    with torch.no_grad():
        assert torch.equal(values, graph(x))
        expected = model(x)
    error = (row.host(values) - expected).square().mean().sqrt()
    assert error < 0.03 * expected.abs().max()


@pytest.mark.parametrize("name", REFUSALS)
def test_refused(name: str) -> None:
    message = refusal(REFUSALS[name])
    assert message.startswith("layer 'here")
    assert "; " in message


def test_the_page_is_what_the_generator_prints() -> None:
    assert PAGE.read_text() == operators.page(), "run python -m docs.tables.operators"


def test_cells_are_short() -> None:
    cells = [cell for line in PAGE.read_text().splitlines() for cell in line.split(" | ")]
    assert max(map(len, cells)) <= 200


@functools.cache
def _targets() -> set[object]:
    """Operators of the supported rows' graphs, as exported and as the array has them."""
    found = set()
    for row in ROWS.values():
        model, x = model_of(row), inputs_of(row)
        captured = capture_sequences(model, x) if is_recurrent(model) else model
        graph = captured.graph if isinstance(captured, Sequence) else export(captured, x)
        found |= {node.target for node in graph.graph.nodes}
        if "oftmax" not in row.name:  # left to the host
            found |= {node.target for node in canonicalise(graph).graph.nodes}
    return found


def test_every_operator_that_the_array_has_is_in_a_row() -> None:
    targets = _targets()
    assert {*supported._CHECKS} <= targets
    assert {getattr(target, "_opname", "") for target in targets} >= UNTAGGED


def test_every_operator_that_the_rewrites_know_is_in_a_row() -> None:
    named = set()
    for package in (canonical, fx):
        for file in Path(package.__path__[0]).glob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
                if text.startswith("aten.") and text.count(".") == 2:
                    named.add(text.removeprefix("aten."))
    known = {str(target).removeprefix("aten.") for target in _targets()}
    assert named - known == UNSEEN


def test_every_remedy_is_in_a_row() -> None:
    messages = [refusal(row) for row in REFUSED]
    for operation, remedy in supported._REMEDIES.items():
        assert any(f"{operation})" in m or f"{operation}_" in m for m in messages), operation
        assert any(m.endswith(remedy) for m in messages), remedy

"""Counts against what the golden interpreter decodes from the image; energies by hand."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from secateur.cli.main import app
from secateur.errors import SecateurError
from secateur.hw.spec import Reg
from secateur.image.image import Image
from secateur.pruning import prune
from secateur.report.energy import HOROWITZ, estimate, load_energies
from secateur.sim import golden
from tests.support.networks import random_input, random_network
from tests.support.pipeline import Built, build, compile_for, target

TABLE = """
mac = 1
weight_byte = 2
bank_read_byte = 3
bank_write_byte = 4
requantise = 5
cycle = 6.5
source = "by hand"
"""


@pytest.mark.parametrize("seed", range(6))
def test_counts_are_those_of_the_stream(seed: int) -> None:
    model, shape = random_network(seed)
    to = target(8, 4)
    image = compile_for(build(model, random_input(seed, shape, 2)), to)
    program = golden.parse(image.stream, to.geometry)
    found = estimate(image)
    for row, layer in zip(found["layers"], program.layers, strict=True):
        groups, passes = layer.reg[Reg.GX] * layer.reg[Reg.GY], layer.reg[Reg.GZ]
        body = sum(each.count for each in layer.rows) * groups * passes
        counts = row["pruned"]["counts"]
        assert counts["macs"] == body * 8 * 4
        assert counts["bank_read_bytes"] == body * 8 * 4
        pixels = len(layer.rows) * groups * layer.reg[Reg.LANES]
        assert counts["requantised"] == counts["bank_write_bytes"] == pixels * 8
        assert counts["cycles"] == layer.cycles
        assert row["macs_nonzero"] <= counts["macs"]
    # Tables, 32 words each, and the mark behind them are loaded once, not by every inference.
    tables = image.stream[7]
    stored = len(image.words) - to.geometry.header_words - 32 * tables - (tables > 0)
    bodies = sum(each.count for layer in program.layers for each in layer.rows)
    others = found["pruned"]["counts"]["weight_bytes"] // 9 - sum(
        row["pruned"]["counts"]["macs"] // 32 for row in found["layers"]
    )
    assert 0 <= stored - bodies - others <= 9  # what loads the input


@pytest.fixture(scope="module")
def image() -> Image:
    """A pointwise convolution on 8 x 4 pixels at half of its blocks: all by hand."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(32, 8, 1))
    nn.init.uniform_(model[0].weight, 0.5, 1)  # none is 0 in int8
    prune(model, density=0.5, n=8)
    x = torch.rand(2, 32, 4, 8)
    built: Built = build(model, x)
    return compile_for(built, target(8, 8))


def test_energies_by_hand(image: Image, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(TABLE)
    found = estimate(image, load_energies(file))
    (layer,) = found["layers"]
    # Four groups of eight pixels; 16 of 32 words a group.
    for key, words in (("pruned", 16), ("dense", 32)):
        counts, parts = layer[key]["counts"], layer[key]["picojoules"]
        assert counts["macs"] == 4 * words * 64 == parts["array"]
        assert parts["banks"] == 3 * 4 * words * 64 + 4 * 32 * 8
        assert parts["drain"] == 5 * 32 * 8
        assert parts["cycles"] == 6.5 * counts["cycles"]
        assert parts["weights"] == 2 * counts["weight_bytes"]
        headers = counts["weight_bytes"] // 9 - 4 * words
        assert 2 < headers < 16
        assert parts["total"] == sum(value for name, value in parts.items() if name != "total")
    assert found["macs_nonzero"] == 16 * 32 * 8
    assert found["source"] == "by hand"


def test_the_command(image: Image, tmp_path: Path) -> None:
    image.save(tmp_path / "model.sec")
    (tmp_path / "mine.toml").write_text(TABLE)
    runner = CliRunner()
    shown = runner.invoke(app, ["energy", str(tmp_path / "model.sec")])
    assert shown.exit_code == 0
    assert "estimate" in shown.output
    assert "ISSCC 2014" in shown.output.replace("\n", " ")
    (total,) = re.finditer("all layers", shown.output)
    parts = [found.start() for found in re.finditer("of which:", shown.output)]
    assert all(total.start() < part for part in parts)
    command = ["energy", str(tmp_path / "model.sec"), "--json", "--table"]
    found = runner.invoke(app, [*command, str(tmp_path / "mine.toml")])
    found = json.loads(found.stdout)
    assert found["energies"]["cycle"] == 6.5
    assert len(parts) == len(found["pruned"]["picojoules"]) - 1  # all but their sum, above them


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mac = 1\n", "", "must have mac, weight_byte, .*; see 'mac'"),
        ("mac = 1", "mac = -1", "mac must be picojoules, 0 or more, not -1"),
        ("mac = 1", 'mac = "1"', "mac must be picojoules"),
        ("mac = 1", "mac = 1\nvolts = 2", "see 'volts'"),
        ('"by hand"', '""', "source must name where"),
        ("mac = 1", "mac", "not a TOML file"),
    ],
)
def test_refused_tables(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(TABLE.replace(old, new))
    with pytest.raises(SecateurError, match=message):
        load_energies(file)
    with pytest.raises(SecateurError, match=r"none\.toml: cannot be read"):
        load_energies(tmp_path / "none.toml")


def test_an_image_without_metadata(image: Image) -> None:
    with pytest.raises(SecateurError, match="no metadata to estimate from"):
        estimate(replace(image, metadata={}))
    assert HOROWITZ.cycle == 0

"""The three uses: their data, their networks, and a short run from recipe to table."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from secateur import api
from secateur.errors import SecateurError
from secateur.examples import home, security
from secateur.examples import run as example
from secateur.examples.carried import carried
from secateur.pruning.recipes.recipe import load_recipe
from tests.support.pipeline import build, check_image, compile_for, target

RECIPES = Path(example.__file__).parent


def test_utterances() -> None:
    split = home.data(0)
    assert split.train_x.shape == (270, home.STEPS, home.FEATURES)
    assert split.test_x.shape == (370, home.STEPS, home.FEATURES)
    assert torch.equal(split.train_y.bincount(), torch.full((9,), 30))
    # The archive's first utterance: 20 frames, of which the first has 1.860936 as first value.
    assert not split.train_x[0, :9].any()
    assert split.train_x[0, 9:].all()
    assert split.train_x[0, 9, 0] == np.float32(1.860936)


@pytest.mark.parametrize("line", ["1,2:3,4:1", ":".join(["1"] * 12 + ["x"]), "1:" * 12 + "a", ""])
def test_damaged_utterances(line: str, tmp_path: Path) -> None:
    file = tmp_path / "x.ts"
    file.write_text(f"@problemName x\n@data\n{line}\n")
    with pytest.raises(SecateurError, match=r"line 1 of the data must have 12 channels"):
        home.read_ts(file)


def test_r_net_knows_all_faces_as_pretrained_and_in_int8() -> None:
    """Its own weights tell: the maps are flattened in the right order, the images scaled right."""
    network, split = security.model(0).eval(), security.data(0)
    x = torch.cat([split.train_x, split.test_x])
    y = torch.cat([split.train_y, split.test_y])
    assert len(x) == 200
    assert int(y.sum()) == 100
    with torch.no_grad():
        assert torch.equal(network(x).argmax(1), y)
    built = build(network, split.train_x[::10])
    to = target(8, 3)
    image = compile_for(built, to)
    assert check_image(built, image, to.geometry) > 0
    assert np.array_equal(api.run(image, x.numpy()).values.argmax(1), y.numpy())


@pytest.mark.parametrize("name", example.EXAMPLES)
def test_recipes_are_whole(name: str) -> None:
    assert load_recipe(RECIPES / f"{name}.toml").verify.max_drop is not None


def test_a_short_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_recipe(RECIPES / "home.toml")
    short = replace(
        whole,
        train=replace(whole.train, epochs=2),
        channels=replace(whole.channels, epochs=1),
        qat=replace(whole.qat, epochs=1),
        quantize=replace(whole.quantize, samples=30),
    )
    # Widths are sought among eighths of them, not 1024ths.
    monkeypatch.setattr("secateur.pruning.budget.baselines.GRID", 8)
    monkeypatch.setattr(example, "load_recipe", lambda path: short)
    data = example.run_example("home", tmp_path, clock_mhz=100.0)
    assert data["pruned"]["cycles"] <= short.budget.cycles < data["dense"]["cycles"]
    for column in (data["dense"], data["pruned"]):
        assert column["milliseconds"] == pytest.approx(column["cycles"] * 29 / 1e5)
    assert data["simulated"]["layers_compared"] > 0
    assert all(before > after for _, (before, after) in data["widths"].items() if before == 32)
    assert (tmp_path / "example.json").is_file()


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(SecateurError, match="no example 'x'; there are security, home, traffic"):
        example.run_example("x", tmp_path, clock_mhz=1.0)
    for clock in (0.0, float("nan"), float("inf")):
        with pytest.raises(SecateurError, match=f"--clock must be above 0, not {clock:g}"):
            example.run_example("home", tmp_path, clock_mhz=clock)
    with pytest.raises(SecateurError, match="pip install --no-deps nothing-at-all"):
        carried("nothing_at_all", "x", "nothing-at-all")


@pytest.mark.long
@pytest.mark.parametrize("name", example.EXAMPLES)
def test_examples(name: str, tmp_path: Path) -> None:
    """The whole runs, with the loss that their recipes allow."""
    if name == "traffic" and not os.environ.get("SECATEUR_DATA"):
        pytest.skip("needs SECATEUR_DATA")
    data = example.run_example(name, tmp_path, clock_mhz=150.0)
    assert data["gate"] is None
    assert data["pruned"]["cycles"] < data["dense"]["cycles"]

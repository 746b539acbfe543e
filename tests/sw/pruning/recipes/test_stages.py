"""Stages of a recipe one by one: what they are given, and what they go on with."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from secateur.errors import SecateurError, SecateurWarning
from secateur.pruning.criteria.criteria import Magnitude
from secateur.pruning.recipes import checkpoint, cutting, run
from secateur.pruning.recipes.cutting import BlockCuts, narrow
from secateur.pruning.recipes.data.data import Data
from secateur.pruning.recipes.data.trees import Batch
from secateur.pruning.recipes.recipe import load_recipe
from secateur.pruning.recipes.robust import fgsm
from secateur.pruning.recipes.run import run_recipe
from secateur.pruning.recipes.state import RunState
from secateur.pruning.recipes.task.task import Task
from secateur.target import Target
from tests import parts

TINY = Path(__file__).parents[3] / "data" / "tiny.toml"


@pytest.mark.parametrize("multiplies", [False, True])
def test_emulated_bfloat16_is_pointed_out(
    multiplies: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn
) -> None:
    monkeypatch.setattr(run, "multiplies_bfloat16", lambda: multiplies)

    def stop(*progress: object) -> None:
        raise KeyboardInterrupt

    for precision in ("float32", "bfloat16"):
        file = tmp_path / f"{precision}.toml"
        text = TINY.read_text()
        assert "batch = 10" in text
        file.write_text(text.replace("batch = 10", f'batch = 10\nprecision = "{precision}"'))
        with pytest.raises(KeyboardInterrupt):
            run_recipe(load_recipe(file), tmp_path / precision, progress=stop)
    found = [str(w.message) for w in recwarn if w.category is SecateurWarning]
    assert len(found) == (0 if multiplies else 1)
    assert all('training.precision = "float32"' in text for text in found)


def test_rewinding_takes_buffers_that_are_not_saved(tmp_path: Path) -> None:
    model = parts.model(3)
    model.register_buffer("unused", torch.ones(()), persistent=False)
    file = tmp_path / "recipe.toml"
    file.write_text(TINY.read_text().replace("reorder = true", ""))
    recipe, part = load_recipe(file), Data.of(parts.data(3), "data").train
    early = copy.deepcopy(model)
    with torch.no_grad():
        model.first.weight.mul_(2)
    x, _ = part.some(20, 0)
    cuts = BlockCuts(model, recipe, Target.load("8x8"), part, Task(), x, early)
    cuts.before_batch(0, 6)
    kept = model.first.weight != 0
    assert torch.equal(model.first.weight[kept], early.first.weight[kept])


def darkened(x: Tensor, generator: torch.Generator) -> Tensor:
    return x.mul_(torch.rand(len(x), 1, 1, 1, generator=generator))


def test_the_fit_sees_changed_copies_behind_the_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another recipe would have no copies; what is changed in place is a copy."""
    part = Data.of(parts.data(3), "data").train
    file = tmp_path / "recipe.toml"
    text = TINY.read_text().replace("reorder = true", "reconstruct = true\ncopies = 2")
    file.write_text(text.replace("epochs = 2\nsteps = 3", 'schedule = "one-shot"'))
    recipe, seen = load_recipe(file), list[list[Batch]]()
    monkeypatch.setattr(
        cutting, "reconstruct", lambda model, dense, batches: seen.append(list(batches))
    )
    x, _ = part.some(20, 0)
    for augment in (darkened, darkened, None):
        model = parts.model(3)
        cuts = BlockCuts(
            model, recipe, Target.load("8x8"), part, Task(), x, None, augment
        )  # fmt: skip
        cuts.before_batch(0, 0)
    first, second, without = seen
    assert len(first) == 3 * len(without) == 12
    for (ours, _), (own, _) in zip(first, without, strict=False):
        assert torch.equal(ours, own)
    for (ours, _), (again, _) in zip(first, second, strict=True):
        assert torch.equal(ours, again)
    changed = [batch for batch, _ in first[4:]]
    for copied, (own, _) in zip(changed, [*without, *without], strict=True):
        factor = copied.flatten(1).sum(dim=1) / own.flatten(1).sum(dim=1)
        torch.testing.assert_close(copied, own * factor[:, None, None, None])
    assert not torch.equal(changed[0], changed[4])


def test_without_training_what_stays_is_fitted(tmp_path: Path) -> None:
    """No epoch runs; the fitted network is nearer to the dense one than its blocks alone."""
    file = tmp_path / "recipe.toml"
    text = TINY.read_text().replace("reorder = true", "").replace("tests.parts:model", "{}")
    weights = 'tests.parts:model"\nweights = "dense.safetensors'
    file.write_text(text.replace("{}", weights))
    run_recipe(load_recipe(TINY), tmp_path / "trained")
    tensors, _ = checkpoint.read(tmp_path / "trained" / "float.json")
    state = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
    save_file(state, tmp_path / "dense.safetensors")
    seen: list[str] = []
    recipe = load_recipe(file, training=False)
    run_recipe(recipe, tmp_path / "out", progress=lambda stage, *_: seen.append(stage))
    assert not {"train", "prune", "recover", "qat dense", "qat model"} & {*seen}
    outputs = {
        name: checkpoint.read(tmp_path / "out" / f"{name}.json")[0]["outputs"]
        for name in ("float", "recovered")
    }
    alone = dataclasses.replace(recipe, prune=dataclasses.replace(recipe.prune, reconstruct=False))
    run_recipe(alone, tmp_path / "alone")
    unfitted = checkpoint.read(tmp_path / "alone" / "recovered.json")[0]["outputs"]
    assert torch.equal(outputs["float"], tensors["outputs"])
    lost = (outputs["recovered"] - outputs["float"]).square().sum()
    assert lost < (unfitted - outputs["float"]).square().sum() / 2


def test_training_that_is_left_out_is_pointed_out(recwarn: pytest.WarningsRecorder) -> None:
    assert load_recipe(TINY, training=False).train.epochs == 0
    assert "[train] is skipped" in str(recwarn.pop(SecateurWarning).message)


def test_channels_fit_cycles_and_blocks_the_density(tmp_path: Path) -> None:
    """The widths are those of the cycles alone: blocks go later."""
    text = TINY.read_text().replace("[prune]", "[channels]\nfit = true\n[prune]")
    x, found = parts.data(3)["train_x"][:20], []
    for density in ("", "density = 0.5"):
        file = tmp_path / "recipe.toml"
        file.write_text(text.replace("cycles = 1500", f"cycles = 2000\n{density}"))
        model, target = parts.model(3), Target.load("8x8")
        found.append(narrow(model, load_recipe(file), target, x, Magnitude(), None))
    assert found[0] == found[1]
    assert 0 < found[0][0] < 1


def test_attacks_know_the_range_of_the_data(tmp_path: Path) -> None:
    """Normalised inputs: an attack of strength 0 leaves them as they are."""
    file = tmp_path / "recipe.toml"
    file.write_text(TINY.read_text().replace("tests.parts:data", "tests.parts:normalised"))
    state = RunState(load_recipe(file), tmp_path, lambda *progress: None)
    low, high = state.input_range
    x, y = state.data.test.some(40, 0)
    assert low < 0 < 1 < high
    assert torch.equal(fgsm(parts.model(0).eval(), x, y, 0.0, low=low, high=high), x)
    file.write_text(file.read_text().replace("[verify]", "[verify]\nlow = -100\nhigh = 100"))
    assert RunState(load_recipe(file), tmp_path, lambda *progress: None).input_range == (-100, 100)


def test_corruptions_are_for_images(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    text = TINY.read_text().replace("tests.parts:data", "tests.parts:vectors")
    file.write_text(text.replace("tests.parts:model", "tests.parts:perceptron"))
    with pytest.raises(SecateurError, match="corruptions take images"):
        run_recipe(load_recipe(file), tmp_path / "out")


@pytest.mark.parametrize("what", ["train", "target", "weights"])
def test_it_does_not_go_on_with_something_else(what: str, tmp_path: Path, monkeypatch) -> None:
    """The recipe names the same; what it names has changed."""
    target = tmp_path / "mine.toml"
    target.write_text("n = 8\np = 8\nweight_words = 4096\nbank_words = 1024\n")
    file = tmp_path / "recipe.toml"
    text = TINY.read_text().replace('"8x8"', f'"{target}"').replace("reorder = true", "")
    file.write_text(text.replace("[data]", 'weights = "weights.safetensors"\n[data]'))
    save_file(parts.model(1).state_dict(), tmp_path / "weights.safetensors")
    recipe = load_recipe(file)

    def stop(stage: str, done: int, total: int, note: str) -> None:
        if stage == "train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "out", progress=stop)
    if what == "train":
        data = parts.data
        monkeypatch.setattr(parts, "data", lambda seed: data(seed + 1))
    elif what == "target":
        target.write_text(target.read_text().replace("p = 8", "p = 4"))
    else:
        save_file(parts.model(2).state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(SecateurError, match=f"out: holds a run with another {what}; restore"):
        run_recipe(recipe, tmp_path / "out", resume=True)

"""Data in all forms: the same samples give the same image, and passes can be repeated."""

from __future__ import annotations

import hashlib
import random
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import secateur
from secateur import api
from secateur.errors import SecateurError
from secateur.pruning.recipes import checkpoint
from secateur.pruning.recipes.data.data import Data
from secateur.pruning.recipes.data.randomness import Randomness
from secateur.pruning.recipes.data.trees import joined, split, stacks, taken
from secateur.pruning.recipes.recipe import load_recipe
from secateur.pruning.recipes.run import run_recipe
from secateur.pruning.recipes.training import rate
from secateur.pruning.units.blocks import prunable_layers
from secateur.pruning.units.mask import mask_of
from tests import parts, tasks
from tests.support.long import long

TINY = Path(__file__).parents[3] / "data" / "tiny.toml"
#: What a loop of one's own has: no augmentation, and saliencies of the weights alone.
PLAIN = (
    ('augment = "tests.parts:brightened"\n', ""),
    ('criterion = "taylor"\n', ""),
    ("reorder = true\n", ""),
    ("batch = 10", "batch = 10\nshuffle = false"),
)


def recipe_of(tmp_path: Path, name: str, *changes: tuple[str, str]) -> Any:
    text = TINY.read_text()
    for old, new in (*changes, ("tests.parts:data", name)):
        assert old in text
        text = text.replace(old, new)
    file = tmp_path / f"{name.partition(':')[2]}.toml"
    file.write_text(text)
    return load_recipe(file)


def ran(tmp_path: Path, name: str, *changes: tuple[str, str]) -> tuple[str, dict[str, Any]]:
    """SHA-256 of the image, and the masks, of a run."""
    recipe = recipe_of(tmp_path, name, *changes)
    folder = tmp_path / name.partition(":")[2]
    run_recipe(recipe, folder)
    state, _ = checkpoint.read(folder / "recovered.json")
    masks = {key: value for key, value in state.items() if key.endswith("mask")}
    return hashlib.sha256(api.load(folder / "model.sec").stream).hexdigest(), masks


def own_loop(seed: int) -> tuple[str, dict[str, Any]]:
    """The recipe of `PLAIN` without a recipe: batches, optimizers and rates are the user's."""
    split = parts.data(seed)
    batches = list(zip(split["train_x"].split(10), split["train_y"].split(10), strict=True))
    order = torch.randperm(160, generator=torch.Generator().manual_seed(seed))
    calibration = split["train_x"][order[:64]]
    model = parts.model(seed).eval().to(memory_format=torch.channels_last)

    def train(name: str, trained: Any, epochs: int, highest: float, step: Any = None) -> None:
        torch.manual_seed(zlib.crc32(f"{seed} {name}".encode()))
        optimizer = torch.optim.AdamW(trained.parameters(), lr=highest, weight_decay=1e-3)
        trained.train()
        for done in range(16 * epochs):
            x, y = batches[done % 16]
            optimizer.param_groups[0]["lr"] = rate(done, 16 * epochs, highest)
            loss = F.cross_entropy(trained(x.contiguous(memory_format=torch.channels_last)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step is not None:
                step()
        trained.eval()

    train("train", model, 2, 1e-2)
    pruner = secateur.Pruner(model, calibration, "8x8", cycles=1500, steps=16, cuts=3)
    train("prune", model, 2, 1e-2, pruner.step)
    pruner.finish()
    train("recover", model, 1, 5e-3)
    graph = secateur.quantize(
        model, calibration, qat=lambda prepared: train("qat model", prepared, 2, 1e-3)
    )
    image = secateur.compile(graph, target="8x8")
    masks = {
        f"model.{name}.parametrizations.weight.0.mask": mask_of(layer).mask
        for name, layer in prunable_layers(model).items()
    }
    return hashlib.sha256(image.stream).hexdigest(), masks


def test_tensors_loaders_and_a_loop_of_one_s_own_give_one_image(tmp_path: Path) -> None:
    """In a fixed order: identical masks and images."""
    expected, masks = ran(tmp_path, "tests.parts:data", *PLAIN)
    for name in ("datasets", "loaders", "lists"):
        found, others = ran(tmp_path, f"tests.tasks:{name}", *PLAIN)
        assert found == expected, name
        assert all(torch.equal(others[key], value) for key, value in masks.items())
    found, others = own_loop(3)
    assert masks.keys() == others.keys()
    assert any((value == 0).any() for value in masks.values())
    assert all(torch.equal(others[key], value) for key, value in masks.items())
    assert found == expected


def test_data_sets_are_shuffled_and_augmented_as_tensors_are(tmp_path: Path) -> None:
    expected, _ = ran(tmp_path, "tests.parts:data")
    assert ran(tmp_path, "tests.tasks:datasets")[0] == expected


@pytest.mark.parametrize("name", [long("shuffled"), "worked"])
def test_a_loader_that_draws_is_resumed_to_the_same_image(name: str, tmp_path: Path) -> None:
    """Whatever has been drawn before in the process, and from whichever generator."""
    plain = PLAIN[:1]
    random.seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    expected, _ = ran(tmp_path, f"tests.tasks:{name}", *plain)
    assert states == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    recipe = recipe_of(tmp_path, f"tests.tasks:{name}", *plain)

    def stop(stage: str, done: int, total: int, note: str) -> None:
        if (stage, done) == ("prune", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "again", progress=stop)
    random.seed(2)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(2)
    run_recipe(recipe, tmp_path / "again", resume=True)
    image = api.load(tmp_path / "again" / "model.sec")
    assert hashlib.sha256(image.stream).hexdigest() == expected


def test_epochs_differ_and_come_again() -> None:
    part = Data.of(tasks.shuffled(0), "data").train
    first, again, other = (torch.cat([x for x, _ in part.epoch(1, seed=s)]) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first.sort(0).values, other.sort(0).values)  # the noise is another


def test_a_loader_gives_the_samples_that_its_tensors_give() -> None:
    tensors, loader = (Data.of(f(0), "data").train for f in (parts.data, tasks.lists))
    assert tensors.facts.digest != Data.of(parts.data(1), "data").train.facts.digest
    assert loader.count == tensors.count == 160
    assert (loader.facts.low, loader.facts.high) == (tensors.facts.low, tensors.facts.high)
    for count, seed in ((7, 0), (64, 1), (1000, 2)):
        for a, b in zip(loader.some(count, seed), tensors.some(count, seed), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("size", [9, 159, 80, 1])
def test_a_last_sample_joins_the_batch_before_it(size: int) -> None:
    found = parts.data(0)
    pairs = zip(found["train_x"].split(size), found["train_y"].split(size), strict=True)
    given = {"train": list(pairs), "test": tasks.lists(0)["test"]}
    sizes = [
        [len(y) for _, y in Data.of(data, "data").train.epoch(size, seed=0)]
        for data in (found, given)
    ]
    assert sizes[0] == sizes[1]
    assert sum(sizes[0]) == 160
    assert Data.of(given, "data").train.batches(3) == len(sizes[0])


def test_what_is_drawn_inside_is_not_seen_outside() -> None:
    own, again = Randomness(5), Randomness(5)

    def draw() -> tuple[float, float, float]:
        return float(torch.rand(())), random.random(), float(np.random.random())  # noqa: NPY002

    torch.manual_seed(0)
    outside = [draw() for _ in range(2)]
    torch.manual_seed(0)
    drawn = []
    for _ in range(2):
        with own.own():
            drawn.append(draw())
        assert float(torch.rand(())) == outside[len(drawn) - 1][0]
    with again.own():
        assert [draw(), draw()] == drawn


def test_trees() -> None:
    tree = {"a": torch.arange(6), "b": (torch.arange(12).reshape(6, 2),)}
    assert stacks(tree, 6)
    assert not stacks(tree, 5)
    assert not stacks([1, 2], 2)
    pieces = list(split(tree, 4))
    assert [len(piece["a"]) for piece in pieces] == [4, 2]
    whole = joined(pieces)
    assert torch.equal(whole["b"][0], tree["b"][0])
    assert taken(["p", "q", "r"], torch.tensor([2, 0]), stacked=False) == ["r", "p"]
    assert joined([["p"], ["q", "r"]], stacked=False) == ["p", "q", "r"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("restless", "inputs of train differ from one pass to the next with the same seed"),
        ("endless", "train must be a DataLoader, an iterable of batches .*, not list_iterator"),
        ("inputs_alone", r"inputs of train must come in pairs \(input, target\), not Tensor"),
        ("bytes_in", "inputs of train is torch.uint8; give float32"),
        ("few_targets", "targets of train must be tensors with as many samples .*, 10, or a list"),
        ("broken", "inputs of train cannot be read: 'image'"),
        ("listed", "targets of train must be class numbers below 4.*; or give training.loss"),
    ],
)
def test_refused_data(name: str, message: str, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, f"tests.tasks:{name}", *PLAIN[:1])
    with pytest.raises(SecateurError, match=f"data.load = 'tests.tasks:{name}': {message}"):
        run_recipe(recipe, tmp_path / "out")
    assert not (tmp_path / "out" / "float.json").exists()


def test_targets_may_be_a_list_of_anything(tmp_path: Path) -> None:
    """As detectors have them; also sample by sample."""
    own = (
        "batch = 10",
        'batch = 10\nloss = "tests.tasks:loss_of_listed"\nmetric = "tests.tasks:right_of_listed"',
    )
    plain = [c for c in PLAIN if "shuffle" not in c[1] and "taylor" not in c[0]]
    changes = (*plain, own, ('"taylor"', '"fisher"'), ("fgsm = [0.1]\npgd = [0.1]\n", ""))
    recipe = recipe_of(tmp_path, "tests.tasks:listed", *changes)
    record = run_recipe(recipe, tmp_path / "out")
    assert record["agreement"] is None
    assert record["budget"]["spent"]["cycles"] <= 1500

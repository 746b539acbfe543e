"""Everything that prunes works on the device that the model is on; run by ``test_device.py``."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateur
from secateur.pruning import (
    Element,
    GroupLasso,
    IterativePruner,
    criterion_of,
    density_of,
    distil,
    distributions,
    prune,
    reconstruct,
    remove,
)
from secateur.pruning.criteria.criteria import CRITERIA
from secateur.pruning.recipes import run, state
from secateur.pruning.recipes.recipe import load_recipe
from secateur.pruning.recipes.run import run_recipe
from secateur.pruning.recipes.task.device import moved
from secateur.pruning.units.blocks import prunable_layers
from tests import parts
from tests.sw.pruning.elsewhere import NAME, Elsewhere, machine


def batches() -> list[tuple[Tensor, Tensor]]:
    found = parts.data(3)
    return list(zip(found["train_x"][:48].split(16), found["train_y"][:48].split(16), strict=True))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in model.state_dict().items()}


def equal(model: nn.Module, other: nn.Module) -> None:
    found = weights(model)
    for name, value in weights(other).items():
        assert torch.equal(found[name], value), name


def test_the_device_does_not_mix() -> None:
    with machine() as device:
        model = parts.model(0).to(device)
        assert isinstance(model.first.weight, Elsewhere)
        x = batches()[0][0]
        with pytest.raises(RuntimeError, match="same device"):
            model(x)
        assert torch.equal(model.eval()(x.to(device)).cpu(), parts.model(0).eval()(x))


@pytest.mark.parametrize("name", sorted({*CRITERIA} - {"batchnorm"}))
def test_criteria(name: str) -> None:
    """The batches may stay where they are."""
    criterion = criterion_of(name, batches=batches())
    expected = parts.model(0)
    expected(batches()[0][0])
    prune(expected, density=0.5, criterion=criterion)
    with machine() as device:
        model = parts.model(0)
        model(batches()[0][0])
        model = model.to(device)
        prune(model, density=0.5, criterion=criterion)
        assert density_of(model) == density_of(expected)
        equal(model, expected)
        remove(model)
        assert isinstance(model.first.weight, Elsewhere)


def trained(device: str) -> tuple[nn.Module, int]:
    """Through a pruner, a lasso, distillation and a fit; then quantised and compiled."""
    torch.manual_seed(0)
    model = parts.model(0).to(device)
    dense = copy.deepcopy(model)
    pruner = secateur.Pruner(model, batches()[0][0], "8x8", cycles=1800, steps=3, cuts=2)
    lasso = GroupLasso(model, 1e-4, granularity=Element())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss = distil(dense, share=0.5)
    for x, y in batches():
        x, y = x.to(device), y.to(device)
        optimizer.zero_grad()
        loss(x, model(x), y).backward()
        optimizer.step()
        lasso.step(0.01)
        pruner.step()
    pruner.finish()
    reconstruct(model, dense, batches())
    graph = secateur.quantize(model, batches()[0][0].to(device))
    image = secateur.compile(graph, target="8x8")
    return model.to("cpu"), image.metadata["cycles"]


def test_a_training_ends_with_the_same_weights() -> None:
    expected, cycles = trained("cpu")
    with machine() as device:
        model, found = trained(device)
    assert found == cycles <= 1800
    for layer in prunable_layers(model).values():
        assert not isinstance(layer.weight, Elsewhere)
    equal(model, expected)


#: File, model and data, loss and metric of a recipe.
RECIPES = {
    "classes": ("tiny", ()),
    "pixels": (
        "task",
        (("MODEL", "segmenter"), ("DATA", "scenes"), ("LOSS", "pixels"), ("METRIC", "overlap")),
    ),
    "sequences": (
        "task",
        (
            ("MODEL", "spoken"), ("DATA", "sequences"), ('loss = "tests.tasks:LOSS"\n', ""),
            ('metric = "tests.tasks:METRIC"\n', ""), ("density = 0.5", "density = 0.8"),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_gives_the_same_image(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All its stages, their checkpoints and verification run there; batches come from here."""
    base, changes = RECIPES[name]
    text = (Path(__file__).parents[2] / "data" / f"{base}.toml").read_text()
    for old, new in (*changes, ("epochs = 6", "epochs = 2")):
        text = text.replace(old, new)
    file = tmp_path / "recipe.toml"
    file.write_text(text.replace("[recover]", "[recover]\ndistil = 0.5"))
    expected = run_recipe(load_recipe(file), tmp_path / "cpu")
    for module in (run, state):
        monkeypatch.setattr(module, "device_of", lambda name: torch.device(NAME))
    with machine():
        found = run_recipe(load_recipe(file), tmp_path / "there")
    assert (found["environment"]["device"], expected["environment"]["device"]) == (NAME, "cpu")
    for key in ("dense int8", "model int8", "allocation"):
        assert found["results"][key] == expected["results"][key]
    assert len(found["robustness"]) == len(expected["robustness"])
    assert len(found["sensitivity"]) == len(expected["sensitivity"]) > 0


class Padded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.ones(2, 3, device=x.device)], dim=1)


def test_a_graph_makes_its_tensors_there() -> None:
    x = torch.rand(2, 4)
    graph = torch.export.export(Padded(), (x,)).module()
    with machine() as device:
        found = moved(graph, torch.device(device))(x.to(device))
        assert isinstance(found, Elsewhere)
        found = found.cpu()
    assert torch.equal(moved(graph, torch.device("cpu"))(x), found)
    assert torch.equal(Padded()(x), found)


def test_rewinding_and_distributions() -> None:
    with machine() as device:
        model = parts.model(0).to(device)
        pruner = IterativePruner(model, density=0.25, rounds=2)
        pruner.step()
        found = distributions(model, batches(), F.cross_entropy)
    expected = parts.model(0)
    other = IterativePruner(expected, density=0.25, rounds=2)
    other.step()
    for name, kinds in distributions(expected, batches(), F.cross_entropy).items():
        for kind, expected_one in kinds.items():
            assert (found[name][kind].counts == expected_one.counts).all()
            assert (found[name][kind].edges == expected_one.edges).all()
    equal(model, expected)

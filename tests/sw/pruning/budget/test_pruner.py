"""Pruning to a budget in a training loop of the user's own."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateur
from secateur.errors import SecateurError
from secateur.fx.wrapped import inner
from secateur.pruning import Taylor, density_of
from secateur.pruning.budget.pruner import due
from secateur.pruning.units.mask import mask_of
from tests import parts

CYCLES = 1500


def batches(seed: int = 3) -> list[tuple[Tensor, Tensor]]:
    found = parts.data(seed)
    return list(zip(found["train_x"].split(16), found["train_y"].split(16), strict=True))


def masks(model: nn.Module) -> dict[str, Tensor]:
    found = {name: mask_of(layer) for name, layer in model.named_modules()}
    return {name: mask.mask.clone() for name, mask in found.items() if mask is not None}


def trained(
    model: nn.Module, pruner: secateur.Pruner, optimizer: torch.optim.Optimizer, steps: range
) -> list[int]:
    """Train on; returns the steps behind which blocks left."""
    samples = batches()
    model.train()
    cuts = []
    for step in steps:
        x, y = samples[step % len(samples)]
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        if pruner.step():
            cuts.append(step + 1)
    model.eval()
    return cuts


def begun(seed: int = 0, **options: object) -> tuple[nn.Module, secateur.Pruner]:
    model = parts.model(seed)
    example = batches()[0][0]
    pruner = secateur.Pruner(model, example, "8x8", cycles=CYCLES, steps=8, cuts=4, **options)  # type: ignore[arg-type]
    return model, pruner


def test_the_image_meets_the_budget() -> None:
    model, pruner = begun()
    assert pruner.allocation is not None
    spent = [pruner.allocation.cost.cycles]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    assert trained(model, pruner, optimizer, range(10)) == [2, 4, 6]
    assert pruner.done
    spent.append(pruner.allocation.cost.cycles)
    kept = masks(model)
    assert trained(model, pruner, optimizer, range(10, 14)) == []
    for name, layer in model.named_modules():
        if name in kept:
            assert not layer.weight[kept[name] == 0].any()
    image = secateur.compile(model, target="8x8", calibration=batches()[0][0])
    assert image.metadata["cycles"] <= CYCLES < spent[0]
    assert image.metadata["cycles"] >= 0.97 * CYCLES


def test_a_loop_that_ends_early_is_finished() -> None:
    model, pruner = begun()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    trained(model, pruner, optimizer, range(3))
    before = density_of(model).kept
    assert not pruner.done
    pruner.finish()
    assert pruner.done
    assert density_of(model).kept < before
    assert pruner.allocation is not None
    assert pruner.allocation.cost.cycles <= CYCLES


def test_continued_it_ends_as_without_a_stop() -> None:
    """Through the state of model, optimizer and pruner, from another beginning."""
    whole, pruner = begun()
    optimizer = torch.optim.Adam(whole.parameters(), lr=0.01)
    torch.manual_seed(7)
    trained(whole, pruner, optimizer, range(5))
    state = copy.deepcopy([m.state_dict() for m in (whole, optimizer, pruner)])
    generator = torch.get_rng_state()
    trained(whole, pruner, optimizer, range(5, 12))
    model, again = begun(seed=1)
    rest = torch.optim.Adam(model.parameters(), lr=0.01)
    for part, saved in zip((model, rest, again), state, strict=True):
        part.load_state_dict(saved)
    torch.set_rng_state(generator)
    trained(model, again, rest, range(5, 12))
    for name, value in whole.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_wrappers_are_seen_through() -> None:
    plain, _ = begun()
    for wrap in (nn.DataParallel, torch.optim.swa_utils.AveragedModel, torch.compile):
        model = wrap(parts.model(0))
        secateur.Pruner(model, batches()[0][0], "8x8", cycles=CYCLES, steps=8, cuts=4)
        found = masks(inner(model))
        assert found.keys() == masks(plain).keys()
        for name, mask in masks(plain).items():
            assert torch.equal(found[name], mask)


def together(rank: int, folder: str) -> None:
    """One of two processes, each with samples of its own."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    samples = batches()[rank::2]
    model = parts.model(0)
    pruner = secateur.Pruner(
        model, samples[0][0], "8x8", cycles=CYCLES, steps=4, cuts=2,
        criterion=Taylor(samples[:2], F.cross_entropy),
    )  # fmt: skip
    parallel = nn.parallel.DistributedDataParallel(model)
    with pytest.raises(SecateurError, match="make the Pruner first"):
        secateur.Pruner(parallel, samples[0][0], "8x8", cycles=CYCLES, steps=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for x, y in samples:
        optimizer.zero_grad()
        F.cross_entropy(parallel(x), y).backward()
        optimizer.step()
        pruner.step()
    pruner.finish()
    torch.save(masks(model), Path(folder) / f"{rank}.pt")
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads now and then wait for a process that has gone


def test_processes_that_train_together_have_the_same_masks(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(together, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first.keys() == second.keys()
    for name, mask in first.items():
        assert torch.equal(mask, second[name]), name
    assert any((mask == 0).any() for mask in first.values())


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 100])
@pytest.mark.parametrize("cuts", [1, 3, 8])
def test_cuts_are_spread_evenly(steps: int, cuts: int) -> None:
    made = [due(done, steps, cuts) for done in range(steps + 1)]
    assert made[0] >= 1
    assert made[-1] == cuts
    assert made == sorted(made)
    for cut in range(cuts):
        assert made.index(next(m for m in made if m > cut)) == int(cut * steps / cuts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0, "cycles": 9}, "steps must be a positive integer, not 0"),
        ({"steps": 1, "cuts": True, "cycles": 9}, "cuts must be a positive integer, not True"),
        ({"steps": 1}, "budget: give cycles"),
        ({"steps": 1, "cycles": 9, "skip": ["x"]}, "skip: no layer 'x'"),
        ({"steps": 1, "cycles": 9}, "9 cycles cannot be reached"),
        ({"steps": 1, "cycles": 9, "criterion": "taylor"}, "'taylor' needs data"),
    ],
)
def test_what_is_refused(options: dict[str, object], message: str) -> None:
    model = parts.model(0)
    with pytest.raises(SecateurError, match=message):
        secateur.Pruner(model, batches()[0][0], "8x8", **options)  # type: ignore[arg-type]
    assert not masks(model)


def test_a_state_of_something_else_is_refused() -> None:
    _, pruner = begun()
    with pytest.raises(SecateurError, match="takes what Pruner"):
        pruner.load_state_dict({"steps": 3})

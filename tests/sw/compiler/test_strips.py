"""Layers in strips: chosen only where maps do not fit, byte-identical, counted by the pruner."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from secateur import api
from secateur.cli.model import show_inspection
from secateur.compiler import compiler, dataflow
from secateur.compiler.prepare import runnable
from secateur.compiler.schedule import plan
from secateur.compiler.strips.cut import Way, cut, runs
from secateur.errors import SecateurError
from secateur.image.image import Image
from secateur.lowering.lower import lower
from secateur.pruning.budget.budget import allocate_budget
from secateur.pruning.budget.costing import CostModel
from secateur.pruning.criteria.saliency import block_saliency
from secateur.pruning.recipes.check_image import check_masks
from secateur.quantisation.prepare import quantize
from secateur.report.summary import dense_macs, summary
from secateur.target import Target
from tests.support.pipeline import Built, build, check_image, compile_for, simulated, target

SIZE = (3, 23, 21)


def chain(seed: int) -> Built:
    """Convolutions and pooling of any kernels, strides, dilations and paddings, odd sizes."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    layers, channels = list[nn.Module](), 3
    for at in range(5):
        kernel, stride, dilation = (rng.integers(1, top, 2).tolist() for top in (5, 3, 3))
        pad = [int(rng.integers(0, k // 2 + 1)) for k in kernel]
        kind = int(rng.integers(3)) if at else 0
        outputs = int(rng.integers(3, 12)) if kind == 0 else channels
        more: list[nn.Module] = [nn.MaxPool2d(kernel, stride, pad, dilation)]
        if kind < 2:
            groups = channels if kind else 1
            conv = nn.Conv2d(channels, outputs, kernel, stride, pad, dilation, groups)
            more = [nn.ZeroPad2d(rng.integers(0, 3, 4).tolist()), conv, nn.ReLU()]
        try:
            shape = nn.Sequential(*layers, *more)(torch.zeros(1, *SIZE)).shape
        except RuntimeError:  # the map is smaller than the window
            continue
        if min(shape[2:]) > 2:
            layers, channels = [*layers, *more], outputs
    model = nn.Sequential(*layers, nn.Conv2d(channels, 4, 1), nn.Flatten())
    return build(model, torch.randn(2, *SIZE))


def forced(built: Built, to: Target, seed: int, monkeypatch: pytest.MonkeyPatch) -> Image:
    """The image with some of the first layers in some strips, though all fits without."""
    network, rng = runnable(built.network, to.geometry), np.random.default_rng(seed)
    found = list(runs(network, range(1)))
    run, axis = found[seed % len(found)], seed // 2 % 2
    way = Way(run, axis, int(rng.integers(2, 5)))
    monkeypatch.setattr(compiler, "runnable", lambda *_: cut(network, way).network)
    return compile_for(built, to)


@pytest.mark.parametrize("seed", range(6))
def test_strips_compute_what_the_whole_does(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    built, (n, p) = chain(seed), [(8, 1), (4, 3), (8, 8), (2, 5)][seed % 4]
    to = target(n, p)
    whole = compile_for(built, to)
    image = forced(built, to, seed, monkeypatch)
    names = [layer["name"] for layer in image.metadata["layers"] if "strip" in layer]
    assert len(names) >= 2
    assert all(re.search(r" (rows|columns) \d+-\d+(#\d+)?$", name) for name in names)
    assert check_image(built, image, to.geometry) >= check_image(built, whole, to.geometry)
    figures = [summary(each)["dense_weights"] for each in (image, whole)]
    assert figures[0] == figures[1]
    assert dense_macs(image.metadata) <= dense_macs(whole.metadata)  # rows that nobody reads


def test_verilog_computes_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    built = chain(2)
    image = forced(built, simulated(4, 2), 2, monkeypatch)
    assert api.simulate(image, built.x[:1].numpy()).mismatches == []  # codes and cycles


def test_a_strip_that_reads_other_rows_is_noticed() -> None:
    built, geometry = chain(1), target(4, 2).geometry
    network = runnable(built.network, geometry)
    found = cut(network, Way(list(runs(network, range(1)))[1], 0, 2)).network
    dataflow.check(built.network, plan(found, geometry))
    (source,) = found.layers[-2].sources if found.layers[-2].strip else found.layers[1].sources
    top, left, bottom, right = source.padding
    source.padding = (top + 1, left, bottom - 1, right)
    with pytest.raises(SecateurError, match="would not get"):
        dataflow.check(built.network, plan(found, geometry))


def residual() -> nn.Module:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 1, 1)
            self.third = nn.Conv2d(16, 8, 3, 1, 1)
            self.last = nn.Conv2d(8, 8, 3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x).relu()
            x = (self.third(self.second(x).relu()) + x).relu()
            return self.last(x).flatten(1)

    torch.manual_seed(0)
    return Block()


def small(bank_words: int) -> Target:
    return target(8, 2, bank_words=bank_words)


X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_strips_come_only_where_maps_do_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    built = build(residual(), X)
    roomy, tight = compile_for(built, small(1024)), compile_for(built, small(512))
    assert "strips" not in roomy.metadata
    assert not any("strip" in layer for layer in roomy.metadata["layers"])
    check_image(built, tight, small(512).geometry)
    strips = tight.metadata["strips"]
    assert strips["words"] > 512
    assert max(each["base"] + each["words"] for each in tight.metadata["memory"]) <= 512
    copies = {each["strip"]["layer"] for each in tight.metadata["layers"] if "strip" in each}
    assert {strips["first"], strips["last"]} <= copies
    show_inspection(summary(tight))
    said = " ".join(capsys.readouterr().out.split())
    assert f"in {strips['count']} strips of columns: the maps do not fit without." in said


def test_the_pruner_counts_strips() -> None:
    model, to = residual().eval(), small(512)
    costs = CostModel(model, X, to)
    dense = costs.cost(costs.alive).cycles
    allocation = allocate_budget(
        costs, None, None, block_saliency(model, 8, skip=("first",)), cycles=int(0.7 * dense)
    )
    assert allocation.cost.plan.strips is not None
    assert 0.68 * dense < allocation.cost.cycles <= 0.7 * dense
    allocation.apply(model)
    graph = quantize(model, X)
    image = compiler.compile_network(lower(graph), to)
    assert check_masks(image, graph, model).masked_weights > 0
    layers = len(image.metadata["layers"])
    assert 0 <= allocation.cost.cycles - image.cycles <= 3 * layers  # configuration words
    assert len(image.metadata["layers"]) == len(allocation.cost.plan.layers)


def refused(model: nn.Module, to: Target) -> str:
    with pytest.raises(SecateurError) as caught:
        compile_for(build(model, X), to)
    return str(caught.value)


def test_where_strips_do_not_help_the_message_says_how_far_off_it_is() -> None:
    torch.manual_seed(0)
    assert "the target has 64; the input alone takes " in refused(residual(), small(64))
    found = re.search(
        r"needs (\d+) words .*, the target has 256; in strips it takes (\d+) or more: choose",
        refused(residual(), small(256)),
    )
    assert found is not None
    assert int(found[1]) > int(found[2]) > 256
    heavy = replace(small(512), geometry=replace(small(512).geometry, weight_words=900))
    assert "; in strips they do, but the image takes" in refused(residual(), heavy)

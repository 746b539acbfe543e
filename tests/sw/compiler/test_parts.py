"""The parts of a layer's cycles, beside an issue stage that is stepped, and the decoded stream."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from torch import nn

from secateur.compiler.compiler import compile_network
from secateur.errors import SecateurError
from secateur.hw import spec
from secateur.hw.spec import Geometry, Mode, Reg
from secateur.image import image as images
from secateur.image.image import Image
from secateur.models import Autoencoder
from secateur.sim.decode import parse
from secateur.sim.program import Layer, Program, walk
from secateur.target import Target
from tests.support.networks import mlperf_tiny, random_input, random_network
from tests.support.pipeline import build

GEOMETRIES = [
    Geometry(n=8, p=8, weight_words=1 << 16, bank_words=4096, s=8),
    Geometry(n=2, p=3, weight_words=1 << 16, bank_words=1 << 14),
]
SLOTS = ("nonzero", "zero", "move", "idle")


@cache
def image_of(seed: int | None, geometry: Geometry) -> Image:
    """An image of a random network; of None, of a stack of linear layers at a quarter."""
    model: nn.Module
    model, shape = mlperf_tiny(Autoencoder, 0.25) if seed is None else random_network(seed)
    built = build(model, random_input(seed or 0, shape, 8))
    return compile_network(built.network, Target(name="any", geometry=geometry))


def issued(layer: Layer) -> Counter[str]:
    """Cycles of the rows by what issues: one step per cycle, a word or none.

    The last word of a group waits until the group before has drained, a pixel per cycle.
    """
    took: Counter[str] = Counter()
    reg, time = layer.reg, 0
    drained = 0
    for row in layer.rows[:: layer.side]:
        took["headers"] += 2
        time += 2
        for _ in range(reg[Reg.GX] * reg[Reg.GY]):
            for left in reversed(range(row.count * reg[Reg.GZ])):
                while not left and time < drained:
                    took["wait"] += 1
                    time += 1
                took["body"] += 1
                time += 1
            drained = time - 1 + reg[Reg.LANES]
    return took


def slots_of(program: Program, layer: Layer) -> Counter[str]:
    """What every multiplier does with every word of the stream, without maxima and gates."""
    n, p, took = program.geometry.n, program.geometry.p, Counter[str]()
    passes = layer.reg[Reg.GZ]
    for group in range(layer.row_groups):
        exists = walk(layer, group)[1].reshape(-1, layer.reg[Reg.LANES])
        first = layer.rows[group * layer.side]
        took["all"] += first.count * passes * len(exists) * n * p
        for side in range(layer.side):
            row = group * layer.side + side
            if row == len(layer.rows):
                break
            lanes = exists[:, side] if layer.side > 1 else exists
            found = layer.rows[row]
            words = program.words[found.start :][: found.count * found.step : found.step, :n]
            times = int(lanes.sum()) * passes
            took["nonzero"] += int(np.count_nonzero(words)) * times
            took["empty"] += int((~words.any(axis=1)).sum()) * times
    return took


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("seed", [*range(8), None])
def test_parts_are_those_of_a_stepped_issue_stage(seed: int | None, geometry: Geometry) -> None:
    image = image_of(seed, geometry)
    program = parse(image.stream, geometry)
    total = spec.load_tail(geometry.p)
    for layer, meta in zip(program.layers, image.metadata["layers"], strict=True):
        parts = {key: value for key, value in meta["parts"].items() if key != "slots"}
        assert sum(parts.values()) == meta["cycles"] == layer.cycles
        took = issued(layer)
        assert {key: parts[key] for key in ("headers", "body", "wait")} == {
            key: took[key] for key in ("headers", "body", "wait")
        }
        total += sum(parts.values())
    assert total == program.cycles == image.cycles


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("seed", [*range(8), None])
def test_slots_are_those_of_the_stream(seed: int | None, geometry: Geometry) -> None:
    image = image_of(seed, geometry)
    program = parse(image.stream, geometry)
    for layer, meta in zip(program.layers, image.metadata["layers"], strict=True):
        slots, took = meta["parts"]["slots"], slots_of(program, layer)
        assert min(slots.values()) >= 0
        assert sum(slots.values()) == took["all"]
        assert slots["nonzero"] == round(meta["bound_cycles"] * geometry.multipliers)
        modes = {layer.mode(spec.FLAG_A_MODE), layer.mode(spec.FLAG_B_MODE)}
        whole = all(lane >= 0 for lanes in meta["lanes"] for lane in lanes)
        if whole and meta["deal"] != "blocks" and not modes & {Mode.MAXIMUM, Mode.GATE}:
            assert slots["nonzero"] == took["nonzero"]
            assert slots["move"] == took["empty"] * geometry.n


def test_a_dense_network_multiplies_the_zeros_that_a_pruned_one_omits() -> None:
    image = image_of(None, GEOMETRIES[0])
    for meta in image.metadata["layers"]:
        dense, pruned = meta["parts_dense"], meta["parts"]
        assert sum(v for k, v in dense.items() if k != "slots") == meta["cycles_dense"]
        assert dense["slots"]["nonzero"] == pruned["slots"]["nonzero"]
        assert dense["slots"]["zero"] > pruned["slots"]["zero"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wait": 10**6}, r"parts are \d+ cycles, the layer has \d+"),
        ({"tail": -1}, "parts.tail is -1"),
        ({"slots": {}}, "parts.slots.nonzero is missing"),
        (
            {"slots": dict.fromkeys(["nonzero", "zero", "move", "idle"], 1)},
            "for each cycle of body",
        ),
    ],
)
def test_parts_of_a_file_are_checked(change: dict[str, Any], message: str, tmp_path: Any) -> None:
    image = image_of(0, GEOMETRIES[0])
    first, *others = image.metadata["layers"]
    wrong = first | {"parts": first["parts"] | change}
    altered = replace(image, metadata=image.metadata | {"layers": [wrong, *others]})
    altered.save(tmp_path / "wrong.sec")
    with pytest.raises(SecateurError, match=message) as refused:
        images.load(tmp_path / "wrong.sec")
    assert re.search(r"compile the model again$", str(refused.value))

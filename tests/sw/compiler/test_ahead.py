"""When the compiler lets the next input come while an inference runs, and how long that takes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from secateur.compiler.allocate import Request, allocate
from secateur.compiler.encode import plan_and_encode
from secateur.compiler.prepare import runnable
from secateur.compiler.room.ahead import opens_at, take_ahead
from secateur.compiler.schedule import freed, windows
from secateur.hw.ring import Source
from secateur.ir import Tensor
from secateur.sim import golden
from secateur.sim.simulate import compare, simulate
from secateur.target import Target
from tests.support.pipeline import Built, build, check_image, compile_for, target


@pytest.fixture(scope="module")
def built() -> Built:
    """Four convolutions; the input takes 103 words of 4 bytes."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
    layers += [nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3)]
    return build(nn.Sequential(*layers), torch.rand(6, 2, 14, 14))


def test_predicted_is_golden_is_verilog(built: Built) -> None:
    """One after the other, in the middle of pauses too; the inference itself stays as it was."""
    to = target(4, 3, bank_words=512)
    image = compile_for(built, to)
    assert check_image(built, image, to.geometry) > 0
    found, meta = image.metadata["interval"], image.metadata
    assert found["opens"] == meta["layers"][1]["name"]
    assert found["cycles"] < found["alone"] - meta["inputs"][0]["words"]
    placed = runnable(built.network, to.geometry)
    assert meta["cycles"] == plan_and_encode(placed, to.geometry)[1].cycles
    program = golden.parse(image.stream, to.geometry)
    inputs = np.random.default_rng(0).integers(0, 256, (5, program.input_words * 4), dtype=np.uint8)
    expected = golden.run(program, inputs, sequential=True)
    for stalls in (0.0, 0.5):
        result = simulate(image.stream, inputs, to.geometry, stalls=stalls, seed=1)
        assert compare(result, expected, inputs).mismatches == []
        if not stalls:
            spans = [after - before for before, after in pairwise(result.ends)]
            assert spans == [found["cycles"]] * 4
            assert result.cycles == [meta["cycles"]] * 5


def test_the_input_has_its_window_alone(built: Built) -> None:
    """From the layer on from which words come, in banks of every size that they fit."""
    opened = set()
    for n, p, words in ((4, 3, 512), (4, 3, 1024), (2, 8, 512), (8, 5, 128)):
        geometry = target(n, p, bank_words=words).geometry
        placed = runnable(built.network, geometry)
        planned, encoded = take_ahead(*plan_and_encode(placed, geometry), geometry)
        (given,) = planned.network.given
        home, opens = planned.layouts[given], planned.opens
        opened.add(opens)
        if opens is None:
            assert encoded.interval == encoded.alone
            continue
        for request, base in windows(planned):
            if base < home.base + home.window and home.base < base + request.words:
                assert request.end <= opens
        assert golden.hazards(golden.parse(encoded.data, geometry)) == []
    assert 1 in opened  # in large banks the layer behind the first


def test_freed_leaves_no_room_that_is_not_there(built: Built) -> None:
    geometry = target(4, 3, bank_words=512).geometry
    planned, _ = plan_and_encode(runnable(built.network, geometry), geometry)
    (given,) = planned.network.given
    assert freed(planned, given, 1) is None  # the first layer reads it
    roomy = replace(geometry, bank_words=1024)
    planned, _ = plan_and_encode(runnable(built.network, roomy), roomy)
    (given,) = planned.network.given
    apart = freed(planned, given, 2)
    assert apart is not None
    assert opens_at(apart) == 1


def test_a_window_that_is_alive_twice_stays_where_it_is() -> None:
    """Between, another takes its place; behind, none does, though that would be lower."""
    given, between, behind = (Tensor(name, 1, 1, 1, 0, signed=False) for name in "abc")
    requests = [
        Request(given, 8, 0, 1), Request(between, 8, 2, 3), Request(behind, 8, 4, 5),
        Request(given, 8, 4, 9),
    ]  # fmt: skip
    bases = allocate(requests, 16)
    assert bases is not None
    assert bases[behind] != bases[given]
    assert allocate([*requests, Request(behind, 16, 4, 5)], 16) is None


def test_what_is_taken_before_an_inference(built: Built) -> None:
    reasons = []
    one = build(nn.Conv2d(2, 4, 3), torch.rand(4, 2, 9, 9))
    for made, p in ((built, 2), (one, 3)):
        image = compile_for(made, target(4, p))
        found = image.metadata["interval"]
        assert found["cycles"] == found["alone"]
        assert check_image(made, image, image.geometry) > 0
        reasons.append(found["why"])

    class Two(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return torch.relu(a + b)

    two = build(Two(), (torch.rand(4, 4, 6, 6), torch.rand(4, 4, 6, 6)))
    image = compile_for(two, target(4, 3))
    assert check_image(two, image, image.geometry) > 0
    reasons.append(image.metadata["interval"]["why"])
    assert reasons == [
        "the array has fewer than three lanes",
        "its words of the banks are in use until the end",
        "the network has several inputs",
    ]


def test_with_a_ring_all_words_have_come_by_the_load(built: Built) -> None:
    to = target(4, 3, bank_words=512)
    ring = Target(name="r", geometry=replace(to.geometry, ring=256), source=Source(interval=3))
    image = compile_for(built, ring)
    assert image.stream == compile_for(built, to).stream
    assert "opens" in image.metadata["interval"]
    # Its last layer alone is too short for the input: on chip a part is taken, from a ring none.
    short = nn.Sequential(nn.Conv2d(2, 4, 14), nn.Flatten(), nn.Linear(4, 2))
    made = build(short, torch.rand(4, 2, 14, 14))
    found = [compile_for(made, each).metadata["interval"] for each in (to, ring)]
    assert found[0]["cycles"] < found[0]["alone"]
    assert found[1] == {
        "cycles": found[0]["alone"],
        "alone": found[0]["alone"],
        "why": "its words of the banks are in use until the end",
    }

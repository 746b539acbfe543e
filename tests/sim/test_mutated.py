"""Programs with a word changed, as an attacker or a fault of the compiler could make them.

The host refuses what the engine and the golden interpreter could compute differently; whatever is
left gives the same bytes and cycles in both.
"""

from __future__ import annotations

import random

import pytest

from secateur.errors import SecateurError
from secateur.hw.spec import Geometry, Status
from secateur.image.image import Image
from secateur.inference import program_of
from secateur.sim.golden import ImageError, hazards, parse, run
from secateur.sim.simulate import compare, simulate
from tests.support.programs import Sample, random_program, with_crc

GEOMETRY = Geometry(n=4, p=3, weight_words=1024, bank_words=128)


def mutated(seed: int) -> Sample:
    """A random program, a bit of one to three of its words flipped."""
    rng, sample = random.Random(seed), random_program(seed % 97, GEOMETRY)
    data, size = bytearray(sample.image), GEOMETRY.word_bytes
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(GEOMETRY.header_words * size, len(data))
        data[at] ^= 1 << rng.randrange(8)
    data[16:20] = (200_000).to_bytes(4, "little")  # cycles: enough for most
    return Sample(GEOMETRY, with_crc(bytes(data)), sample.input_words, seed)


def check(seeds: range) -> tuple[int, int, int]:
    """Programs that are refused, that have hazards, and that run; none of these differs."""
    refused = raced = ran = 0
    for seed in seeds:
        sample = mutated(seed)
        try:
            program = parse(sample.image, GEOMETRY)
        except ImageError:
            refused += 1
            continue
        if hazards(program):
            raced += 1
            continue
        ran += 1
        inputs = Sample(GEOMETRY, b"", program.input_words, seed).inputs(2)
        golden = run(program, inputs, sequential=True)
        result = simulate(sample.image, inputs, GEOMETRY)
        assert compare(result, golden, inputs).mismatches == [], f"seed {seed}"
        assert result.state == Status.WAITING
        assert result.cycles == [golden.cycles] * len(inputs)
    return refused, raced, ran


def test_what_golden_accepts_is_what_the_engine_computes() -> None:
    refused, _, ran = check(range(22, 38))
    assert min(refused, ran) >= 2


@pytest.mark.long
def test_three_hundred_programs_that_golden_accepts() -> None:
    refused, raced, ran = check(range(1000, 1400))
    assert ran >= 300
    assert min(refused, raced) > 2


def test_a_program_that_the_engine_computes_otherwise_is_refused() -> None:
    sample = mutated(1635)
    program = parse(sample.image, GEOMETRY)
    inputs = sample.inputs(2)
    found = simulate(sample.image, inputs, GEOMETRY)
    assert compare(found, run(program, inputs, sequential=True), inputs).mismatches != []
    layer = hazards(program)[0]
    with pytest.raises(
        SecateurError, match=f"refused: layer {layer} reads words that it or the next"
    ):
        program_of(Image(program.words, {}))

"""Random networks through the whole flow: PyTorch = golden = Verilator, byte for byte."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

from secateur.api import simulate as simulate_image
from secateur.errors import SecateurError
from secateur.hw.ring import Source
from secateur.image import host
from secateur.sim import golden
from secateur.sim.simulate import compare, simulate
from tests.support.networks import random_input, random_network
from tests.support.pipeline import Built, build, check_image, compile_for, simulated, target

ARRAYS = [(8, 8), (8, 1), (8, 3), (4, 4), (2, 5), (16, 2), (8, 16), (2, 1), (4, 7), (16, 16)]
SEEDS_A_TEST = 20
#: More of the same than these are among the long tests; every array comes twice.
SEEDS = 20
#: Words of bank memory: plenty, and as little as forces tensors to share and be cleared.
BANKS = (4096, 256)


@functools.cache
def _random(seed: int) -> Built:
    model, shape = random_network(seed)
    return build(model, random_input(seed, shape, 6))


def _first(seed: int) -> object:
    return pytest.param(seed, marks=[pytest.mark.long] if seed >= SEEDS else [])


@pytest.mark.parametrize("first", map(_first, range(0, 200, SEEDS_A_TEST)))
def test_golden_equals_pytorch_on_every_layer(first: int) -> None:
    ran = compared = 0
    for seed in range(first, first + SEEDS_A_TEST):
        built, (n, p) = _random(seed), ARRAYS[seed % len(ARRAYS)]
        for bank_words in BANKS:
            to = target(n, p, bank_words=bank_words)
            try:
                image = compile_for(built, to)
            except SecateurError as error:
                if bank_words == BANKS[-1] and "do not fit the banks" in str(error):
                    continue
                raise
            compared += check_image(built, image, to.geometry)
            ran += bank_words == BANKS[0]
    assert ran == SEEDS_A_TEST
    assert compared > 1000


@pytest.mark.parametrize(("n", "p"), [(8, 8), (4, 3), (2, 1), (16, 1)])
def test_verilator_equals_golden_on_every_layer(n: int, p: int) -> None:
    to = simulated(n, p)
    for seed in range(1000, 1005):
        built = _random(seed)
        image = compile_for(built, to)
        check_image(built, image, to.geometry)
        meta = image.metadata["inputs"][0]
        packed = host.pack(host.to_codes(built.x[:2].numpy(), meta), meta, n)
        expected = golden.run(golden.parse(image.stream, to.geometry), packed, sequential=True)
        for stalls in (0.0, 0.3):
            result = simulate(image.stream, packed, to.geometry, stalls=stalls, seed=seed)
            compared = compare(result, expected, packed)
            assert compared.mismatches == []
            assert compared.layers_compared == 2 * len(image.metadata["layers"])
            if not stalls:
                assert result.cycles == [image.metadata["cycles"]] * 2
                first, second = result.ends
                assert second - first == image.metadata["interval"]["cycles"]
                assert np.array_equal(result.results, expected.results.reshape(-1, n))


@pytest.mark.long
@pytest.mark.parametrize("ring", [256, 2048])
def test_from_a_ring_as_from_memory(ring: int) -> None:
    """Twenty networks: the same image, the same results and cycles; waits as they are predicted."""
    to = target(4, 3, bank_words=2048)
    small = replace(to, geometry=replace(to.geometry, ring=ring), source=Source(interval=2))
    waited = 0
    for seed in range(1000, 1020):
        built = _random(seed)
        try:
            image = compile_for(built, small)
        except SecateurError as error:
            if f"of the ring, which has {ring}" in str(error):
                continue
            raise
        on_chip = compile_for(built, to)
        # With a ring no input is taken ahead of which a part would come with the LOAD.
        same = image.metadata["interval"] == on_chip.metadata["interval"]
        assert image.stream == on_chip.stream or not same
        found = simulate_image(image, built.x[:2].numpy())
        assert found.mismatches == []
        assert found.cycles == image.cycles
        waited += found.memory_wait > 0
    assert waited > 5 or ring == 2048

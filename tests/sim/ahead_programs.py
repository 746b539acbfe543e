"""Random programs that take words of the next input while an inference runs."""

from __future__ import annotations

from secateur.hw import spec
from secateur.hw.spec import Geometry
from secateur.sim.golden import hazards, parse
from secateur.sim.program import Load
from tests.sim.filter_programs import FilterMaker
from tests.support.programs import Sample, random_program, with_crc


def start_of(sample: Sample, index: int) -> int:
    """Byte of the image that holds the command of a layer."""
    layer = parse(sample.image, sample.geometry).layers[index]
    size = sample.geometry.word_bytes
    at = (layer.rows[0].start - 2 * layer.side) * size - 1
    while not sample.image[at] & spec.COMMON_START:
        at -= size
    return at


def opened(sample: Sample, index: int) -> Sample:
    """The program that takes words from a layer on."""
    image = bytearray(sample.image)
    image[start_of(sample, index)] |= spec.COMMON_AHEAD
    return Sample(sample.geometry, with_crc(bytes(image)), sample.input_words, sample.seed)


def ahead_program(seed: int, geometry: Geometry, layers: int = 6) -> tuple[Sample, int]:
    """A random program, and the first layer from which on it can take words, as it does."""
    while True:
        seed += 1000
        maker = FilterMaker if geometry.s > 1 else None
        sample = random_program(seed, geometry, layers=layers, several=seed % 3 == 0, maker=maker)
        program = parse(sample.image, geometry)
        if sum(isinstance(step, Load) for step in program.first) > 1:
            continue
        for index in range(len(program.layers)):
            made = opened(sample, index)
            if not hazards(parse(made.image, geometry)):
                return made, index
